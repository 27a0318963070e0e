//! `sepal plugin run`: one call of a plugin against a real destination, through the same way out as in a server.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use sepal_plugins::kit::{LiveOptions, LiveWork, Plaintext};
use serde_json::{Map, Value};

use super::{
    failed,
    source::{Source, at, kit},
};
use crate::{
    cli::{failure::Failure, flags::JsonFlag, logging, output, runtime},
    config::Config,
};

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    source: Source,
    /// JSON file with the options of CREATE SINK or CREATE SECRET RESOLVER, without the sensitive ones
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A secret by its option's name: NAME=@FILE, NAME=@- for stdin, or NAME=env:VARIABLE; may be repeated
    #[arg(long, value_name = "NAME=PLACE", value_parser = place)]
    secret: Vec<(String, Place)>,
    /// File with one row a line, as docs/plugins/reference.md has them [default: three rows that are made up]
    #[arg(long, value_name = "FILE", conflicts_with = "options")]
    rows: Option<PathBuf>,
    /// For a resolver: JSON file with the options of CREATE SECRET … FROM [default: only check is called]
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// Let it reach addresses that are not public, such as 127.0.0.1
    #[arg(long)]
    allow_private: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// Where a secret's value is. Never the value: arguments are visible to everyone on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    Stdin,
    Variable(String),
}

/// Parses `NAME=PLACE`.
pub fn place(text: &str) -> Result<(String, Place), String> {
    let wrong =
        || "a secret is given as NAME=@FILE, NAME=@- or NAME=env:VARIABLE, never as its value".to_owned();
    let (name, place) = text.split_once('=').ok_or_else(wrong)?;
    let place = match (place.strip_prefix('@'), place.strip_prefix("env:")) {
        (Some("-"), _) => Place::Stdin,
        (Some(path), _) if !path.is_empty() => Place::File(path.into()),
        (_, Some(variable)) if !variable.is_empty() => Place::Variable(variable.to_owned()),
        _ => return Err(wrong()),
    };
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), place)) }
}

impl Run {
    pub fn run(self) -> Result<(), Failure> {
        // What the plugin itself logs is talk.
        logging::start(&Config::default(), "warn,sepal::plugin=trace")?;
        let work = match (&self.rows, &self.options) {
            (Some(path), _) => LiveWork::Rows(rows(path)?),
            (None, Some(path)) => LiveWork::Secret(object(path)?),
            (None, None) => LiveWork::Sample,
        };
        let mut secrets = BTreeMap::new();
        for (name, place) in &self.secret {
            secrets.insert(name.clone(), Plaintext::from(value(place)?));
        }
        let config = self.config.as_deref().map(object).transpose()?.unwrap_or_default();
        let options = LiveOptions { config, secrets, work, allow_private: self.allow_private };
        let package = self.source.package()?;
        let live = runtime()?.block_on(kit()?.live(&package, &options)).map_err(failed)?;
        if self.json.json {
            output::json(&live)?;
        } else {
            let rows: Vec<Vec<String>> =
                live.steps.iter().map(|(step, said)| vec![step.clone(), said.clone()]).collect();
            output::rows(&["call", "answer"], &rows, "nothing was called")?;
            output::talk(&format!(
                "{:.1} MiB of memory, {} ms of CPU time.",
                live.peak_memory_bytes as f64 / f64::from(1 << 20),
                live.cpu_us / 1000
            ));
        }
        if live.succeeded { Ok(()) } else { Err(Failure::failed("the plugin did not do it")) }
    }
}

fn rows(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(ToOwned::to_owned).collect())
}

fn object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("{}: a JSON object goes here: {error}", path.display())))
}

/// Without the line's end that editors and `echo` add.
fn value(place: &Place) -> Result<String, Failure> {
    let text = match place {
        Place::File(path) => fs::read_to_string(path).map_err(|error| at(path, &error))?,
        Place::Variable(name) => std::env::var(name)
            .map_err(|_| Failure::usage(format!("the variable {name} is not set, or is no text")))?,
        Place::Stdin => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text)?;
            text
        }
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
