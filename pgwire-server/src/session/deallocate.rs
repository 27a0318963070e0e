//! `DEALLOCATE`, as far as it is the protocol's business: it names statements that Parse made.
//!
//! The engine accepts the statement and does not know the names, which live in `held`. psycopg evicts prepared
//! statements this way, so a name that stays would fill the connection's cap.

/// What a `DEALLOCATE` statement forgets.
#[derive(Debug, PartialEq, Eq)]
pub enum Deallocate {
    All,
    One(String),
}

impl Deallocate {
    /// `sql` must hold one statement. `None`: it is another one.
    pub fn recognise(sql: &str) -> Option<Self> {
        let rest = keyword(sql.trim_matches([' ', '\t', '\r', '\n', ';']), "DEALLOCATE")?;
        let rest = keyword(rest, "PREPARE").unwrap_or(rest);
        if rest.eq_ignore_ascii_case("ALL") {
            return Some(Self::All);
        }
        match rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => Some(Self::One(quoted.replace("\"\"", "\""))),
            None if rest.is_empty() || rest.contains(char::is_whitespace) => None,
            None => Some(Self::One(rest.to_lowercase())),
        }
    }
}

/// What follows `word` and at least one space.
fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_postgres_folds_them() {
        let one = |name: &str| Some(Deallocate::One(name.to_owned()));
        assert_eq!(Deallocate::recognise("DEALLOCATE \"_pg3_0\""), one("_pg3_0"));
        assert_eq!(Deallocate::recognise(" deallocate prepare Abc ;"), one("abc"));
        assert_eq!(Deallocate::recognise("DEALLOCATE \"A\"\"b\""), one("A\"b"));
        assert_eq!(Deallocate::recognise("deallocate all"), Some(Deallocate::All));
        assert_eq!(Deallocate::recognise("DEALLOCATE PREPARE ALL;"), Some(Deallocate::All));
        for other in ["select 1", "deallocate", "DEALLOCATE a b", ""] {
            assert_eq!(Deallocate::recognise(other), None, "{other}");
        }
    }
}
