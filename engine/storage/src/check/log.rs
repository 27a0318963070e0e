//! The log: what a recovery would replay, and the older files that somebody may still read.

use std::sync::Arc;

use super::{Damage, Examination, Finding, Severity, Sound};
use crate::{
    Op, StoreError,
    paths::number,
    store::load::{self, Opened},
    wal::{Break, Replay, Survey, survey, survey_old},
};

impl Examination<'_> {
    /// The state that an opening store would come to. `None` when it would not.
    pub(super) fn log(&mut self, sound: &Sound) -> Option<Opened> {
        self.older_logs(sound.manifest.wal_from);
        let (opened, survey) = match self.replayed(sound) {
            Ok(replayed) => replayed,
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
            let consequence = "nothing is lost: a write was cut short by a crash, and is ignored";
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

    /// What the manifest and the log after it come to, without what is damaged.
    pub(crate) fn replayed(&mut self, sound: &Sound) -> Result<(Opened, Survey), StoreError> {
        let context = Arc::clone(&self.context);
        let mut opened = context.opener().manifest(&sound.manifest)?;
        opened.lost = sound.lost.clone();
        let (from, lsn, end) = (sound.manifest.wal_from, sound.manifest.lsn, self.options.log_end);
        let replay = Replay { log: context.log(), from, lsn, end, limited: false };
        let survey = survey(&replay, |file, lsn, payload| {
            let commit = load::decoded((file, lsn), &payload)?;
            self.clones(&commit.ops, &mut opened.lost);
            opened.apply(context.opener(), None, (file, lsn), commit).map(|_| ())
        })?;
        Ok((opened, survey))
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
            let mut clones = Vec::new();
            let surveyed = survey_old(&self.context.log(), number, &mut |file, lsn, payload| {
                for op in load::decoded((file, lsn), &payload)?.ops {
                    if let Op::Clone { def, source } = op {
                        clones.push((lsn, def, source));
                    }
                }
                Ok(())
            });
            self.old_clones.append(&mut clones);
            match surveyed {
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
