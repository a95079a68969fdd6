//! Settings of a statement, `spool.*`, which travel with it from the client to every executor.

use std::any::Any;

use datafusion::{
    common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions},
    error::{DataFusionError, Result},
};
use spool_storage::path_policy::PathPolicy;

/// Allowed threads of each encode. 0 would mean as many as the host has cores, and so other bytes on each
/// host.
const THREADS: std::ops::RangeInclusive<u32> = 1..=64;

/// The settings of a statement, which its session carries as `spool.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Threads of each encode. A setting of the statement, because it changes the output bytes.
    pub threads: u32,
    /// Whether to refuse damaged and truncated sources instead of encoding what can be decoded.
    pub strict: bool,
    /// Whether to keep playlists of the encoded part, `early.m3u8`, at the destination; rows then run in the
    /// order of the source.
    pub early_playback: bool,
    /// Locations that the statement may use; `None` for any.
    pub path_policy: Option<PathPolicy>,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { threads: 1, strict: false, early_playback: false, path_policy: None }
    }
}

impl SpoolOptions {
    /// Returns the path policy among the settings of a session; `None` if the session may use any location.
    pub fn path_policy(options: &ConfigOptions) -> Option<PathPolicy> {
        options.extensions.get::<Self>()?.path_policy.clone()
    }
}

impl ConfigExtension for SpoolOptions {
    const PREFIX: &'static str = "spool";
}

/// Written by hand: DataFusion's macro names its entries without the prefix, Ballista sends them by these
/// names, and an executor that cannot set `threads` continues with the default and reports nothing.
impl ExtensionOptions for SpoolOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "threads" => {
                let threads = parse(key, value)?;
                if !THREADS.contains(&threads) {
                    let (min, max) = THREADS.into_inner();
                    let message = format!("spool.threads is {threads}: it must be from {min} to {max}");
                    return Err(DataFusionError::Configuration(message));
                }
                self.threads = threads;
            }
            "strict" => self.strict = parse(key, value)?,
            "early_playback" => self.early_playback = parse(key, value)?,
            "path_policy" if value.is_empty() => self.path_policy = None,
            "path_policy" => {
                // A policy that cannot be read, such as one of a newer version, allows no location: Ballista
                // continues after an error.
                self.path_policy = Some(PathPolicy::default());
                self.path_policy = Some(parse_policy(value)?);
            }
            _ => {
                let names: Vec<String> = self.entries().into_iter().map(|entry| entry.key).collect();
                return Err(DataFusionError::Configuration(format!(
                    "unknown setting spool.{key}: the settings are {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |name: &str, value: String, description| ConfigEntry {
            key: format!("{}.{name}", Self::PREFIX),
            value: Some(value),
            description,
        };
        vec![
            entry("threads", self.threads.to_string(), "Threads of each encode. Changes the output bytes."),
            entry(
                "strict",
                self.strict.to_string(),
                "Refuses damaged and truncated sources instead of encoding what can be decoded.",
            ),
            entry(
                "early_playback",
                self.early_playback.to_string(),
                "Keeps playlists of what is encoded so far, early.m3u8, at the destination.",
            ),
            // Strings always serialize.
            entry(
                "path_policy",
                self.path_policy
                    .as_ref()
                    .map(|policy| serde_json::to_string(policy).unwrap_or_default())
                    .unwrap_or_default(),
                "Locations that may be read and written, as JSON; empty for any.",
            ),
        ]
    }
}

fn parse<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    let name = std::any::type_name::<T>();
    value.trim().to_ascii_lowercase().parse().map_err(|_| {
        let expected = if name == "bool" { "true or false" } else { "a whole number" };
        DataFusionError::Configuration(format!("spool.{key} is {value:?}: it must be {expected}"))
    })
}

fn parse_policy(value: &str) -> Result<PathPolicy> {
    serde_json::from_str(value)
        .map_err(|e| DataFusionError::Configuration(format!("failed to read spool.path_policy: {e}")))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionConfig;

    use super::*;

    #[test]
    fn settings_sent_by_name_arrive_unchanged() {
        let config = || SessionConfig::new().with_option_extension(SpoolOptions::default());
        let mut sent = config();
        let path_policy = r#"{"read":["s3://in/it's/"],"write":[]}"#;
        for (name, value) in [
            ("spool.threads", "3"),
            ("spool.strict", "true"),
            ("spool.early_playback", "TRUE"),
            ("spool.path_policy", path_policy),
        ] {
            sent.options_mut().set(name, value).unwrap();
        }
        let mut received = config();
        for entry in sent.options().entries().into_iter().filter(|entry| entry.key.starts_with("spool")) {
            received.options_mut().set(&entry.key, &entry.value.unwrap()).unwrap();
        }
        let options =
            |config: &SessionConfig| config.options().extensions.get::<SpoolOptions>().cloned().unwrap();
        let path_policy =
            Some(PathPolicy { read: vec!["s3://in/it's/".to_owned()], ..PathPolicy::default() });
        assert_eq!(
            options(&received),
            SpoolOptions { threads: 3, strict: true, early_playback: true, path_policy }
        );
        assert_eq!(options(&received), options(&sent));
    }

    #[test]
    fn a_setting_that_cannot_be_set_is_an_error_that_names_the_choices() {
        let mut options = SpoolOptions::default();
        assert!(
            options
                .set("speed", "2")
                .unwrap_err()
                .to_string()
                .contains("the settings are spool.threads, spool.strict")
        );
        assert!(options.set("threads", "two").unwrap_err().to_string().contains("whole number"));
        assert!(["0", "65"].iter().all(|threads| {
            options.set("threads", threads).unwrap_err().to_string().contains("from 1 to 64")
        }));
        assert!(options.set("path_policy", "s3://in/").unwrap_err().to_string().contains("failed to read"));
        assert_eq!(options.path_policy, Some(PathPolicy::default()), "an unreadable policy allows nothing");
        assert!(options.set("strict", "maybe").unwrap_err().to_string().contains("true or false"));
    }
}
