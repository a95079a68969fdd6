//! Words that are not used, and questions that open a file.

use crate::{Finding, Tree};

/// The list, a line for each: `word = advice`.
const WORDS: &str = include_str!("../words.txt");

/// Marks a line that quotes.
const QUOTATION: &str = "lint: quotation";

/// Endings of the names of files that hold prose. A file without an ending is a script or a `Makefile`.
const KINDS: &[&str] = &[
    "rs", "md", "yaml", "yml", "py", "js", "mjs", "sh", "proto", "sql", "html", "css", "toml", "json", "slt",
    "tf", "tftpl", "tpl", "service", "conf", "env", "txt", "j2", "csv",
];

/// Files with words that are not ours, or that must not change.
fn is_exempt(name: &str) -> bool {
    let migrations = name.contains("/migrations/") && name < "jobs/migrations/0009";
    migrations
        || name == "LICENSE"
        // The list, and the tests of it.
        || name == "lints/words.txt"
        || name == "lints/src/words.rs"
        || name.ends_with(".min.js")
        || name.ends_with("package-lock.json")
        || name.starts_with("fuzz/corpus/")
}

/// Returns the uses of words of the list, and the files whose first line is a question.
pub fn words(tree: &Tree) -> Vec<Finding> {
    let phrases: Vec<Phrase> = WORDS.lines().filter_map(Phrase::parse).collect();
    let mut findings = Vec::new();
    for (name, text) in tree.files().filter(|(name, _)| holds_prose(name) && !is_exempt(name)) {
        findings.extend(in_text(name, text, &phrases));
        let first = text.lines().next().unwrap_or_default();
        if name.ends_with(".rs") && first.starts_with("//!") && first.ends_with('?') {
            findings.push(Finding {
                file: name.to_owned(),
                line: 1,
                message: "the first line is a question; state the file's content".to_owned(),
            });
        }
    }
    findings
}

fn holds_prose(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    match file.rsplit_once('.') {
        Some((_, ending)) => KINDS.contains(&ending),
        None => true,
    }
}

/// One line of the list.
struct Phrase {
    words: Vec<String>,
    /// It opens a sentence: its first letter is a capital, and counts only there.
    opening: bool,
    advice: &'static str,
}

impl Phrase {
    fn parse(line: &'static str) -> Option<Self> {
        let (phrase, advice) = line.split_once(" = ").filter(|_| !line.starts_with('#'))?;
        let opening = phrase.starts_with(char::is_uppercase);
        Some(Self { words: phrase.split(' ').map(str::to_lowercase).collect(), opening, advice })
    }

    fn is_at(&self, words: &[Word<'_>]) -> bool {
        words.len() >= self.words.len()
            && self.words.iter().zip(words).all(|(expected, word)| *expected == word.text.to_lowercase())
            && words[1..self.words.len()].iter().all(|word| word.joined)
            && (!self.opening || words[0].opens)
    }
}

/// A word of a text; identifiers are taken apart.
struct Word<'a> {
    text: &'a str,
    line: usize,
    /// Only spaces, underscores, and the marks of comments lie between it and the word before.
    joined: bool,
    /// It opens a sentence, or a phrase after a colon or semicolon.
    opens: bool,
}

fn in_text(name: &str, text: &str, phrases: &[Phrase]) -> Vec<Finding> {
    let markdown = name.ends_with(".md");
    let mut words = Vec::new();
    let mut between = String::new();
    let mut fenced = false;
    for (line, text) in (1..).zip(text.lines()) {
        fenced ^= markdown && text.trim_start().starts_with("```");
        let comment = text.trim_start().starts_with("//");
        // A blank line, or a line of comment without words, ends a phrase.
        between.push_str(if text.trim_matches(is_comment_mark).is_empty() { "\u{0}" } else { "\n" });
        if text.contains(QUOTATION) {
            between.push('\u{0}');
            continue;
        }
        split(text, line, !fenced && (markdown || comment), &mut between, &mut words);
    }
    let mut findings = Vec::new();
    for at in 0..words.len() {
        for phrase in phrases.iter().filter(|phrase| phrase.is_at(&words[at..])) {
            let found: Vec<&str> = words[at..at + phrase.words.len()].iter().map(|word| word.text).collect();
            findings.push(Finding {
                file: name.to_owned(),
                line: words[at].line,
                message: format!("\"{}\": {}", found.join(" "), phrase.advice),
            });
        }
    }
    findings
}

