//! How far a job is, on stderr: one line that changes on a terminal, a line per stage elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::ProgressBar;
use sepal_backup::{Progress, Watch};

use super::super::output;

/// How often it is looked at.
pub(super) const GLANCE: Duration = Duration::from_millis(250);

/// What a person sees of a job.
pub(super) struct Display {
    /// `None` where stderr is no terminal.
    bar: Option<ProgressBar>,
    stage: String,
}

impl Display {
    pub(super) fn start() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, stage: String::new() }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_message(describe(progress));
        } else if progress.stage != self.stage && !progress.stage.is_empty() {
            output::talk(&progress.stage);
        }
        self.stage.clone_from(&progress.stage);
    }

    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &Progress) -> String {
    let tenants = match progress.tenants {
        0 => String::new(),
        all => format!(", {} of {all}", progress.tenants_done),
    };
    let moved = match progress.objects {
        0 => String::new(),
        objects => format!(", {objects} objects, {}", super::bytes(progress.bytes)),
    };
    format!("{}{tenants}{moved}", progress.stage)
}

/// Waits for a job and shows how far it is.
pub(super) async fn watched<T>(watch: &Watch, job: impl Future<Output = T>) -> T {
    let mut display = Display::start();
    let mut job = std::pin::pin!(job);
    let done = loop {
        tokio::select! {
            done = &mut job => break done,
            () = tokio::time::sleep(GLANCE) => display.show(&watch.now()),
        }
    };
    display.end();
    done
}
