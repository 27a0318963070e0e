//! How deeply a statement nests, counted over its tokens before anything is built from them.
//!
//! `1 + 1 + …`, `a JOIN b JOIN …` and chains of CTEs become trees as deep as they are long, and every walk over
//! such a tree is a recursion: a stack that runs out ends the process, for all tenants. Called by `statement` for
//! each statement. Lists (VALUES, IN, SELECT) are wide, not deep, and are not counted.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use sepal_types::{Error, Result, SqlState};

use super::tokens::is_significant;

/// Operators, joins and set operations one inside the other. The threads that plan have stacks for several times
/// as many (`database`, `cli`).
const DEEPEST: u32 = 2_000;
/// A relation inside another costs a walk several frames more than an operator does.
const RELATION: u32 = 8;

/// What one pair of parentheses holds.
#[derive(Default)]
struct Level {
    /// Operators since the last comma.
    operators: u32,
    /// Joins, set operations, CTEs.
    relations: u32,
    /// A comma joins relations, or begins another CTE.
    comma_nests: bool,
}

/// Errors: 54001.
pub fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels = vec![Level::default()];
    let mut depth: u32 = 0;
    for token in tokens.iter().filter(|token| is_significant(token)) {
        let Some(level) = levels.last_mut() else {
            // More closed than opened: the parser says so.
            return Ok(());
        };
        match &token.token {
            Token::LParen => levels.push(Level::default()),
            Token::RParen => {
                depth -= level.operators + level.relations;
                levels.pop();
                continue;
            }
            Token::Comma if level.comma_nests => {
                level.relations += RELATION;
                depth += RELATION;
            }
            Token::Comma => {
                depth -= level.operators;
                level.operators = 0;
            }
            Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_uppercase().as_str()
            {
                "AND" | "OR" | "IS" | "ISNULL" | "NOTNULL" | "LIKE" | "ILIKE" | "IN" | "BETWEEN"
                | "COLLATE" | "AT" | "SIMILAR" | "OPERATOR" => {
                    level.operators += 1;
                    depth += 1;
                }
                "JOIN" | "UNION" | "EXCEPT" | "INTERSECT" => {
                    level.relations += RELATION;
                    depth += RELATION;
                }
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
            _ => {
                level.operators += 1;
                depth += 1;
            }
        }
        if depth > DEEPEST {
            return Err(Error::new(SqlState::StatementTooComplex, "stack depth limit exceeded").with_hint(format!(
                "The statement nests more than {DEEPEST} operators, or {} joins or UNIONs. Write a long OR as IN (…) or = ANY ($1), \
                 and load many rows with VALUES or COPY.",
                DEEPEST / RELATION
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
