//! What a secret is called where it is an environment variable, and what happens when two are called the same.
//!
//! `sepal secret render` writes these names, and a child process that is given secrets finds them under these. Sepal's
//! own mode refuses the second of two that collide. The `VF_SECRET_` mode, for configurations that were written for
//! VectorFlow, accepts both with a warning, and the last in alphabetical order counts.

/// A rule for names of environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvNames {
    prefix: &'static str,
    compatible: bool,
}

impl EnvNames {
    /// `SEPAL_SECRET_`, collisions are refused.
    pub const SEPAL: Self = Self { prefix: "SEPAL_SECRET_", compatible: false };
    /// `VF_SECRET_`, collisions are warned of.
    pub const VF: Self = Self { prefix: "VF_SECRET_", compatible: true };

    /// The variable of a secret: the prefix, then the name in capitals with `_` for all that is neither letter nor
    /// digit of ASCII. Any text may be asked for.
    pub fn of(&self, name: &str) -> String {
        let mut variable = String::with_capacity(self.prefix.len() + name.len());
        variable.push_str(self.prefix);
        push_normalised(name, &mut variable);
        variable
    }

    pub fn prefix(&self) -> &str {
        self.prefix
    }

    /// Whether two secrets may be the same variable.
    pub fn is_compatible(&self) -> bool {
        self.compatible
    }

    /// Of the names that are `variable`, the one whose value it holds: the last in alphabetical order (of bytes).
    pub fn winner<'a>(&self, variable: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        names.into_iter().filter(|name| self.of(name) == variable).max()
    }
}

impl Default for EnvNames {
    fn default() -> Self {
        Self::SEPAL
    }
}

/// What two names that collide have in common, whatever the prefix.
pub(crate) fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    push_normalised(name, &mut out);
    out
}

fn push_normalised(name: &str, out: &mut String) {
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_example_is_golden() {
        assert_eq!(EnvNames::VF.of("my-api.key"), "VF_SECRET_MY_API_KEY");
        assert_eq!(EnvNames::SEPAL.of("my-api.key"), "SEPAL_SECRET_MY_API_KEY");
        assert!(crate::SecretName::parse("my-api.key").is_err(), "the name itself is refused");
    }

    #[test]
    fn the_last_in_alphabetical_order_wins() {
        let names = ["db-password", "other", "db_password", "DB-PASSWORD"];
        let winner = |variable| EnvNames::VF.winner(variable, names);
        assert_eq!(winner("VF_SECRET_DB_PASSWORD"), Some("db_password"));
        assert_eq!(winner("VF_SECRET_OTHER"), Some("other"));
        assert_eq!(winner("VF_SECRET_NONE"), None);
    }

    proptest! {
        #[test]
        fn variables_are_plain_and_stay_what_they_are(name in "\\PC{1,80}") {
            for rule in [EnvNames::SEPAL, EnvNames::VF] {
                let variable = rule.of(&name);
                let rest = variable.strip_prefix(rule.prefix()).unwrap();
                let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                prop_assert!(!rest.is_empty() && rest.chars().all(plain), "{variable}");
                prop_assert_eq!(rule.of(rest), variable.clone());
                prop_assert_eq!(normalised(&name), rest);
            }
        }
    }
}
