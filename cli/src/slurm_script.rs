//! Slurm job scripts: templates in plain bash, rendered with checked values. Pure.

use std::{collections::BTreeMap, fmt::Write};

/// Fragments of templates. In a template `@NAME@` stands for a value, and `@NAME_SH@` for the fragment of
/// that name.
const FRAGMENTS: [(&str, &str); 4] = [
    ("COMMON_SH", include_str!("../../jetstream2/slurm/templates/common.sh")),
    ("EXECUTOR_SH", include_str!("../../jetstream2/slurm/templates/executor.sh")),
    ("FOLDER_SH", include_str!("../../jetstream2/slurm/templates/folder.sh")),
    ("SCHEDULER_SH", include_str!("../../jetstream2/slurm/templates/scheduler.sh")),
];

/// Kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// One command on all nodes of the job.
    Batch,
    /// A scheduler, for executors in other jobs.
    Scheduler,
    /// An array of executors.
    Executors,
}

impl Template {
    fn text(self) -> &'static str {
        match self {
            Self::Batch => include_str!("../../jetstream2/slurm/templates/batch.sbatch"),
            Self::Scheduler => include_str!("../../jetstream2/slurm/templates/scheduler.sbatch"),
            Self::Executors => include_str!("../../jetstream2/slurm/templates/executors.sbatch"),
        }
    }
}

/// Value of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text for Slurm, unquoted.
    Text(String),
    /// One word of bash.
    Word(String),
    /// Several words of bash.
    Words(Vec<String>),
    /// Lines, each rendered on its own.
    Lines(Vec<String>),
}

/// Values by the names of their placeholders.
pub type Values = BTreeMap<&'static str, Value>;

/// Place in a script where the value of a flag is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A quoted word of bash.
    Word,
    /// A line of bash.
    Bash,
    /// Part of a log's path, in double quotes.
    Path,
    /// Part of a log's name, in double quotes.
    Name,
    /// Unquoted value of an sbatch option.
    Bare,
    /// Whole sbatch option.
    Line,
}

/// Checks that sbatch and bash read the value of a flag unchanged.
///
/// In the options that sbatch reads from a script, a word ends at a space, `"` and `'` quote, `\` escapes
/// even in quotes, and `#` begins a comment. In the path of a log, `%` begins a pattern.
///
/// # Errors
/// Returns an error that names the flag and the remedy.
///
/// Source: `get_argument` in Slurm's `src/sbatch/opt.c`; sbatch(1), "filename pattern".
pub fn validate(flag: &str, value: &str, context: Context) -> Result<(), String> {
    if value.is_empty() && context != Context::Bash {
        return Err(format!("{flag} is empty: give it a value, or leave it out"));
    }
    if value.contains(['\n', '\r', '\0']) {
        let remedy = if matches!(context, Context::Bash | Context::Line) {
            "repeat the flag for each line"
        } else {
            "give one line"
        };
        return Err(format!("{flag} {value:?} is more than one line: {remedy}"));
    }
    if context == Context::Line && !value.starts_with('-') {
        return Err(format!(
            "{flag} {value:?} is not an option: give one of sbatch, such as {flag} --hint=nomultithread"
        ));
    }
    let bad = |c: &char| match context {
        Context::Word | Context::Bash | Context::Line => false,
        Context::Path => "%\"\\".contains(*c),
        // A slash would add a folder.
        Context::Name => "%\"\\/".contains(*c),
        Context::Bare => c.is_whitespace() || "#\"'\\".contains(*c),
    };
    match value.chars().find(bad) {
        Some(c) => Err(format!(
            "{flag} {value:?} contains {c:?}, which sbatch does not take literally: give a value without it"
        )),
        None => Ok(()),
    }
}

/// Renders a template.
///
/// # Errors
/// Returns an error that names the value that cannot be rendered.
pub fn render(template: Template, values: &Values) -> Result<String, String> {
    for (name, value) in values {
        let (Value::Text(text) | Value::Word(text)) = value else { continue };
        // A line break would start a line of the script itself, and a quote would end the quotes around a
        // text for Slurm.
        if text.contains(['\n', '\r', '\0'])
            || (matches!(value, Value::Text(_)) && text.contains(['"', '\\']))
        {
            return Err(format!("{}: {text:?} cannot be part of a script", name.to_ascii_lowercase()));
        }
    }
    let mut script = String::new();
    for line in template.text().lines() {
        render_line(&mut script, line, values);
    }
    Ok(script)
}

fn render_line(script: &mut String, line: &str, values: &Values) {
    // Writing to a String cannot fail.
    if let Some(lines) = placeholders(line).find_map(|name| match values.get(name) {
        Some(Value::Lines(lines)) => Some((name, lines)),
        _ => None,
    }) {
        let (name, lines) = lines;
        for value in lines {
            let _ = writeln!(script, "{}", line.replace(&placeholder(name), value));
        }
        return;
    }
    if let Some((_, fragment)) = FRAGMENTS.iter().find(|(name, _)| line == placeholder(name)) {
        let _ = writeln!(script, "{}", fragment.trim_end());
        return;
    }
    let mut filled = line.to_owned();
    for name in placeholders(line) {
        let text = match values.get(name) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Word(word)) => shell_quoted(word),
            Some(Value::Words(words)) => {
                words.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ")
            }
            _ => continue,
        };
        filled = filled.replace(&placeholder(name), &text);
    }
    let _ = writeln!(script, "{filled}");
}

fn placeholder(name: &str) -> String {
    format!("@{name}@")
}

/// Returns the names of a line's placeholders.
fn placeholders(line: &str) -> impl Iterator<Item = &str> {
    line.split('@')
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Quotes a word so that bash reads it back unchanged.
pub fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\"'\"'"))
    }
}

