//! Jobs for Slurm: templates that are plain bash, and what is filled into them. Pure.

use std::{collections::BTreeMap, fmt::Write};

/// What scripts are made of: `@NAME@` in a template stands for a value, and `@NAME_SH@` for the piece of this name.
const PIECES: [(&str, &str); 4] = [
    ("COMMON_SH", include_str!("../../jetstream2/slurm/templates/common.sh")),
    ("EXECUTOR_SH", include_str!("../../jetstream2/slurm/templates/executor.sh")),
    ("FOLDER_SH", include_str!("../../jetstream2/slurm/templates/folder.sh")),
    ("SCHEDULER_SH", include_str!("../../jetstream2/slurm/templates/scheduler.sh")),
];

/// What a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// One command on all of its nodes.
    Batch,
    /// A scheduler, for jobs of executors.
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

/// A value of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// For Slurm, as it is.
    Plain(String),
    /// A word of the shell.
    Word(String),
    /// Words of the shell.
    Words(Vec<String>),
    /// A line for each.
    Lines(Vec<String>),
}

/// The values, by the names of their places.
pub type Values = BTreeMap<&'static str, Value>;

/// How the value of a flag stands in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Quoted for the shell.
    Word,
    /// As a line of bash.
    Bash,
    /// In double quotes, as a part of a log's path.
    Path,
    /// In double quotes, as a part of a log's name.
    Name,
    /// In an option of sbatch, without quotes.
    Bare,
    /// As an option of sbatch.
    Line,
}

/// Does the value of a flag stay what it is in a script?
///
/// Where sbatch reads options in a script, a word ends at a space, `"` and `'` quote, `\` escapes even in quotes, and `#` begins a
/// comment. In the path of a log, `%` begins a pattern.
///
/// # Errors
/// Names the flag, and says what to give instead.
///
/// Source: `get_argument` in Slurm's `src/sbatch/opt.c`; sbatch(1), "filename pattern".
pub fn check(flag: &str, value: &str, place: Place) -> Result<(), String> {
    if value.is_empty() && place != Place::Bash {
        return Err(format!("{flag} is empty: give it a value, or leave it out"));
    }
    if value.contains(['\n', '\r', '\0']) {
        let remedy = if matches!(place, Place::Bash | Place::Line) {
            "give each a flag of its own"
        } else {
            "give one"
        };
        return Err(format!("{flag} {value:?} is more than one line: {remedy}"));
    }
    if place == Place::Line && !value.starts_with('-') {
        return Err(format!(
            "{flag} {value:?} is no option: give one of sbatch's, such as {flag} --hint=nomultithread"
        ));
    }
    let bad = |c: &char| match place {
        Place::Word | Place::Bash | Place::Line => false,
        Place::Path => "%\"\\".contains(*c),
        // A slash would be a folder more.
        Place::Name => "%\"\\/".contains(*c),
        Place::Bare => c.is_whitespace() || "#\"'\\".contains(*c),
    };
    match value.chars().find(bad) {
        Some(c) => Err(format!(
            "{flag} {value:?} has {c:?} in it, which means something else to sbatch: give one without"
        )),
        None => Ok(()),
    }
}

/// A template's script.
///
/// # Errors
/// Names the value that cannot be a part of it.
pub fn script(template: Template, values: &Values) -> Result<String, String> {
    for (name, value) in values {
        let (Value::Plain(text) | Value::Word(text)) = value else { continue };
        // A line more would be one of the script's own; and quotes end where text for Slurm is quoted.
        if text.contains(['\n', '\r', '\0'])
            || (matches!(value, Value::Plain(_)) && text.contains(['"', '\\']))
        {
            return Err(format!("{}: {text:?} cannot be a part of a script", name.to_ascii_lowercase()));
        }
    }
    let mut script = String::new();
    for line in template.text().lines() {
        fill(&mut script, line, values);
    }
    Ok(script)
}

fn fill(script: &mut String, line: &str, values: &Values) {
    // Writing to a String cannot fail.
    if let Some(lines) = names(line).find_map(|name| match values.get(name) {
        Some(Value::Lines(lines)) => Some((name, lines)),
        _ => None,
    }) {
        let (name, lines) = lines;
        for value in lines {
            let _ = writeln!(script, "{}", line.replace(&place(name), value));
        }
        return;
    }
    if let Some((_, piece)) = PIECES.iter().find(|(name, _)| line == place(name)) {
        let _ = writeln!(script, "{}", piece.trim_end());
        return;
    }
    let mut filled = line.to_owned();
    for name in names(line) {
        let text = match values.get(name) {
            Some(Value::Plain(text)) => text.clone(),
            Some(Value::Word(word)) => quoted(word),
            Some(Value::Words(words)) => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
            _ => continue,
        };
        filled = filled.replace(&place(name), &text);
    }
    let _ = writeln!(script, "{filled}");
}

