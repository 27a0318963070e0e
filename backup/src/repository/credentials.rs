//! The credentials files of Amazon's tools: `~/.aws/credentials` and `~/.aws/config`, or those that
//! `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name; profile `AWS_PROFILE`, else `default`.
//!
//! The environment wins: object_store reads it itself, and container and instance roles too. A profile that asks for
//! anything but a key and its region (`role_arn`, `sso_…`, `credential_process`) is not followed.

use std::{collections::BTreeMap, io::ErrorKind, path::PathBuf};

use object_store::aws::AmazonS3Builder;
use sepal_database::Result;

use super::failed;

/// What a profile says.
pub(super) struct Profile(BTreeMap<String, String>);

/// `None` when the environment has a key already, or there is no such profile.
pub(super) fn from_files() -> Result<Option<Profile>> {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(None);
    }
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
    let mut found = BTreeMap::new();
    // The section of a profile but the default one is called [profile name] in `config`.
    for (variable, name, sections) in [
        ("AWS_CONFIG_FILE", "config", [format!("profile {profile}"), profile.clone()]),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", [profile.clone(), profile.clone()]),
    ] {
        let Some(path) = file(variable, name) else { continue };
        match std::fs::read_to_string(&path) {
            Ok(text) => sections.iter().for_each(|section| found.extend(values(&text, section))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path.display().to_string(), &error)),
        }
    }
    Ok((!found.is_empty()).then_some(Profile(found)))
}

impl Profile {
    pub(super) fn apply(&self, mut builder: AmazonS3Builder) -> AmazonS3Builder {
        let value = |name: &str| self.0.get(name);
        if let (Some(id), Some(key)) = (value("aws_access_key_id"), value("aws_secret_access_key")) {
            builder = builder.with_access_key_id(id).with_secret_access_key(key);
        }
        if let Some(token) = value("aws_session_token") {
            builder = builder.with_token(token);
        }
        let region_is_set =
            ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| std::env::var_os(name).is_some());
        match value("region") {
            Some(region) if !region_is_set => builder.with_region(region),
            _ => builder,
        }
    }
}

fn file(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws").join(name)))
}

/// `name = value` lines of a `[section]`.
fn values(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let Some((name, value)) = line.split_once('=')
            && inside
            && !line.starts_with(['#', ';'])
        {
            found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "[default]\naws_access_key_id = A=B \n# region = no\n[ other ]\nRegion=eu-west-1\n";
        let default = values(text, "default");
        assert_eq!(default.get("aws_access_key_id").map(String::as_str), Some("A=B"));
        assert_eq!(default.len(), 1);
        assert_eq!(values(text, "other").get("region").map(String::as_str), Some("eu-west-1"));
        assert!(values(text, "missing").is_empty());
    }
}
