//! Where secrets may have been left: what the server answers, the files of its data directory, the processes that run
//! plugins.
//!
//! That the search finds what is there is proved on what the receiver was sent.

use std::{fs, io, path::Path};

use sepal_plugins::worker::WORKER_ARGUMENT;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    cli::failure::Failure,
    demo::disk::{Finder, Kind},
};

/// All that tells of secrets, sinks and pipelines, and of what a session does.
const QUESTIONS: [&str; 12] = [
    "SHOW SECRETS",
    "SHOW CERTIFICATES",
    "SHOW SECRET RESOLVERS",
    "SHOW PLUGINS",
    "SHOW PLUGIN CAPABILITIES",
    "SHOW SINKS",
    "SHOW PIPELINES",
    "SELECT * FROM sepal_secret_usage",
    "SELECT * FROM sepal_pipeline_status",
    "SELECT * FROM sepal_dead_letters",
    "SELECT * FROM pg_stat_activity",
    "SHOW ALL",
];

/// A process that runs plugins.
pub struct Worker {
    pub id: u32,
    /// Bytes of its environment; `None`: the kernel does not even let its own user read it.
    pub environment_bytes: Option<usize>,
    pub hits: usize,
}

/// Asks everything that tells something; how much was asked, and the first answer with a secret in it.
pub async fn in_answers(client: &Client, finder: &Finder) -> Result<(usize, Option<&'static str>), Failure> {
    for question in QUESTIONS {
        let mut answer = String::new();
        for message in client.simple_query(question).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            for column in 0..row.len() {
                answer.push_str(row.try_get(column)?.unwrap_or_default());
                answer.push('\n');
            }
        }
        if finder.distinct(answer.as_bytes(), Kind::Secret) > 0 {
            return Ok((QUESTIONS.len(), Some(question)));
        }
    }
    Ok((QUESTIONS.len(), None))
}

/// Looks at the command line and the environment of every worker that this process has started.
pub fn in_workers(finder: &Finder) -> io::Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        // Any of them may end while it is looked at.
        let (Ok(stat), Ok(command)) = (fs::read_to_string(path.join("stat")), fs::read(path.join("cmdline")))
        else {
            continue;
        };
        let is_worker = command.split(|byte| *byte == 0).any(|word| word == WORKER_ARGUMENT.as_bytes());
        if is_worker && parent(&stat) == Some(std::process::id()) {
            workers.push(look(id, &path, &command, finder)?);
        }
    }
    Ok(workers)
}

fn look(id: u32, path: &Path, command: &[u8], finder: &Finder) -> io::Result<Worker> {
    let mut hits = finder.distinct(command, Kind::Secret);
    let environment_bytes = match fs::read(path.join("environ")) {
        Ok(environment) => {
            hits += finder.distinct(&environment, Kind::Secret);
            Some(environment.len())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(error),
    };
    Ok(Worker { id, environment_bytes, hits })
}

/// The fourth field of `/proc/<id>/stat`; the second is a name in parentheses, with whatever in it.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(super::parent("12 (sepal) S 7 12 12 0 -1"), Some(7));
        assert_eq!(super::parent("12 (a) R 1 (b) S 7 12"), Some(7));
        assert_eq!(super::parent("12 (sepal"), None);
    }
}
