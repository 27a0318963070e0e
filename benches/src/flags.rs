//! `--name value` pairs on a command line; a name may come several times.

use std::{collections::HashMap, time::Duration};

use crate::{Failure, load::Load};

pub struct Flags(HashMap<String, Vec<String>>);

impl Flags {
    /// `usage`: what to say when a word is no flag.
    pub fn read(mut words: impl Iterator<Item = String>, usage: &str) -> Result<Flags, Failure> {
        let mut flags: HashMap<String, Vec<String>> = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word}? {usage}"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            flags.entry(name.to_owned()).or_default().push(value);
        }
        Ok(Flags(flags))
    }

    /// All values of a name, in order.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    pub fn text(&self, name: &str) -> Result<&str, Failure> {
        Ok(self.get(name).ok_or_else(|| format!("--{name} is missing"))?)
    }

    pub fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        match self.get(name) {
            Some(text) => Ok(text.parse().map_err(|_| format!("--{name} {text} is no number"))?),
            None => Ok(default),
        }
    }

    /// `--clients`, `--warm-up`, `--seconds` and `--set`.
    pub fn load(&self, clients: usize) -> Result<Load, Failure> {
        Ok(Load {
            clients: self.number("clients", clients)?,
            warm_up: Duration::from_secs(self.number("warm-up", 1)? as u64),
            duration: Duration::from_secs(self.number("seconds", 5)? as u64),
            settings: self.all("set").to_vec(),
        })
    }
}
