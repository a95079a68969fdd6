//! Scanner of Rust source: the modules that a file declares, the paths that it names, the items that it
//! defines.
//!
//! It knows tokens, `use` trees and `mod` items, and nothing of types. Comments, literals, and items under
//! `#[cfg(test)]` are left out: a test may import what it likes.

use std::collections::BTreeSet;

/// The part of one file that matters to imports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Syntax {
    /// Modules that are declared as files of their own, `mod name;`.
    pub(crate) modules: Vec<String>,
    /// Modules that are declared under `#[cfg(test)]`.
    pub(crate) test_modules: Vec<String>,
    /// Leaves of the `use` items.
    pub(crate) imports: Vec<Import>,
    /// Paths of two or more segments in the code.
    pub(crate) paths: Vec<Path>,
    /// Names of the functions, types, traits, constants and macros that are defined, at any depth.
    pub(crate) items: BTreeSet<String>,
}

/// One leaf of a `use` item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Path,
    /// The name that it brings into scope; `None` for a glob.
    pub(crate) name: Option<String>,
    /// It is `pub use`, of whatever visibility: a facade, through which others import.
    pub(crate) reexport: bool,
}

/// A path as it was written, seen from the file's own module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Separator,
    Symbol(char),
}

/// Words after which a name is defined.
const DEFINING: &[&str] =
    &["struct", "enum", "union", "trait", "type", "fn", "const", "static", "macro_rules"];

/// Returns what a file declares, names and defines.
pub(crate) fn scan(text: &str) -> Syntax {
    let mut scanner =
        Scanner { tokens: tokens(text), at: 0, depth: 0, inline: Vec::new(), found: Syntax::default() };
    scanner.run();
    scanner.found
}

struct Scanner {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// Depths of the braces of the inline modules around the current token.
    inline: Vec<usize>,
    found: Syntax,
}

impl Scanner {
    fn run(&mut self) {
        let mut test = false;
        while self.at < self.tokens.len() {
            if self.symbol(0, '#') {
                let attribute = self.attribute();
                test |= attribute == "cfg(test)";
                continue;
            }
            if test {
                test = false;
                self.skip_item();
                continue;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        match self.word(0) {
            Some("use") => self.use_item(),
            Some("mod") if self.word(1).is_some() => self.module(),
            Some(defining) if DEFINING.contains(&defining) => {
                let name = 1 + usize::from(self.symbol(1, '!'));
                if let Some(name) = self.word(name) {
                    self.found.items.insert(name.to_owned());
                }
                self.at += 1;
            }
            Some(_) => self.path(),
            None => {
                match self.tokens[self.at].0 {
                    Token::Symbol('{') => self.depth += 1,
                    Token::Symbol('}') => {
                        self.depth = self.depth.saturating_sub(1);
                        self.inline.retain(|depth| *depth <= self.depth);
                    }
                    _ => {}
                }
                self.at += 1;
            }
        }
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.tokens.get(self.at + ahead) {
            Some((Token::Word(word), _)) => Some(word),
            _ => None,
        }
    }

    fn symbol(&self, ahead: usize, symbol: char) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((Token::Symbol(found), _)) if *found == symbol)
    }

