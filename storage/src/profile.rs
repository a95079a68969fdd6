//! AWS profiles: credentials from `~/.aws`, since `object_store` reads variables only.

use std::{collections::BTreeMap, fs, path::PathBuf};

/// Largest file that is read: real ones have a few kB.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Keys of a profile, and the corresponding variables.
const KEYS: [(&str, &str); 5] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
    ("region", "AWS_REGION"),
    ("endpoint_url", "AWS_ENDPOINT_URL"),
];

/// Kinds of credentials that need more than reading a file.
const OTHER_WAYS: [&str; 4] = ["credential_process", "sso_session", "sso_start_url", "role_arn"];

/// Reason why a profile has no credentials.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the AWS profile {0} is in neither ~/.aws/credentials nor ~/.aws/config: check AWS_PROFILE")]
    Unknown(String),
    #[error(
        "the AWS profile {profile} gets its credentials through {way}, which is not read here: \
         run `eval \"$(aws configure export-credentials --profile {profile} --format env)\"` first"
    )]
    OtherWay { profile: String, way: &'static str },
}

/// Adds the settings of the chosen profile to `options`, unless a variable sets them.
///
/// The files are those of `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE`, else in `$HOME/.aws`.
/// Variables take precedence over the profile, and a pair of keys is never mixed from both.
///
/// Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
pub(crate) fn complete(options: &mut BTreeMap<String, String>) -> Result<(), Problem> {
    let file = |variable: &str, name: &str| {
        let path = options.get(variable).map(PathBuf::from);
        path.or_else(|| Some(PathBuf::from(options.get("HOME")?).join(".aws").join(name)))
    };
    let texts = [file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    let texts = texts.into_iter().flatten().filter_map(|path| {
        let is_small = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX_BYTES);
        if is_small { fs::read_to_string(path).ok() } else { None }
    });
    let chosen = options.get("AWS_PROFILE").or_else(|| options.get("AWS_DEFAULT_PROFILE")).cloned();
    let name = chosen.clone().unwrap_or_else(|| "default".to_owned());
    let mut found = false;
    let mut profile = BTreeMap::new();
    // The credentials file is read last: it takes precedence.
    for text in texts {
        if let Some(section) = section(&text, &name) {
            found = true;
            profile.extend(section);
        }
    }
    if !found {
        return chosen.map_or(Ok(()), |name| Err(Problem::Unknown(name)));
    }
    let has_other_credentials =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"]
            .iter()
            .any(|variable| options.contains_key(*variable));
    if !has_other_credentials
        && !profile.contains_key("aws_access_key_id")
        && let Some(way) = OTHER_WAYS.into_iter().find(|way| profile.contains_key(*way))
    {
        return Err(Problem::OtherWay { profile: name, way });
    }
    let has_region = options.contains_key("AWS_REGION") || options.contains_key("AWS_DEFAULT_REGION");
    for (key, variable) in KEYS {
        let is_set = match variable {
            "AWS_REGION" => has_region,
            "AWS_ENDPOINT_URL" => {
                options.contains_key("AWS_ENDPOINT_URL") || options.contains_key("AWS_ENDPOINT")
            }
            _ => has_other_credentials,
        };
        if let (Some(value), false) = (profile.remove(key), is_set) {
            options.insert(variable.to_owned(), value);
        }
    }
    Ok(())
}

/// Returns the keys of `[name]` (credentials) or `[profile name]` (config).
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut section = None;
    let mut inside = false;
    for line in text.lines() {
        // Indented lines are nested settings (`s3 =` …), which are ignored.
        if line.starts_with([' ', '\t']) || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.trim().strip_prefix('[').and_then(|l| l.split(']').next()) {
            let header = header.trim();
            inside = header == name
                || header
                    .strip_prefix("profile")
                    .is_some_and(|rest| rest.starts_with([' ', '\t']) && rest.trim() == name);
            if inside {
                section.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, Some((key, value)), Some(section)) =
            (inside, line.split_once('='), section.as_mut())
        {
            section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        credentials: &str,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, Problem> {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        fs::write(home.path().join(".aws/config"), config).unwrap();
        let mut options: BTreeMap<String, String> =
            variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        options.insert("HOME".into(), home.path().to_str().unwrap().into());
        complete(&mut options)?;
        options.remove("HOME");
        Ok(options)
    }

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S=\n\n[work]\naws_access_key_id=W\naws_secret_access_key=X\naws_session_token=T\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  endpoint_url = no\n[profile work]\nregion=us-west-2\nendpoint_url=http://w\n[profile sso]\nsso_session = x\n";

    #[test]
    fn profiles_fill_in_what_variables_leave_open() {
        let options = with(CREDENTIALS, CONFIG, &[]).unwrap();
        assert_eq!(options["AWS_ACCESS_KEY_ID"], "A");
        assert_eq!(options["AWS_SECRET_ACCESS_KEY"], "S=");
        assert_eq!(options["AWS_REGION"], "eu-west-1");
        assert!(!options.contains_key("AWS_ENDPOINT_URL"));
        let options = with(CREDENTIALS, CONFIG, &[("AWS_PROFILE", "work")]).unwrap();
        assert_eq!((&*options["AWS_SESSION_TOKEN"], &*options["AWS_ENDPOINT_URL"]), ("T", "http://w"));
    }

    #[test]
    fn variables_win_and_keys_are_never_mixed() {
        let given = [
            ("AWS_PROFILE", "work"),
            ("AWS_ACCESS_KEY_ID", "V"),
            ("AWS_SECRET_ACCESS_KEY", "Y"),
            ("AWS_DEFAULT_REGION", "r"),
        ];
        let options = with(CREDENTIALS, CONFIG, &given).unwrap();
        assert_eq!(options["AWS_ACCESS_KEY_ID"], "V");
        assert!(!options.contains_key("AWS_SESSION_TOKEN") && !options.contains_key("AWS_REGION"));
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_named_with_the_remedy() {
        assert_eq!(with(CREDENTIALS, CONFIG, &[("AWS_PROFILE", "no")]), Err(Problem::Unknown("no".into())));
        let problem = with(CREDENTIALS, CONFIG, &[("AWS_PROFILE", "sso")]).unwrap_err();
        assert!(problem.to_string().contains("export-credentials --profile sso"), "{problem}");
        assert_eq!(with("", "", &[]), Ok(BTreeMap::new()));
    }
}