/// Parses a time limit of Slurm into seconds: minutes, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.
///
/// Source: sbatch(1), `--time`.
pub fn parse_time_limit(time: &str) -> Option<u64> {
    let (days, rest) = time.split_once('-').map_or((None, time), |(days, rest)| (Some(days), rest));
    let days: u64 = days.map_or(Some(0), |days| days.parse().ok())?;
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (time.contains('-'), parts.as_slice()) {
        (false, [minutes]) => (0, *minutes, 0),
        (false, [minutes, seconds]) => (0, *minutes, *seconds),
        (true, [hours]) => (*hours, 0, 0),
        (true, [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    Some(days.checked_mul(86_400)? + hours.checked_mul(3600)? + minutes.checked_mul(60)? + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&'static str, &str)]) -> Values {
        pairs.iter().map(|(name, text)| (*name, Value::Word((*text).to_owned()))).collect()
    }

    #[test]
    fn rendering_fills_every_placeholder_and_quotes_words() {
        let mut values = values(&[
            ("FOLDER", "/home/ann/it's here"),
            ("SPOOL", "spool"),
            ("PORT", "0"),
            ("INTERFACE", ""),
            ("SCHEDULER", "10.0.0.1:50050"),
            ("THREADS", "1"),
            ("WAIT", "300"),
            ("IDLE_TIMEOUT", "300"),
            ("REQUEUES", "3"),
        ]);
        for name in ["NAME", "TIME", "LEAD", "LOGS", "CPUS", "NODES", "EXECUTORS"] {
            values.insert(name, Value::Text("7".to_owned()));
        }
        values.insert(
            "WORK",
            Value::Words(["transcode", "a b.mp4", "-o", "$HOME"].map(str::to_owned).to_vec()),
        );
        values.insert("SBATCH", Value::Lines(vec!["--partition=long".to_owned(), "--qos=@TIME@".to_owned()]));
        values.insert("SETUP", Value::Lines(vec!["module load ffmpeg".to_owned()]));
        for template in [Template::Batch, Template::Scheduler, Template::Executors] {
            let script = render(template, &values).unwrap();
            let unfilled: Vec<&str> = script
                .lines()
                .filter(|line| placeholders(line).any(|name| line.contains(&placeholder(name))))
                .collect();
            assert_eq!(unfilled, ["#SBATCH --qos=@TIME@"], "{template:?}");
            assert!(
                script.starts_with("#!")
                    && script.contains("#SBATCH --partition=long\n#SBATCH --qos=")
                    && script.contains("\nmodule load ffmpeg\n")
            );
        }
        assert!(render(Template::Batch, &values).unwrap().contains("work=(transcode 'a b.mp4' -o '$HOME')"));
        assert!(render(Template::Batch, &values).unwrap().contains("\n#SBATCH --job-name=\"7\"\n"));
        assert!(render(Template::Scheduler, &values).unwrap().contains("folder='/home/ann/it'\"'\"'s here'"));
        values.insert("NAME", Value::Text("a\n#SBATCH --uid=root".to_owned()));
        assert!(render(Template::Batch, &values).unwrap_err().starts_with("name: "));
    }

    #[test]
    fn validate_refuses_values_that_sbatch_would_not_take_literally() {
        for (flag, value, context) in [
            ("--logs", "/scratch/it's a #1 folder", Context::Path),
            ("--name", "talk #1, it's mine", Context::Name),
            ("--constraint", "[rack1|rack2]&intel*2", Context::Bare),
            ("--sbatch", "--comment=\"a b\"", Context::Line),
            ("--setup", "", Context::Bash),
            ("--setup", "export A='b c' # \"%\"", Context::Bash),
        ] {
            assert_eq!(validate(flag, value, context), Ok(()), "{flag} {value}");
        }
        for (flag, value, context, part) in [
            ("--logs", "/scratch/50%", Context::Path, "'%'"),
            ("--logs", "/scratch/a\"b", Context::Path, "'\"'"),
            ("--logs", "/scratch/a\\b", Context::Path, "'\\\\'"),
            ("--logs", "", Context::Path, "empty"),
            ("--name", "%j", Context::Name, "'%'"),
            ("--name", "a\"b", Context::Name, "'\"'"),
            ("--name", "a/b", Context::Name, "'/'"),
            ("--name", "a\n#SBATCH --uid=root", Context::Name, "more than one line"),
            ("--partition", "long short", Context::Bare, "' '"),
            ("--account", "a#b", Context::Bare, "'#'"),
            ("--qos", "'high'", Context::Bare, "'\\''"),
            ("--constraint", "a\0b", Context::Bare, "more than one line"),
            ("--sbatch", "--qos=a\n--uid=root", Context::Line, "more than one line"),
            ("--sbatch", "qos=high", Context::Line, "such as --sbatch --hint"),
            ("--setup", "a\rb", Context::Bash, "more than one line"),
        ] {
            let refused = validate(flag, value, context).unwrap_err();
            assert!(refused.starts_with(flag) && refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn time_limits_parse_as_slurm_parses_them() {
        for (text, expected) in [
            ("90", 5400),
            ("10:30", 630),
            ("1:00:00", 3600),
            ("2-0", 172_800),
            ("1-12:30", 131_400),
            ("1-00:00:01", 86_401),
        ] {
            assert_eq!(parse_time_limit(text), Some(expected), "{text}");
        }
        assert!(
            ["", "1h", "1-", "1:2:3:4", "-1", "UNLIMITED"]
                .iter()
                .all(|text| parse_time_limit(text).is_none())
        );
    }
}
