//! Whether a field, by its name, holds a secret.
//!
//! The second line of defence: a plugin's schema says it first. It is used where there is no schema, to refuse a
//! literal and to keep one out of logs, so it errs towards "yes"; what only speaks *about* a secret (`token_count`,
//! `password_file`) is not one.

/// Words that name a secret wherever they stand in a field's name.
const SECRETS: [&str; 18] = [
    "apikey",
    "accesskey",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "dsn",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "secrets",
    "token",
];

/// Endings of words that were written together: `dbpassword`, `clientsecret`.
const ENDINGS: [&str; 9] =
    ["apikey", "accesskey", "passphrase", "passwd", "password", "privatekey", "secret", "secretkey", "token"];

/// Two words that name a secret together.
const PAIRS: [(&str, &str); 12] = [
    ("access", "key"),
    ("access", "tokens"),
    ("account", "key"),
    ("api", "key"),
    ("api", "keys"),
    ("auth", "tokens"),
    ("connection", "string"),
    ("encryption", "key"),
    ("master", "key"),
    ("private", "key"),
    ("shared", "key"),
    ("signing", "key"),
];

/// Words behind a secret's that make the field one about it.
const ABOUT: [&str; 24] = [
    "count", "endpoint", "expires", "expiry", "field", "file", "format", "header", "length", "lifetime",
    "limit", "max", "min", "name", "path", "policy", "ref", "rotation", "size", "ttl", "type", "uri", "url",
    "version",
];

/// Whether a field of this name holds a secret: `password`, `clientSecret`, `API-KEY`, `dbpassword`, `dsn`; not
/// `max_tokens`, `token_count`, `secretary`.
pub fn is_sensitive_name(field: &str) -> bool {
    let words = words(field);
    words.iter().enumerate().any(|(position, word)| {
        let next = words.get(position + 1).map(String::as_str);
        if let Some(next) = next
            && PAIRS.contains(&(word.as_str(), next))
        {
            let following = &words[position + 2..];
            return !is_about(following) && !names_a_key(word, next, following);
        }
        let secret = SECRETS.contains(&word.as_str()) || ENDINGS.iter().any(|ending| word.ends_with(ending));
        // `pass` alone is an abbreviation at the end (`smtp_pass`) and anything else before (`pass_through`).
        let secret = secret || (word == "pass" && next.is_none());
        secret && !is_about(&words[position + 1..])
    })
}

/// Amazon's `access_key_id` is half of a pair of which only the other, `secret_access_key`, is secret.
fn names_a_key(first: &str, second: &str, following: &[String]) -> bool {
    (first, second) == ("access", "key") && *following == ["id"]
}

/// Digits do not count: `token_2` is a token.
fn is_about(following: &[String]) -> bool {
    let mut following = following.iter().filter(|word| !word.bytes().all(|byte| byte.is_ascii_digit()));
    following.next_back().is_some_and(|word| ABOUT.contains(&word.as_str()))
}

/// The words of a field's name in lower case, whether it is written `api_key`, `api-key`, `apiKey` or `APIKey`.
fn words(field: &str) -> Vec<String> {
    let characters: Vec<char> = field.chars().collect();
    let mut words = vec![String::new()];
    for (position, c) in characters.iter().enumerate() {
        if !c.is_alphanumeric() {
            words.push(String::new());
            continue;
        }
        let before = position.checked_sub(1).map(|before| characters[before]);
        let next_is_lower = characters.get(position + 1).is_some_and(|next| next.is_lowercase());
        let begins = match before {
            Some(before) if c.is_uppercase() => before.is_lowercase() || before.is_numeric() || next_is_lower,
            Some(before) => c.is_numeric() != before.is_numeric(),
            None => false,
        };
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised() {
        for field in [
            "password",
            "PASSWORD",
            "db_password",
            "dbPassword",
            "dbpassword",
            "password2",
            "sasl.password",
            "passwd",
            "pwd",
            "passphrase",
            "credential",
            "credentials",
            "dsn",
            "sentry_dsn",
            "authorization",
            "Authorization",
            "secret",
            "client_secret",
            "clientSecret",
            "clientsecret",
            "AWS_SECRET_ACCESS_KEY",
            "secret_access_key",
            "token",
            "auth_token",
            "authToken",
            "APIToken",
            "api_key",
            "api-key",
            "apikey",
            "apiKey",
            "x-api-key",
            "APIKey",
            "private_key",
            "account_key",
            "connection_string",
            "smtp_pass",
            "secret_id",
            "token_2",
            "hmac_secret",
            "bearer",
        ] {
            assert!(is_sensitive_name(field), "{field}");
        }
    }

    #[test]
    fn what_only_speaks_of_secrets_is_not_one() {
        for field in [
            "",
            "_",
            "token_count",
            "max_tokens",
            "tokens",
            "tokenizer",
            "secretary",
            "token_url",
            "token_endpoint",
            "password_file",
            "secret_name",
            "passwordPolicy",
            "pass_through",
            "bypass",
            "compass",
            "key",
            "keys",
            "primary_key",
            "monkey",
            "url",
            "dsname",
            "author",
            "username",
            "token_ttl_2",
            "api_key_header",
            "access_key_id",
            "awsAccessKeyId",
            "secretion",
        ] {
            assert!(!is_sensitive_name(field), "{field}");
        }
    }
}