    fn separator(&self, ahead: usize) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((Token::Separator, _)))
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    /// Passes an attribute, and returns its text without the brackets.
    fn attribute(&mut self) -> String {
        self.at += 1 + usize::from(self.symbol(1, '!'));
        let mut text = String::new();
        let mut depth = 0;
        while let Some((token, _)) = self.tokens.get(self.at) {
            self.at += 1;
            match token {
                Token::Symbol('[') => depth += 1,
                Token::Symbol(']') => depth -= 1,
                Token::Symbol(symbol) => text.push(*symbol),
                Token::Word(word) => text.push_str(word),
                Token::Separator => text.push_str("::"),
            }
            if depth == 0 {
                break;
            }
        }
        text
    }

    /// Passes an item under `#[cfg(test)]`: to its semicolon, or to the end of its braces.
    fn skip_item(&mut self) {
        let declared = (0..4).find(|ahead| self.word(*ahead) == Some("mod"));
        if let Some(name) = declared.and_then(|ahead| self.word(ahead + 1)) {
            self.found.test_modules.push(name.to_owned());
        }
        let mut depth = 0;
        while let Some((token, _)) = self.tokens.get(self.at) {
            self.at += 1;
            match token {
                Token::Symbol('{' | '(' | '[') => depth += 1,
                Token::Symbol('}') if depth == 1 => return,
                Token::Symbol('}' | ')' | ']') => depth -= 1,
                Token::Symbol(';' | ',') if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn module(&mut self) {
        let name = self.word(1).unwrap_or_default().to_owned();
        self.at += 2;
        if self.symbol(0, ';') {
            self.found.modules.push(name);
        } else if self.symbol(0, '{') {
            self.depth += 1;
            self.inline.push(self.depth);
            self.at += 1;
        }
    }

    fn use_item(&mut self) {
        let reexport = self.at > 0
            && matches!(&self.tokens[self.at - 1].0, Token::Symbol(')') | Token::Word(_))
            && self.visibility_before();
        self.at += 1;
        self.use_tree(&[], reexport);
        // A leading `::`, a raw name, anything unforeseen: the item ends at its semicolon.
        while self.at < self.tokens.len() && !self.symbol(0, ';') {
            self.at += 1;
        }
    }

    /// Returns whether `pub` or `pub(…)` stands before the current token.
    fn visibility_before(&self) -> bool {
        let before = &self.tokens[..self.at];
        let end = match before.last() {
            Some((Token::Symbol(')'), _)) => {
                before.iter().rposition(|(token, _)| *token == Token::Symbol('(')).unwrap_or(0)
            }
            _ => before.len(),
        };
        end > 0 && before[end - 1].0 == Token::Word("pub".to_owned())
    }

    fn use_tree(&mut self, prefix: &[String], reexport: bool) {
        let mut segments = prefix.to_vec();
        let line = self.line();
        loop {
            if self.separator(0) {
                self.at += 1;
            } else if self.symbol(0, '{') {
                self.at += 1;
                while self.at < self.tokens.len() && !self.symbol(0, '}') {
                    let before = self.at;
                    self.use_tree(&segments, reexport);
                    self.at += usize::from(self.symbol(0, ',') || self.at == before);
                }
                self.at += 1;
                return;
            } else if self.symbol(0, '*') {
                self.at += 1;
                self.import(segments, None, reexport, line);
                return;
            } else if let Some(word) = self.word(0).map(str::to_owned) {
                self.at += 1;
                if word == "self" && !segments.is_empty() {
                    break;
                }
                segments.push(word);
                if !self.separator(0) {
                    break;
                }
            } else {
                return;
            }
        }
        let mut name = segments.last().cloned();
        if self.word(0) == Some("as") {
            name = self.word(1).map(str::to_owned);
            self.at += 2;
        }
        self.import(segments, name, reexport, line);
    }

    fn import(&mut self, segments: Vec<String>, name: Option<String>, reexport: bool, line: usize) {
        if let Some(segments) = self.seen_from_file(segments) {
            self.found.imports.push(Import { path: Path { segments, line }, name, reexport });
        }
    }

    fn path(&mut self) {
        let line = self.line();
        let visibility =
            self.word(0) == Some("in") && self.at > 0 && self.before(1) == Some(&Token::Symbol('('));
        if self.at > 0 && self.before(1) == Some(&Token::Separator) {
            self.at += 1;
            return;
        }
        let mut segments = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            segments.push(word);
            self.at += 1;
            if !self.separator(0) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        if visibility {
            // `pub(in crate::room)`: a place, not an import.
            while self.at < self.tokens.len() && !self.symbol(0, ')') {
                self.at += 1;
            }
        }
        if segments.len() > 1
            && let Some(segments) = self.seen_from_file(segments)
        {
            self.found.paths.push(Path { segments, line });
        }
    }

    fn before(&self, back: usize) -> Option<&Token> {
        self.at.checked_sub(back).and_then(|at| self.tokens.get(at)).map(|(token, _)| token)
    }

    /// Returns a path that was written inside of inline modules as the file's own module would write it;
    /// `None` if it stays inside of this file.
    fn seen_from_file(&self, mut segments: Vec<String>) -> Option<Vec<String>> {
        let inside = self.inline.len();
        let up = segments.iter().take_while(|segment| *segment == "super").count();
        let first = segments.first().map(String::as_str);
        if inside == 0 || matches!(first, Some("crate")) {
            return Some(segments);
        }
        if up > inside {
            segments.drain(..inside);
            Some(segments)
        } else if up == inside {
            segments.drain(..inside);
            segments.insert(0, "self".to_owned());
            Some(segments)
        } else {
            // A path of another crate is the same everywhere.
            (up == 0 && first != Some("self")).then_some(segments)
        }
    }
}

/// Splits source into tokens with their lines. Comments are dropped, literals leave no token.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let next = chars.get(at + 1).copied();
        match chars[at] {
            '/' if next == Some('/') => at = until(&chars, at, '\n'),
            '/' if next == Some('*') => at = after_block_comment(&chars, at),
            '"' => at = after_string(&chars, at),
            '\'' => at = after_quote(&chars, at),
            ':' if next == Some(':') => {
                tokens.push((Token::Separator, line));
                at += 2;
            }
            first if first == '_' || first.is_alphanumeric() => {
                while at < chars.len() && (chars[at] == '_' || chars[at].is_alphanumeric()) {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                if let Some(end) = after_prefixed_literal(&chars, at, &word) {
                    at = end;
                } else if word == "r" && chars.get(at) == Some(&'#') {
                    // `r#type`: the name follows.
                    at += 1;
                } else {
                    tokens.push((Token::Word(word), line));
                }
            }
            space if space.is_whitespace() => at += 1,
            symbol => {
                tokens.push((Token::Symbol(symbol), line));
                at += 1;
            }
        }
        line += chars[start..at].iter().filter(|char| **char == '\n').count();
    }
    tokens
}

fn until(chars: &[char], from: usize, end: char) -> usize {
    chars[from..].iter().position(|char| *char == end).map_or(chars.len(), |found| from + found)
}

fn after_block_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn after_string(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Passes a character literal, or the quote of a lifetime.
fn after_quote(chars: &[char], quote: usize) -> usize {
    match (chars.get(quote + 1), chars.get(quote + 2)) {
        (Some('\\'), _) => (until(chars, (quote + 3).min(chars.len()), '\'') + 1).min(chars.len()),
        (Some(_), Some('\'')) => quote + 3,
        _ => quote + 1,
    }
}

/// Passes a raw or byte string whose prefix was just read.
fn after_prefixed_literal(chars: &[char], at: usize, prefix: &str) -> Option<usize> {
    let raw = matches!(prefix, "r" | "br" | "cr");
    if !raw && !matches!(prefix, "b" | "c") {
        return None;
    }
    let hashes = chars[at..].iter().take_while(|char| **char == '#').count();
    match chars.get(at + hashes) {
        Some('"') if raw => {
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = at + hashes + 1;
            let found = chars[body..].windows(end.len()).position(|window| window == end);
            Some(found.map_or(chars.len(), |found| body + found + end.len()))
        }
        Some('"') if hashes == 0 => Some(after_string(chars, at)),
        Some('\'') if prefix == "b" => Some(after_quote(chars, at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(text: &str) -> Vec<String> {
        scan(text).imports.into_iter().map(|import| import.path.segments.join("::")).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        scan(text).paths.into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let text = "use crate::{a::{self, B, c::*}, d as e};\npub(crate) use super::f;";
        assert_eq!(imports(text), ["crate::a", "crate::a::B", "crate::a::c", "crate::d", "super::f"]);
        let found = scan(text);
        let names: Vec<_> = found.imports.iter().map(|import| import.name.as_deref()).collect();
        assert_eq!(names, [Some("a"), Some("B"), None, Some("e"), Some("f")]);
        assert_eq!(found.imports.iter().filter(|import| import.reexport).count(), 1);
        assert_eq!(found.imports[4].path.line, 2);
    }

    #[test]
    fn inline_paths_are_found_once_and_whole() {
        assert_eq!(
            paths("fn f() -> crate::a::B<crate::c::D> { super::e::g(); }"),
            ["crate::a::B", "crate::c::D", "super::e::g"]
        );
    }

    #[test]
    fn a_visibility_is_not_an_import() {
        assert!(paths("pub(in crate::room) struct A;").is_empty());
        assert_eq!(paths("fn f() { for x in crate::a::b() {} }"), ["crate::a::b"]);
    }

    #[test]
    fn comments_and_literals_hold_no_paths() {
        let text = r##"
            //! crate::a::B
            /* crate::c /* nested */ ::D */
            const TEXT: &str = "crate::e::F \" crate::g::H";
            const RAW: &str = r#"crate::i::J " "#;
            const QUOTE: char = '"';
            fn f<'a>(x: &'a crate::k::L) { b"crate::m::N"; '\''; }
        "##;
        assert_eq!(paths(text), ["crate::k::L"]);
    }

    #[test]
    fn tests_may_import_anything() {
        let text = "#[cfg(test)]\nuse crate::a::B;\n#[cfg(test)]\nmod tests { use crate::c::D; }\n\
                    #[cfg(test)]\nmod laws;\nfn f() { crate::e::g() }";
        let found = scan(text);
        assert!(found.imports.is_empty());
        assert_eq!(paths(text), ["crate::e::g"]);
        assert_eq!(found.test_modules, ["tests", "laws"]);
    }

    #[test]
    fn inline_modules_count_as_their_file() {
        let text =
            "mod a { use super::B; use super::super::C; use self::d; mod e { use super::f; } }\nmod g;";
        assert_eq!(imports(text), ["self::B", "super::C"]);
        assert_eq!(scan(text).modules, ["g"]);
    }

    #[test]
    fn items_are_named() {
        let items =
            scan("pub struct A; enum B {} const fn c() {} macro_rules! d { () => {} } type E = A;").items;
        assert!(["A", "B", "c", "d", "E"].iter().all(|name| items.contains(*name)));
    }
}
