//! How deeply a statement nests, counted over its tokens before anything is built from them.
//!
//! `1 + 1 + …`, `a JOIN b JOIN …` and chains of CTEs become trees as deep as they are long, and every walk over
//! such a tree is a recursion: a stack that runs out ends the process, for all tenants. Called by `statement` for
//! each statement. Lists (VALUES, IN, SELECT) are wide, not deep, and are not counted.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use sepal_types::{Error, Result, SqlState};

use super::tokens::is_significant;

/// Conditions of one AND and OR, one inside the other. The threads that plan have stacks for several times as many
/// (`database`, `cli`).
const DEEPEST: u32 = 2_000;
/// Any other operator, join or set operation costs a walk more frames, and planning more time: it resolves the
/// types of what is below at every level.
const HEAVY: u32 = 8;

/// What one pair of parentheses holds, in units of one condition.
#[derive(Default)]
struct Level {
    /// AND and OR since the last comma.
    conditions: u32,
    /// Other operators since the last comma, AND or OR.
    operators: u32,
    /// Joins, set operations, CTEs.
    relations: u32,
    /// A comma joins relations, or begins another CTE.
    comma_nests: bool,
}

impl Level {
    fn depth(&self) -> u32 {
        self.conditions + self.operators + self.relations
    }
}

/// Errors: 54001.
pub fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels = vec![Level::default()];
    // Of the levels around the last one.
    let mut outer: u32 = 0;
    for token in tokens.iter().filter(|token| is_significant(token)) {
        let Some(level) = levels.last_mut() else {
            // More closed than opened: the parser says so.
            return Ok(());
        };
        match &token.token {
            Token::LParen => {
                outer += level.depth();
                levels.push(Level::default());
                continue;
            }
            Token::RParen => {
                levels.pop();
                outer -= levels.last().map_or(outer, Level::depth);
                continue;
            }
            Token::Comma if level.comma_nests => level.relations += HEAVY,
            Token::Comma => {
                level.operators = 0;
                level.conditions = 0;
            }
            Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_uppercase().as_str()
            {
                "AND" | "OR" => {
                    level.operators = 0;
                    level.conditions += 1;
                }
                "IS" | "ISNULL" | "NOTNULL" | "LIKE" | "ILIKE" | "IN" | "BETWEEN" | "COLLATE" | "AT"
                | "SIMILAR" => {
                    level.operators += HEAVY;
                }
                "JOIN" | "UNION" | "EXCEPT" | "INTERSECT" => level.relations += HEAVY,
                "FROM" | "WITH" | "USING" => level.comma_nests = true,
                "SELECT" | "WHERE" | "GROUP" | "HAVING" | "WINDOW" | "ORDER" | "LIMIT" | "SET"
                | "RETURNING" | "VALUES" => level.comma_nests = false,
                _ => {}
            },
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::Placeholder(_)
            | Token::Period
            | Token::RBracket => {}
            _ => level.operators += HEAVY,
        }
        let depth = outer + level.depth();
        if depth > DEEPEST {
            return Err(Error::new(SqlState::StatementTooComplex, "stack depth limit exceeded").with_hint(format!(
                "The statement nests more than {DEEPEST} conditions, or {} operators, joins or UNIONs. Write a long OR as IN (…) or = ANY ($1), \
                 and load many rows with VALUES or COPY.",
                DEEPEST / HEAVY
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokenize;
    use super::*;

    fn check(sql: &str) -> Result<()> {
        check_depth(&tokenize(sql).expect("tokens"))
    }

    #[test]
    fn chains_are_refused() {
        let many = |count: usize| {
            [
                format!("SELECT 1{}", "+1".repeat(count)),
                format!("SELECT 1{}", "::int".repeat(count)),
                format!("SELECT true{}", " OR true".repeat(count)),
                format!("SELECT 1{}", " IS NULL".repeat(count)),
                format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(count)),
                format!("SELECT 1 FROM t{}", ", t".repeat(count)),
                format!("SELECT 1 FROM t{}", " CROSS JOIN t".repeat(count)),
                format!("WITH a AS (SELECT 1){} SELECT 1", ", a AS (SELECT * FROM a)".repeat(count)),
                format!("SELECT {}1{}", "(1+".repeat(count), ")".repeat(count)),
            ]
        };
        for sql in many(2_001) {
            let error = check(&sql).expect_err(&sql[..40]);
            assert_eq!(error.state(), SqlState::StatementTooComplex);
        }
        for sql in many(240) {
            check(&sql).expect("not too deep");
        }
    }

    #[test]
    fn lists_are_not() {
        for sql in [
            format!(
                "INSERT INTO t VALUES (1 + 1, '[1]'::vector){}",
                ", (1 + 1, '[1]'::vector)".repeat(5_000)
            ),
            format!("SELECT * FROM t WHERE a IN (-1{})", ", -1".repeat(5_000)),
            format!("SELECT a + 1{} FROM t", ", a + 1".repeat(5_000)),
            format!("SELECT a FROM t ORDER BY a + 1{}", ", a + 1".repeat(5_000)),
        ] {
            check(&sql).expect("wide, not deep");
        }
        check(")))").expect("the parser's business");
    }
}
