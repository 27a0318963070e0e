//! The directory that a restore fills: taken empty, marked until everything is durable, and given back as it was where
//! nothing of a tenant came.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sepal_database::{Error, Result, SqlState, backup::UNFINISHED};

use crate::{identity, repository::failed};

/// What a restore lays down before the first tenant's files. The mark goes last: without it the rest would pass for a
/// directory that can be served.
const BEFORE_TENANTS: [&str; 7] =
    ["tenants", "control.db-wal", "control.db-shm", "control.db-journal", "control.db", "root.key", "lock"];

/// See the module.
pub(super) struct Place {
    path: PathBuf,
    /// It was not there before.
    made: bool,
}

impl Place {
    /// Makes the directory, or takes an empty one, and marks it. Errors: 55000 it is not empty.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let show = path.display().to_string();
        let made = match fs::read_dir(path) {
            Ok(mut entries) => {
                if let Some(entry) = entries.next() {
                    let name = entry.map(|entry| entry.file_name().display().to_string()).unwrap_or_default();
                    return Err(not_empty(&show, &name));
                }
                // As of one that is made here: what comes into it is nobody else's.
                let private = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
                private.map_err(|error| failed("change the mode of", &show, &error))?;
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
                made.map_err(|error| failed("make", &show, &error))?;
                true
            }
            Err(error) => return Err(failed("read", &show, &error)),
        };
        let place = Self { path: path.to_owned(), made };
        let marked = identity::write(&path.join(UNFINISHED), b"This restore has not ended.\n");
        marked.map_err(|error| failed("write in", &show, &error))?;
        Ok(place)
    }

    /// Takes the mark off, when everything is durable.
    pub(super) fn finish(&self) -> Result<()> {
        let done = sync_tree(&self.path)
            .and_then(|()| fs::remove_file(self.path.join(UNFINISHED)))
            .and_then(|()| fs::File::open(&self.path)?.sync_all());
        done.map_err(|error| failed("finish", &self.path.display().to_string(), &error))
    }

    /// After a restore that failed: where no tenant's files came, such as with a wrong recovery key, nothing stays that
    /// would be in the way of the next try. What a tenant has stays, under its mark, for whoever looks for the cause.
    pub(super) fn give_back(self) {
        if let Err(error) = self.clear() {
            let path = self.path.display();
            tracing::debug!(%error, %path, "what a failed restore made stays");
        }
    }

    fn clear(&self) -> io::Result<()> {
        for name in BEFORE_TENANTS {
            let path = self.path.join(name);
            // A directory that is not empty refuses, and then everything else stays as well.
            let removed = if name == "tenants" { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_file(self.path.join(UNFINISHED))?;
        if self.made { fs::remove_dir(&self.path) } else { Ok(()) }
    }
}

fn not_empty(path: &str, holds: &str) -> Error {
    Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!("{path} is not empty (it holds {holds}): nothing was restored"),
    )
    .with_hint(
        "Name a new or empty directory with --to. One with restore.unfinished in it is of a restore that did not end: \
         remove it first.",
    )
}

/// Makes the names in a directory and below it durable; files are already.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_as_it_was_unless_a_tenant_came() {
        let work = tempfile::tempdir().unwrap();
        let to = work.path().join("data");
        let begun = || {
            let place = Place::take(&to).unwrap();
            for name in ["root.key", "control.db", "lock"] {
                fs::write(to.join(name), name).unwrap();
            }
            fs::create_dir(to.join("tenants")).unwrap();
            place
        };
        begun().give_back();
        assert!(!to.exists(), "it was not there before");

        fs::create_dir(&to).unwrap();
        begun().give_back();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "it was there, and empty");

        let place = begun();
        fs::create_dir(to.join("tenants/somebody")).unwrap();
        place.give_back();
        assert!(to.join(UNFINISHED).exists() && to.join("control.db").exists());
        let refused = Place::take(&to).map(drop).unwrap_err();
        assert_eq!(refused.state(), SqlState::ObjectNotInPrerequisiteState);
    }
}
