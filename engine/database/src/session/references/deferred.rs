//! Foreign keys that are asked at the commit: DEFERRABLE ones, as INITIALLY DEFERRED and SET CONSTRAINTS say.
//!
//! Kept is what a statement did to keys. Asked at the end, of what is then there: a row that was removed since refers
//! to nothing, and a key that came back was not lost.

use sepal_storage::Snapshot;
use sepal_types::{Error, ForeignKeyDef, Result, SqlState, TableId, UniqueDef};

use super::{Lost, Reference, Referring};
use crate::session::Session;

/// Something to be held against a foreign key later.
#[derive(Clone, Debug)]
pub(in crate::session) struct Deferred {
    child: TableId,
    /// The constraint; it may be gone by then.
    key: TableId,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Refer(Referring),
    Lose(Lost),
}

/// What SET CONSTRAINTS said in this transaction.
#[derive(Clone, Debug, Default)]
pub(in crate::session) struct ConstraintModes {
    all: Option<bool>,
    /// The last one of a constraint counts.
    named: Vec<(TableId, bool)>,
}

impl Deferred {
    pub(super) fn refer(reference: &Reference, rows: Referring) -> Self {
        Self { child: reference.child, key: reference.key.id, what: What::Refer(rows) }
    }

    pub(super) fn lose(reference: &Reference, lost: Lost) -> Self {
        Self { child: reference.child, key: reference.key.id, what: What::Lose(lost) }
    }

    /// Whether it names rows of the table: they must not get other ids until it is asked.
    pub(in crate::session) fn is_about_rows_of(&self, table: TableId) -> bool {
        self.child == table && matches!(self.what, What::Refer(_))
    }
}

impl ConstraintModes {
    pub(super) fn defer(&self, key: &ForeignKeyDef) -> bool {
        let named = self.named.iter().rev().find(|(id, _)| *id == key.id).map(|(_, deferred)| *deferred);
        key.deferrable && named.or(self.all).unwrap_or(key.initially_deferred)
    }

    fn set(&mut self, constraints: Option<Vec<TableId>>, deferred: bool) {
        match constraints {
            None => *self = Self { all: Some(deferred), named: Vec::new() },
            Some(ids) => self.named.extend(ids.into_iter().map(|id| (id, deferred))),
        }
    }
}

impl Session {
    /// Asks what was deferred, before the commit.
    ///
    /// Errors: 23503, and those of waiting for locks.
    pub(in crate::session) async fn settle_deferred(&mut self) -> Result<()> {
        let deferred = std::mem::take(&mut self.open_mut()?.deferred);
        for deferred in deferred {
            self.ask_deferred(deferred).await?;
        }
        Ok(())
    }

    async fn ask_deferred(&mut self, deferred: Deferred) -> Result<()> {
        let latest = self.latest()?;
        let Some(child) = latest.table(deferred.child) else { return Ok(()) };
        let Some(key) = child.def.constraints.foreign_keys.iter().find(|key| key.id == deferred.key) else {
            return Ok(());
        };
        let reference = Reference { child: deferred.child, key: key.clone() };
        match deferred.what {
            What::Lose(lost) => self.refuse_lost(&reference, &lost, false).await,
            What::Refer(referring) => self.look_up_live(&reference, referring).await,
        }
    }

    /// SET CONSTRAINTS; no names mean ALL. The command tag. What is no longer deferred is asked now.
    ///
    /// Errors: 42704, 42809 for a constraint that cannot be deferred, 23503.
    pub(in crate::session) async fn set_constraints(
        &mut self,
        names: Option<&[String]>,
        deferred: bool,
    ) -> Result<String> {
        let tag = "SET CONSTRAINTS".to_owned();
        if !self.open.as_ref().is_some_and(|open| open.explicit) {
            let message = "SET CONSTRAINTS can only be used in transaction blocks";
            self.notice("WARNING", Error::new(SqlState::NoActiveSqlTransaction, message));
            return Ok(tag);
        }
        let view = self.current_view()?;
        let constraints = match names {
            None => None,
            Some(names) => Some(named(&view, &self.environment, names, deferred)?),
        };
        let open = self.open_mut()?;
        open.constraint_modes.set(constraints, deferred);
        if deferred {
            return Ok(tag);
        }
        let waiting = std::mem::take(&mut open.deferred);
        for deferred in waiting {
            if self.is_deferred(&view, &deferred)? {
                self.open_mut()?.deferred.push(deferred);
            } else {
                self.ask_deferred(deferred).await?;
            }
        }
        Ok(tag)
    }

    fn is_deferred(&mut self, view: &Snapshot, deferred: &Deferred) -> Result<bool> {
        let child = view.table(deferred.child);
        let mut keys = child.into_iter().flat_map(|version| &version.def.constraints.foreign_keys);
        let modes = &self.open_mut()?.constraint_modes;
        Ok(keys.any(|key| key.id == deferred.key && modes.defer(key)))
    }
}

/// The foreign keys of these names. Keys of the table itself are immediate, whatever they were declared as.
///
/// Errors: 42704; 42809 for one that is to be deferred and cannot be. Immediate they all can be.
fn named(view: &Snapshot, environment: &str, names: &[String], deferred: bool) -> Result<Vec<TableId>> {
    let mut ids = Vec::new();
    for name in names {
        let tables = || view.tables().filter(move |version| version.def.environment == environment);
        let keys = || tables().flat_map(|version| &version.def.constraints.foreign_keys);
        let found: Vec<_> = keys().filter(|key| key.name == *name).collect();
        let unique = |unique: &UniqueDef| unique.is_constraint() && unique.name == *name;
        if found.is_empty() && tables().any(|version| version.def.uniques.iter().any(unique)) {
            continue;
        }
        if found.is_empty() && !tables().any(|version| version.def.has_constraint(name)) {
            let message = format!("constraint \"{name}\" does not exist");
            return Err(Error::new(SqlState::UndefinedObject, message));
        }
        if deferred && !found.iter().any(|key| key.deferrable) {
            let message = format!("constraint \"{name}\" is not deferrable");
            return Err(Error::new(SqlState::WrongObjectType, message));
        }
        ids.extend(found.iter().map(|key| key.id));
    }
    Ok(ids)
}
