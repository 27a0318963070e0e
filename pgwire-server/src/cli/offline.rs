//! What `check` and `repair` share: where the directory and its key are, and how problems and progress are told.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sepal_database::{CheckListener, CheckProgress, Key, Problem, Severity, backup};
use serde::Serialize;

use crate::{
    config::{self, Config},
    root_key,
};

use super::{failure::Failure, flags::DataFlags, output, output::Style, process::cannot_open};

/// How often a check that nobody watches says how far it is.
const INTERVAL: Duration = Duration::from_secs(5);

/// A directory that no server has open.
#[derive(Args, Serialize, Default)]
pub struct OfflineFlags {
    #[command(flatten)]
    #[serde(flatten)]
    data: DataFlags,
    /// File with the root key, mode 0600 [default: root.key in the data directory]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    root_key_file: Option<PathBuf>,
    /// File with the passphrase, PIN or token that opens the root key, mode 0600; - for standard input [default:
    /// systemd's credential sepal-root-secret]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    root_secret_file: Option<PathBuf>,
}

impl OfflineFlags {
    /// The directory and its root key.
    pub fn open(&self) -> Result<(PathBuf, Key), Failure> {
        let config = config::load(&Config::default(), self, self.data.config.as_deref())?.config;
        backup::check_finished(&config.data)?;
        let store = root_key::open_store(&config).map_err(cannot_open)?;
        let key = root_key::unlock(&config, &store).map_err(cannot_open)?;
        Ok((config.data, key))
    }
}

/// A problem as `--json` prints it.
#[derive(Serialize)]
pub struct ProblemJson {
    severity: &'static str,
    tenant: Option<String>,
    file: String,
    what: String,
    consequence: String,
}

impl From<&Problem> for ProblemJson {
    fn from(problem: &Problem) -> Self {
        Self {
            severity: problem.severity.name(),
            tenant: problem.tenant.map(|tenant| tenant.to_string()),
            file: problem.file.clone(),
            what: problem.what.clone(),
            consequence: problem.consequence.clone(),
        }
    }
}

/// Prints problems as they are found, or keeps them for JSON; tells on stderr how far the check is.
pub struct Teller {
    kept: Option<Vec<ProblemJson>>,
    silent: bool,
    style: Style,
    /// `None` where stderr is no terminal.
    bar: Option<ProgressBar>,
    told: Instant,
    failure: Option<Failure>,
}

impl Teller {
    /// `keep`: for [`Self::finish`], instead of printing. `silent`: only how far it is.
    pub fn new(keep: bool, silent: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "  {bar:40} {bytes} of {total_bytes}  {msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        let kept = keep.then(Vec::new);
        Self { kept, silent, style: Style::of_stdout(), bar, told: Instant::now(), failure: None }
    }

    /// The problems that were kept. Errors: one could not be printed.
    pub fn finish(mut self) -> Result<Vec<ProblemJson>, Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.kept.take().unwrap_or_default()),
        }
    }

    fn line(&self, problem: &Problem) -> String {
        let severity = match problem.severity {
            Severity::Info => self.style.dim("info"),
            Severity::Warning | Severity::Error => self.style.warning(problem.severity.name()),
        };
        let mut line = format!("{severity}: {}: ", problem.file);
        // The files of a tenant have its id in their path.
        if let Some(tenant) = problem.tenant.filter(|_| !problem.file.starts_with("tenants/")) {
            line.extend(["tenant ", &tenant.to_string(), ": "]);
        }
        line.push_str(&problem.what);
        if !problem.consequence.is_empty() {
            line.push_str(": ");
            line.push_str(&problem.consequence);
        }
        line
    }
}

impl CheckListener for Teller {
    fn found(&mut self, problem: Problem) {
        if self.silent {
            return;
        }
        if let Some(kept) = &mut self.kept {
            return kept.push(ProblemJson::from(&problem));
        }
        let line = self.line(&problem);
        let printed = match &self.bar {
            Some(bar) => bar.suspend(|| output::data(&line)),
            None => output::data(&line),
        };
        if let Err(failure) = printed {
            self.failure.get_or_insert(failure);
        }
    }

    fn progress(&mut self, progress: CheckProgress) {
        let CheckProgress { tenants_done, tenants, bytes_done, bytes } = progress;
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.set_position(bytes_done.min(bytes));
            bar.set_message(format!("{tenants_done} of {tenants} tenants"));
        } else if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let mib = |bytes: u64| bytes >> 20;
            output::talk(&format!(
                "checked {} of {} MiB, {tenants_done} of {tenants} tenants",
                mib(bytes_done),
                mib(bytes)
            ));
        }
    }
}