fn place(name: &str) -> String {
    format!("@{name}@")
}

/// The names of a line's places.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split('@')
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// A word as the shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\"'\"'"))
    }
}

/// Seconds of a time as Slurm writes it: minutes, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.
///
/// Source: sbatch(1), `--time`.
pub fn seconds(time: &str) -> Option<u64> {
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
    fn every_place_is_filled_and_words_stay_words() {
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
            values.insert(name, Value::Plain("7".to_owned()));
        }
        values.insert(
            "WORK",
            Value::Words(["transcode", "a b.mp4", "-o", "$HOME"].map(str::to_owned).to_vec()),
        );
        values.insert("SBATCH", Value::Lines(vec!["--partition=long".to_owned(), "--qos=@TIME@".to_owned()]));
        values.insert("SETUP", Value::Lines(vec!["module load ffmpeg".to_owned()]));
        for template in [Template::Batch, Template::Scheduler, Template::Executors] {
            let script = script(template, &values).unwrap();
            let left: Vec<&str> =
                script.lines().filter(|line| names(line).any(|name| line.contains(&place(name)))).collect();
            assert_eq!(left, ["#SBATCH --qos=@TIME@"], "{template:?}");
            assert!(
                script.starts_with("#!")
                    && script.contains("#SBATCH --partition=long\n#SBATCH --qos=")
                    && script.contains("\nmodule load ffmpeg\n")
            );
        }
        assert!(script(Template::Batch, &values).unwrap().contains("work=(transcode 'a b.mp4' -o '$HOME')"));
        assert!(script(Template::Batch, &values).unwrap().contains("\n#SBATCH --job-name=\"7\"\n"));
        assert!(script(Template::Scheduler, &values).unwrap().contains("folder='/home/ann/it'\"'\"'s here'"));
        values.insert("NAME", Value::Plain("a\n#SBATCH --uid=root".to_owned()));
        assert!(script(Template::Batch, &values).unwrap_err().starts_with("name: "));
    }

    #[test]
    fn values_that_sbatch_would_read_otherwise_are_refused_by_the_name_of_their_flag() {
        for (flag, value, place) in [
            ("--logs", "/scratch/it's a #1 folder", Place::Path),
            ("--name", "talk #1, it's mine", Place::Name),
            ("--constraint", "[rack1|rack2]&intel*2", Place::Bare),
            ("--sbatch", "--comment=\"a b\"", Place::Line),
            ("--setup", "", Place::Bash),
            ("--setup", "export A='b c' # \"%\"", Place::Bash),
        ] {
            assert_eq!(check(flag, value, place), Ok(()), "{flag} {value}");
        }
        for (flag, value, place, part) in [
            ("--logs", "/scratch/50%", Place::Path, "'%'"),
            ("--logs", "/scratch/a\"b", Place::Path, "'\"'"),
            ("--logs", "/scratch/a\\b", Place::Path, "'\\\\'"),
            ("--logs", "", Place::Path, "empty"),
            ("--name", "%j", Place::Name, "'%'"),
            ("--name", "a\"b", Place::Name, "'\"'"),
            ("--name", "a/b", Place::Name, "'/'"),
            ("--name", "a\n#SBATCH --uid=root", Place::Name, "more than one line"),
            ("--partition", "long short", Place::Bare, "' '"),
            ("--account", "a#b", Place::Bare, "'#'"),
            ("--qos", "'high'", Place::Bare, "'\\''"),
            ("--constraint", "a\0b", Place::Bare, "more than one line"),
            ("--sbatch", "--qos=a\n--uid=root", Place::Line, "more than one line"),
            ("--sbatch", "qos=high", Place::Line, "such as --sbatch --hint"),
            ("--setup", "a\rb", Place::Bash, "more than one line"),
        ] {
            let refused = check(flag, value, place).unwrap_err();
            assert!(refused.starts_with(flag) && refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (text, expected) in [
            ("90", 5400),
            ("10:30", 630),
            ("1:00:00", 3600),
            ("2-0", 172_800),
            ("1-12:30", 131_400),
            ("1-00:00:01", 86_401),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        assert!(["", "1h", "1-", "1:2:3:4", "-1", "UNLIMITED"].iter().all(|text| seconds(text).is_none()));
    }
}
