//! A passphrase as a [`KeyWrapper`]: Argon2id makes a key of it, once, when the process starts.

use sepal_crypto::{
    BadCost, PassphraseCost, ResidentKey, SALT_BYTES, hex, passphrase_key, random_bytes, unhex,
    unwrap_secret, wrap_secret,
};
use zeroize::Zeroizing;

use super::{KeyWrapper, Provider, WrapperError};

/// Fewest characters of a passphrase: what 5 random words have, or 14 random letters.
const MIN_CHARACTERS: usize = 14;
/// Fewest different ones.
const MIN_DIFFERENT: usize = 8;
/// Fewest characters that are left when runs, repetitions and the most guessed words are taken away.
const MIN_UNFORESEEN: usize = 12;

/// Parts that every list of guesses begins with; keyboards' rows too.
const GUESSED: [&str; 16] = [
    "password",
    "passphrase",
    "passwort",
    "letmein",
    "welcome",
    "changeme",
    "default",
    "secret",
    "master",
    "admin",
    "sepal",
    "vector",
    "database",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
];

/// A passphrase that was stretched.
pub struct Passphrase {
    key: ResidentKey,
    salt: [u8; SALT_BYTES],
    cost: PassphraseCost,
}

impl Passphrase {
    /// For a new root key. Errors: it is weak, with the reason.
    pub fn new(passphrase: &str, cost: PassphraseCost) -> Result<Self, WrapperError> {
        check_passphrase(passphrase).map_err(WrapperError::Misconfigured)?;
        Self::stretch(passphrase, random_bytes(), cost)
            .map_err(|bad| WrapperError::Misconfigured(bad.to_string()))
    }

    /// With salt and cost of `provider`. Whether it is the right one shows when something is unwrapped.
    pub fn again(passphrase: &str, provider: &Provider) -> Result<Self, WrapperError> {
        let Provider::Passphrase { salt, memory_kib, passes, lanes } = provider else {
            return Err(WrapperError::Misconfigured(format!("{provider} asks for no passphrase")));
        };
        let cost = PassphraseCost { memory_kib: *memory_kib, passes: *passes, lanes: *lanes };
        let salt =
            unhex(salt.as_bytes()).and_then(|bytes| <[u8; SALT_BYTES]>::try_from(bytes.as_slice()).ok());
        let salt = salt.ok_or_else(|| {
            WrapperError::Misconfigured(format!("the salt of the passphrase is not {SALT_BYTES} bytes"))
        })?;
        Self::stretch(passphrase, salt, cost).map_err(|bad| WrapperError::Misconfigured(bad.to_string()))
    }

    fn stretch(passphrase: &str, salt: [u8; SALT_BYTES], cost: PassphraseCost) -> Result<Self, BadCost> {
        let key = passphrase_key(passphrase.as_bytes(), &salt, cost)?;
        Ok(Self { key: key.derive("passphrase wrapping 1", &[]).into(), salt, cost })
    }
}

impl KeyWrapper for Passphrase {
    fn provider(&self) -> Provider {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        Provider::Passphrase { salt: hex(&self.salt), memory_kib, passes, lanes }
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        Ok(wrap_secret(&self.key, context, secret))
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        unwrap_secret(&self.key, context, wrapped)
            .map_err(|_| WrapperError::Refused("the passphrase is not the one it was made with".into()))
    }
}

/// Refuses what would be guessed, with the reason. Judged when a passphrase is set, never when it is used.
pub fn check_passphrase(passphrase: &str) -> Result<(), String> {
    let characters: Vec<char> = passphrase.to_lowercase().chars().collect();
    let advice = "five or six random words are easy to remember and hard to guess";
    if characters.len() < MIN_CHARACTERS {
        return Err(format!(
            "the passphrase has {} characters and needs {MIN_CHARACTERS}: {advice}",
            characters.len()
        ));
    }
    let mut different = characters.clone();
    different.sort_unstable();
    different.dedup();
    if different.len() < MIN_DIFFERENT {
        return Err(format!(
            "the passphrase consists of {} different characters and needs {MIN_DIFFERENT}: {advice}",
            different.len()
        ));
    }
    let unforeseen = unforeseen(&characters);
    if unforeseen < MIN_UNFORESEEN {
        return Err(format!(
            "the passphrase is made of words, runs or repetitions that are guessed first; only {unforeseen} of its \
             characters are none of these, and {MIN_UNFORESEEN} are needed: {advice}"
        ));
    }
    Ok(())
}

/// How many characters do not follow from those before them: not part of a guessed word, not the next of a run (`1234`,
/// `abcd`, `aaaa`), not the end of three that came before.
fn unforeseen(characters: &[char]) -> usize {
    let mut text: String = characters.iter().collect();
    for word in GUESSED {
        text = text.replace(word, "\0");
    }
    let rest: Vec<char> = text.chars().filter(|character| *character != '\0').collect();
    let step = |at: usize| i64::from(u32::from(rest[at])) - i64::from(u32::from(rest[at - 1]));
    let runs = |at: usize| at >= 2 && step(at) == step(at - 1) && step(at).abs() <= 1;
    let repeats = |at: usize| at >= 3 && rest[..at].windows(3).any(|before| before == &rest[at - 2..=at]);
    (0..rest.len()).filter(|at| !runs(*at) && !repeats(*at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn weak_ones_are_refused_with_the_reason() {
        for (weak, reason) in [
            ("short", "has 5 characters"),
            ("aaaaaaaaaaaaaaaaaaaaaaaa", "1 different"),
            ("abcdefghijklmnopqrstuvwxyz", "guessed first"),
            ("passwordpassword1234567890", "guessed first"),
            ("Sepal-Password-Admin-2026", "guessed first"),
            ("tr0ub4dortr0ub4dortr0ub4dor", "guessed first"),
        ] {
            let said = check_passphrase(weak).unwrap_err();
            assert!(said.contains(reason), "{weak}: {said}");
            assert!(!said.contains(weak), "the passphrase is not shown: {said}");
        }
        for good in ["correct horse battery staple", "v8#kQz!2mRt$7w", "fünf Wörter sind leicht gemerkt"] {
            assert_eq!(check_passphrase(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn the_same_passphrase_opens_and_another_does_not() {
        let first = Passphrase::new("correct horse battery staple", CHEAP).unwrap();
        let wrapped = first.wrap(b"root", &[7; 32]).unwrap();
        let again = Passphrase::again("correct horse battery staple", &first.provider()).unwrap();
        assert_eq!(again.unwrap(b"root", &wrapped).unwrap().as_slice(), [7; 32]);
        assert!(matches!(again.unwrap(b"other", &wrapped), Err(WrapperError::Refused(_))));
        let wrong = Passphrase::again("correct horse battery stable", &first.provider()).unwrap();
        assert!(matches!(wrong.unwrap(b"root", &wrapped), Err(WrapperError::Refused(_))));
        assert!(Passphrase::again("x", &Provider::KeyFile { path: "k".into() }).is_err());
    }
}