/// Splits a line into words. `between` carries what stood since the last word, over lines.
fn split<'a>(text: &'a str, line: usize, quotes: bool, between: &mut String, words: &mut Vec<Word<'a>>) {
    let mut start = None;
    let mut quoted = false;
    let mut before = ' ';
    for (at, char) in text.char_indices().chain([(text.len(), ' ')]) {
        let camel = char.is_uppercase() && before.is_lowercase();
        if let Some(from) = start
            && (!char.is_alphabetic() || camel)
        {
            words.push(Word {
                text: &text[from..at],
                line,
                joined: is_joined(between),
                opens: is_opening(between),
            });
            between.clear();
            start = None;
        }
        // A quotation in backticks counts as one mark.
        if quotes && char == '`' {
            quoted = !quoted;
        }
        if !quoted && char.is_alphabetic() {
            start = start.or(Some(at));
        } else {
            between.push(if quoted { '`' } else { char });
        }
        before = char;
    }
}

fn is_comment_mark(char: char) -> bool {
    char.is_whitespace() || matches!(char, '/' | '!' | '#' | '*' | '-' | '>' | '|')
}

fn is_joined(between: &str) -> bool {
    let marks =
        |char: char| char.is_whitespace() || char == '_' || (between.contains('\n') && is_comment_mark(char));
    between.chars().all(marks)
}

fn is_opening(between: &str) -> bool {
    let trimmed = between.trim_matches(is_comment_mark);
    let mark = trimmed.ends_with(['.', ':', ';', '?', '!', '"', '(', '\u{0}']);
    // Only marks since the start of the line of a comment, a list, or a heading.
    let head = between.contains('\n') && trimmed.is_empty() && between.contains(['/', '#', '-', '*', '|']);
    mark || head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<(usize, String)> {
        let findings = words(&Tree::of([(name, text)]));
        let short = |finding: Finding| {
            (finding.line, finding.message.split(':').next().unwrap_or_default().to_owned())
        };
        findings.into_iter().map(short).collect()
    }

    fn lines(text: &str) -> Vec<usize> {
        found("a.rs", text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn words_are_found_in_comments_strings_and_names() {
        assert_eq!(
            lines("//! Head.\n// Whoever asks.\nlet x = \"nobody\";\nstruct TurnstileError;"),
            [2, 3, 4]
        );
        assert_eq!(lines("fn in_hand() {}\nfn isTold() {}"), [1, 2]);
        assert!(lines("fn handle() { inhand; for hand in hands {} }").is_empty());
    }

    #[test]
    fn phrases_are_found_over_the_end_of_a_line() {
        assert_eq!(lines("/// It is\n/// told.\n"), [1]);
        assert_eq!(found("a.md", "It is in\nhand.").len(), 1);
        assert!(lines("/// It is\n///\n/// told.").is_empty());
        assert!(lines("in: hand, is(told)").is_empty());
    }

    #[test]
    fn sentences_that_begin_with_a_question_word_are_found() {
        assert_eq!(lines("//! What is kept.\n//! Some. What was kept.\n"), [1, 2]);
        assert_eq!(lines("let x = \"what is kept\";"), [1]);
        assert!(lines("// He knows what is kept.").is_empty());
    }

    #[test]
    fn a_first_line_must_not_be_a_question() {
        assert_eq!(lines("//! Who knows?\n"), [1]);
        assert!(lines("//! It knows.\n//! Who knows?\n").is_empty());
    }

    #[test]
    fn quotations_are_exempt() {
        assert!(found("a.md", "The word `whoever` is not used.").is_empty());
        assert!(lines("// The word `whoever` is not used.").is_empty());
        assert!(lines("let x = \"whoever\"; // lint: quotation").is_empty());
        assert_eq!(lines("let x = `whoever`;"), [1]);
    }

    #[test]
    fn files_that_are_not_ours_are_exempt() {
        for name in
            ["jobs/migrations/0001_jobs.sql", "server/page/hls.min.js", "a.png", "LICENSE", "Cargo.lock"]
        {
            assert!(found(name, "nobody").is_empty(), "{name}");
        }
        for name in ["jobs/migrations/0009_words.sql", "Makefile", "scripts/demo", "a.yaml"] {
            assert_eq!(found(name, "nobody").len(), 1, "{name}");
        }
    }
}
