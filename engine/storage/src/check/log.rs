//! The log: what a recovery would replay, and the older files that somebody may still read.

use super::{Damage, Examination, Finding, Severity, Sound};
use crate::{
    paths::number,
    store::open::Opened,
    wal::{Break, Log, Replay, survey, survey_old},
};

impl Examination<'_> {
    /// The state that an opening store would come to. `None` when it would not.
    pub(super) fn log(&mut self, sound: &Sound) -> Option<Opened> {
        self.older_logs(sound.manifest.wal_from);
        let mut opened = match self.context.read_manifest(&sound.manifest) {
            Ok(opened) => opened,
            Err(error) => {
                self.failed(&error, "the tenant does not open", None);
                return None;
            }
        };
        opened.lost = sound.lost.clone();
        let found = survey(&self.replay(sound), |file, lsn, payload| opened.replay(file, lsn, &payload));
        let survey = match found {
            Ok(survey) => survey,
            Err(error) => {
                self.failed(&error, "the tenant does not open", None);
                return None;
            }
        };
        self.checked.files += survey.files;
        self.checked.bytes += survey.bytes;
        self.observer.read(survey.bytes);
        (self.checked.commits, self.checked.lsn) = (survey.commits, survey.lsn);
        if let Some(tail) = survey.tail {
            let what = format!("{} bytes from byte {} on were never acknowledged", tail.bytes, tail.offset);
            let consequence = "none: a write was cut short by a crash, and is ignored";
            self.found(Finding::new(Severity::Info, tail.name, what, consequence));
        }
        match survey.broken {
            None => Some(opened),
            Some(broken) => {
                self.broken(&broken);
                None
            }
        }
    }

    pub(crate) fn replay<'b>(&'b self, sound: &Sound) -> Replay<'b> {
        let (from, lsn) = (sound.manifest.wal_from, sound.manifest.lsn);
        Replay { log: self.files(), from, lsn, end: self.options.log_end }
    }

    fn files(&self) -> Log<'_> {
        let context = &self.context;
        Log { disk: &context.disk, paths: &context.paths, tenant: context.tenant, keys: &context.keys }
    }

    fn broken(&mut self, broken: &Break) {
        let Break { number, offset, after, error, later, last_later } = broken;
        let lost = match last_later {
            Some(last) => format!("of those behind it {later} at least were there, up to commit {last}"),
            None => "whether there were any behind it is not known".to_owned(),
        };
        let consequence = format!("the tenant does not open; commits up to {after} can be read, {lost}");
        let damage = Damage::Log {
            number: *number,
            offset: *offset,
            after: *after,
            later: *later,
            last_later: *last_later,
        };
        self.failed(error, consequence, Some(damage));
    }

    /// Files from before the manifest, which pipelines and the past may hold.
    fn older_logs(&mut self, from: u64) {
        // A directory that cannot be listed is told when the log itself is read.
        let names = self.context.disk.list(&self.context.paths.wal()).unwrap_or_default();
        for number in names.iter().filter_map(|name| number(name, "wal")).filter(|number| *number < from) {
            match survey_old(&self.files(), number) {
                Ok(bytes) => self.read(bytes),
                Err(error) => {
                    let consequence =
                        "no row is lost: only pipelines that have not read it yet, and the past, need it";
                    self.failed(&error, consequence, Some(Damage::OldLog { number }));
                }
            }
        }
    }
}
