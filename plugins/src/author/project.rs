//! `sepal plugin new`: a folder with a plugin that builds, passes its cases and does something.

use std::{fmt, fs, path::Path, str::FromStr};

use super::{AuthorError, Result, templates};

/// What it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    JavaScript,
}

impl FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "rust" => Ok(Self::Rust),
            "python" | "py" => Ok(Self::Python),
            "javascript" | "js" => Ok(Self::JavaScript),
            _ => Err(format!("{text:?} is not a language here; write rust, python or js")),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::JavaScript => "js",
        })
    }
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sink,
    Resolver,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "sink" => Ok(Self::Sink),
            "resolver" => Ok(Self::Resolver),
            _ => Err(format!("{text:?} is not a kind of plugin; write sink or resolver")),
        }
    }
}

/// Makes the folder `directory`, which must not be there, for the plugin `name`: `hook` or `acme/hook`.
pub fn new_project(directory: &Path, name: &str, language: Language, kind: Kind) -> Result<()> {
    let (owner, name) = name.split_once('/').unwrap_or(("local", name));
    for part in [owner, name] {
        check_name(part)?;
    }
    let folders = templates::of(language, kind).ok_or_else(|| {
        AuthorError::Project(format!(
            "there is no template for a resolver in {language}: start from --lang rust, or from a sink and the world \
             secret-resolver of wit/plugin.wit"
        ))
    })?;
    if directory.exists() {
        let problem = format!("{} is there already: name a folder to be made", directory.display());
        return Err(AuthorError::Project(problem));
    }
    for (place, files) in folders {
        for (within, text) in files {
            // A file of that name would hide the templates' own folder from git.
            let within = if *within == "gitignore" { ".gitignore" } else { *within };
            let path = directory.join(place).join(within);
            let folder = path.parent().unwrap_or(directory);
            fs::create_dir_all(folder).map_err(AuthorError::at(folder))?;
            let text = if place.is_empty() { fill_in(text, owner, name) } else { (*text).to_owned() };
            fs::write(&path, text).map_err(AuthorError::at(&path))?;
        }
    }
    Ok(())
}

fn fill_in(text: &str, owner: &str, name: &str) -> String {
    text.replace("{{owner}}", owner).replace("{{name}}", name)
}

/// What both a crate and a manifest take.
fn check_name(name: &str) -> Result<()> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if begins && name.len() <= 64 && name.bytes().all(rest) {
        return Ok(());
    }
    Err(AuthorError::Project(format!(
        "{name:?} cannot name a plugin: write lower-case letters, digits, - and _, a letter first, at most 64"
    )))
}
