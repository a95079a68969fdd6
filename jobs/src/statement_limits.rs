//! Statement limits: refuses a statement that would overflow the stack or the memory of the process that
//! plans it, before it is parsed.
//!
//! Parsers and planners walk a statement's tree recursively, and trees of long chains (`a + a + …`, joins)
//! are as deep as the chain is long. The walks that a planner guards are not all: cloning, comparing,
//! printing and dropping a tree recurse as well. So the depth is bounded by the text itself: by its tokens,
//! which are read one after the other.

use sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

/// Most bytes of a statement.
const BYTES_MAX: usize = 64 << 10;

/// Deepest tree that a statement may have, by its operators, keywords and brackets.
const DEPTH_MAX: usize = 256;

/// Deepest nesting of brackets.
const BRACKETS_MAX: usize = 48;

/// Most relations (tables, table functions, subqueries and the names of `WITH`) of a statement: each use of a
/// name of `WITH` is planned anew, so that a chain of names that use the one before twice doubles at each.
const RELATIONS_MAX: usize = 16;

/// Most set operations (`UNION`, `EXCEPT`, `INTERSECT`).
const SET_OPERATIONS_MAX: usize = 64;

/// A statement that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementTooLarge {
    /// The text is too long.
    #[error("the statement has {0} bytes, and may have at most {BYTES_MAX}")]
    Bytes(usize),
    /// The tree would be too deep.
    #[error(
        "the statement's expressions are too deep: more than {DEPTH_MAX} operators and keywords follow one \
         another; split them over subqueries or statements"
    )]
    Depth,
    /// Brackets are nested too deeply.
    #[error("the statement nests more than {BRACKETS_MAX} brackets")]
    Brackets,
    /// There are too many relations.
    #[error(
        "the statement reads {0} relations, and may read at most {RELATIONS_MAX}; write several statements"
    )]
    Relations(usize),
    /// There are too many set operations.
    #[error("the statement has {0} set operations, and may have at most {SET_OPERATIONS_MAX}")]
    SetOperations(usize),
}

/// The part of a statement between two brackets.
#[derive(Debug, Default, Clone, Copy)]
struct Level {
    /// Operators and keywords since the last comma.
    operators: usize,
    /// Whether the tokens list relations: a comma joins another.
    in_from: bool,
}

