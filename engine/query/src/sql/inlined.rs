//! A vector written into a statement's text, where a parameter could stand: `ORDER BY embedding <=> '[1,2,3]'`.
//!
//! Drivers that fill parameters in themselves send such texts, each another one. [`inlined_vector`] finds what they
//! have in common, so that `database` can plan that once. It reads the text as far as it must to be sure where literals
//! begin and end, and answers `None` for whatever is more: comments, escapes, parameters. Whether the statement is one
//! that has a use for the vector is not decided here.

/// A statement with `$1` in the place of a vector.
#[derive(Debug, PartialEq, Eq)]
pub struct Inlined<'a> {
    pub sql: String,
    /// What stood between the quotes, wherever there is `$1` now.
    pub vector: &'a str,
}

const OPERATORS: [&str; 4] = ["<->", "<=>", "<#>", "<+>"];

/// Takes the vector out of a SELECT: the literals that begin with `[` and follow a distance operator, which must all be
/// the same. With the same text and another vector between the quotes every token is the same but those literals: what
/// is said of one such statement holds for all.
pub fn inlined_vector(sql: &str) -> Option<Inlined<'_>> {
    if !sql.contains("'[") || !is_select(sql) {
        return None;
    }
    let bytes = sql.as_bytes();
    let mut rest = String::new();
    let mut vector = None;
    // What is copied already, and what is read.
    let (mut copied, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let next = bytes.get(at + 1);
        match byte {
            b'"' => at = after(sql, at, '"')?,
            b'\'' => {
                let end = after(sql, at, '\'')?;
                // E'…', B'…', U&'…': other literals, in which other things end them.
                let prefixed = at > 0 && (bytes[at - 1] == b'&' || is_word(bytes[at - 1]));
                if prefixed {
                    return None;
                }
                let literal = &sql[at + 1..end - 1];
                if literal.starts_with('[') && follows_operator(&sql[..at]) {
                    // '…''…' and '…' '…' over a line break are one literal.
                    let continues = sql[end..].trim_start().starts_with('\'');
                    if continues || vector.is_some_and(|vector| vector != literal) {
                        return None;
                    }
                    vector = Some(literal);
                    rest.push_str(&sql[copied..at]);
                    rest.push_str(" $1 ");
                    copied = end;
                }
                at = end;
            }
            b'$' | b'\\' => return None,
            b'-' if next == Some(&b'-') => return None,
            b'/' if next == Some(&b'*') => return None,
            _ => at += 1,
        }
    }
    rest.push_str(&sql[copied..]);
    Some(Inlined { sql: rest, vector: vector? })
}

fn is_select(sql: &str) -> bool {
    sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
}

/// Behind the quotation that begins at `start`. A doubled quote ends one and begins another, which comes to the same.
fn after(sql: &str, start: usize, quote: char) -> Option<usize> {
    let inside = start + 1;
    sql[inside..].find(quote).map(|end| inside + end + 1)
}

/// Any byte of a character beyond ASCII may be part of a word.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn follows_operator(before: &str) -> bool {
    let before = before.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '(');
    OPERATORS.iter().any(|operator| before.ends_with(operator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sql: &str) -> Option<(String, &str)> {
        inlined_vector(sql).map(|found| (found.sql, found.vector))
    }

    #[test]
    fn a_vector_is_taken_out_wherever_it_stands() {
        for (sql, rest) in [
            ("SELECT a FROM t ORDER BY e <-> '[1,2]' LIMIT 5", "SELECT a FROM t ORDER BY e <->  $1  LIMIT 5"),
            (
                " select \"it's\" from \"t\" ORDER BY e<=>'[1,2]'::vector",
                " select \"it's\" from \"t\" ORDER BY e<=> $1 ::vector",
            ),
            (
                "SELECT e <#> '[1,2]' AS d FROM t WHERE k = 'it''s' AND j @> '[7]' ORDER BY e <#> ('[1,2]')",
                "SELECT e <#>  $1  AS d FROM t WHERE k = 'it''s' AND j @> '[7]' ORDER BY e <#> ( $1 )",
            ),
            ("SELECT 'ä' FROM t ORDER BY e <+> \n'[1,2]'", "SELECT 'ä' FROM t ORDER BY e <+> \n $1 "),
        ] {
            assert_eq!(taken(sql), Some((rest.to_owned(), "[1,2]")), "{sql}");
        }
    }

    #[test]
    fn what_may_be_read_otherwise_is_left() {
        for sql in [
            "",
            "SELECT '[1]'",
            "SELECT 1 ORDER BY e <-> '1'",
            "SELECT e <-> '[1]' FROM t ORDER BY e <-> '[2]'",
            "SELECT a FROM t ORDER BY e <-> '[1",
            "SELECT \"a FROM t ORDER BY e <-> '[1]'",
            "SELECT a FROM t ORDER BY e <-> '[1]''[2]'",
            "SELECT a FROM t ORDER BY e <-> '[1'\n',2]'",
            "SELECT a FROM t ORDER BY e <-> E'[1]'",
            "SELECT a FROM t ORDER BY e <-> U&'[1]'",
            "SELECT E'\\' <-> ' FROM t ORDER BY e <-> '[1]'",
            "SELECT a FROM t -- it's\n ORDER BY e <-> '[1]'",
            "SELECT a FROM t /* ' */ ORDER BY e <-> '[1]'",
            "SELECT a FROM t WHERE b = $1 ORDER BY e <-> '[1]'",
            "SELECT $$'$$ FROM t ORDER BY e <-> '[1]'",
            "INSERT INTO t SELECT e <-> '[1]' FROM t",
            "UPDATE t SET d = e <-> '[1]'",
        ] {
            assert_eq!(taken(sql), None, "{sql}");
        }
    }
}
