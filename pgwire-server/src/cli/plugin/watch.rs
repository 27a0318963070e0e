//! `sepal plugin watch`: build and test again whenever a file of the project changes, and hand what passes to a server.
//!
//! Files are looked at twice a second. Editors write in several steps, so a change counts once nothing more changes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;
use sepal_plugins::author;

use super::{
    failed,
    source::{Source, at, with_toolchains},
    test::{TestFlags, examine, print, verdict},
    upload,
};
use crate::cli::{
    failure::Failure,
    output::{self, Style},
    runtime,
};

const LOOK: Duration = Duration::from_millis(500);
/// Folders with what tools make.
const MADE: [&str; 5] = ["target", "node_modules", "__pycache__", ".git", "dist"];
/// Files that tools and commands make.
const MADE_ENDS: [&str; 4] = ["wasm", "sig", "pyc", "lock"];
/// A project is small; this is somebody's home.
const MOST_FILES: usize = 20_000;

#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    options: TestFlags,
    /// Replace this plugin of a running server whenever a build passes
    #[arg(long, value_name = "PLUGIN")]
    server: Option<String>,
    /// Sign with this key before replacing it
    #[arg(long, value_name = "FILE", requires = "server")]
    key: Option<PathBuf>,
}

/// Every file with its time and size.
type Snapshot = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

impl Watch {
    pub fn run(self) -> Result<(), Failure> {
        let folder = self.source.folder().to_owned();
        if !folder.join("plugin.toml").is_file() {
            return Err(Failure::usage(format!(
                "{} has no plugin.toml: watch a project's folder",
                folder.display()
            )));
        }
        output::talk(&format!("Watching {}. Ctrl-C ends it.", folder.display()));
        loop {
            let seen = settled(&folder)?;
            if let Err(failure) = self.once(&folder) {
                output::talk(&Style::of_stderr().warning(&failure.to_string()));
            }
            while snapshot(&folder)? == seen {
                std::thread::sleep(LOOK);
            }
        }
    }

    fn once(&self, folder: &Path) -> Result<(), Failure> {
        let report = examine(&self.source, self.options)?;
        print(&report, false)?;
        verdict(&report)?;
        let Some(name) = &self.server else { return Ok(()) };
        let packed = with_toolchains(|toolchains| author::pack(folder, toolchains).map_err(failed))?;
        let component = fs::read(&packed).map_err(|error| at(&packed, &error))?;
        let signature = match &self.key {
            None => None,
            Some(key) => {
                let path = author::sign(&packed, key).map_err(failed)?;
                let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
                Some(text.trim().to_owned())
            }
        };
        let signature = signature.as_ref().map(String::as_bytes);
        runtime()?.block_on(upload::replace(name, &component, signature))?;
        output::talk(&format!("Replaced {name} in the server."));
        Ok(())
    }
}

/// The files once two looks at them are the same.
fn settled(folder: &Path) -> Result<Snapshot, Failure> {
    let mut before = snapshot(folder)?;
    loop {
        std::thread::sleep(LOOK);
        let now = snapshot(folder)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

pub fn snapshot(folder: &Path) -> Result<Snapshot, Failure> {
    let mut found = Snapshot::new();
    walk(folder, &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, found: &mut Snapshot) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let entry = entry.map_err(|error| at(folder, &error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let facts = match entry.metadata() {
            Ok(facts) => facts,
            // An editor's temporary file, gone already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path, &error)),
        };
        if facts.is_dir() {
            if !MADE.contains(&name.as_ref()) {
                walk(&path, found)?;
            }
        } else if !path.extension().is_some_and(|end| MADE_ENDS.iter().any(|made| end == *made)) {
            found.insert(path, (facts.modified().ok(), facts.len()));
        }
        if found.len() > MOST_FILES {
            let problem = format!("{} has more than {MOST_FILES} files: name a project", folder.display());
            return Err(Failure::usage(problem));
        }
    }
    Ok(())
}