/// Checks a statement's size. A text that is no SQL passes: the parser refuses it with its own message.
///
/// # Errors
/// Returns which limit the statement exceeds.
pub fn check_statement(sql: &str) -> Result<(), StatementTooLarge> {
    if sql.len() > BYTES_MAX {
        return Err(StatementTooLarge::Bytes(sql.len()));
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut levels, mut depth) = (vec![Level::default()], 0);
    let (mut relations, mut set_operations) = (0, 0);
    for token in &tokens {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // A chain of subscripts (a[1][2]…) is as deep as it is long.
                level.operators += 1;
                depth += 1;
                levels.push(Level::default());
                if levels.len() > BRACKETS_MAX {
                    return Err(StatementTooLarge::Brackets);
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                depth -= level.operators;
                levels.pop();
                if levels.is_empty() {
                    levels.push(Level::default());
                }
            }
            Token::Comma => {
                relations += usize::from(level.in_from);
                depth -= level.operators;
                level.operators = 0;
            }
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::SemiColon
            | Token::EOF => {}
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Word(word) => {
                level.operators += 1;
                depth += 1;
                match word.keyword {
                    Keyword::FROM => {
                        relations += 1;
                        level.in_from = true;
                    }
                    Keyword::JOIN => relations += 1,
                    Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                        set_operations += 1;
                        level.in_from = false;
                    }
                    Keyword::WHERE
                    | Keyword::GROUP
                    | Keyword::HAVING
                    | Keyword::ORDER
                    | Keyword::LIMIT
                    | Keyword::WINDOW
                    | Keyword::QUALIFY
                    | Keyword::SELECT => level.in_from = false,
                    _ => {}
                }
            }
            _ => {
                level.operators += 1;
                depth += 1;
            }
        }
        if depth > DEPTH_MAX {
            return Err(StatementTooLarge::Depth);
        }
    }
    if relations > RELATIONS_MAX {
        return Err(StatementTooLarge::Relations(relations));
    }
    if set_operations > SET_OPERATIONS_MAX {
        return Err(StatementTooLarge::SetOperations(set_operations));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_people_pass() {
        let columns: Vec<String> = (0..200).map(|n| format!("c{n} + 1 AS d{n}")).collect();
        let values: Vec<String> = (0..2_000).map(|n| format!("(-{n}, 'a{n}')")).collect();
        let whens: Vec<String> = (0..40).map(|n| format!("WHEN x = {n} THEN '{n}'")).collect();
        for sql in [
            "SELECT publish(hls_ladder(part)) AS published FROM (SELECT transcode(segment, 'web', 's3://b/') AS part \
             FROM segments('s3://a/it''s.mp4', 30, 4, 'frame'))",
            "SELECT a.id FROM jobs a JOIN rows b ON a.id = b.job WHERE b.frames <> b.expected AND a.state IN ('failed')",
            &format!("SELECT {} FROM jobs", columns.join(", ")),
            &format!("SELECT * FROM (VALUES {}) AS v (n, t)", values.join(", ")),
            &format!("SELECT CASE {} END FROM jobs", whens.join(" ")),
            "not ' SQL",
            ")))",
            "",
        ] {
            assert_eq!(check_statement(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn chains_and_nests_are_refused_in_whatever_form() {
        let chain = |link: &str, times: usize| format!("SELECT a{} FROM jobs", link.repeat(times));
        for link in [
            "+a",
            "*a",
            "||a",
            "::int",
            " IS NULL",
            " AND a",
            " OR a",
            " NOT IN (1)",
            "[1]",
            ".b",
            "->'x'",
            " LIKE a",
        ] {
            assert_eq!(check_statement(&chain(link, 300)), Err(StatementTooLarge::Depth), "{link}");
        }
        for prefix in ["- ", "NOT ", "~ "] {
            let sql = format!("SELECT {}a FROM jobs", prefix.repeat(300));
            assert_eq!(check_statement(&sql), Err(StatementTooLarge::Depth), "{prefix}");
        }
        let nested = format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60));
        assert_eq!(check_statement(&nested), Err(StatementTooLarge::Brackets));
        // Each level alone is short enough.
        let spread = format!("SELECT {}1{}", "abs(1+1+1+1+1+1+1+1+".repeat(40), ")".repeat(40));
        assert_eq!(check_statement(&spread), Err(StatementTooLarge::Depth));
        assert_eq!(check_statement(&" ".repeat(70_000)), Err(StatementTooLarge::Bytes(70_000)));
    }

    #[test]
    fn relations_are_counted_however_they_are_joined() {
        let tables: Vec<String> = (0..200).map(|n| format!("jobs j{n}")).collect();
        let commas = format!("SELECT count(*) FROM {}", tables.join(", "));
        assert_eq!(check_statement(&commas), Err(StatementTooLarge::Relations(200)));
        let joins = format!("SELECT count(*) FROM jobs {}", "JOIN rows USING (id) ".repeat(30));
        assert_eq!(check_statement(&joins), Err(StatementTooLarge::Relations(31)));
        let doubling: Vec<String> =
            (1..12).map(|n| format!("t{n} AS (SELECT * FROM t{0} a, t{0} b)", n - 1)).collect();
        let with = format!("WITH t0 AS (SELECT 1 AS x), {} SELECT * FROM t11", doubling.join(", "));
        assert_eq!(check_statement(&with), Err(StatementTooLarge::Relations(23)));
        let union = vec!["SELECT a, b"; 80].join(" UNION ALL ");
        assert_eq!(check_statement(&union), Err(StatementTooLarge::SetOperations(79)));
    }
}
