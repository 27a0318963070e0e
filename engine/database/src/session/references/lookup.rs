//! Looking rows up for a foreign key: those that are referred to by their key, those that refer by a look at all.

use arrow::array::{ArrayRef, BooleanArray};
use roaring::RoaringTreemap;
use sepal_query::{
    dml::references::{at_places, in_order_of, keys_as, missing, mixed, picked, still_referenced},
    locking::{RowMode, WaitPolicy},
};
use sepal_storage::{Op, Snapshot, TableVersion};
use sepal_types::{Error, Result, RowId, TableDef, TableId, UniqueDef};

use super::{Lost, Reference, Referring};
use crate::{
    blocking::blocking,
    locks::TableMode,
    session::{
        Session,
        locking::{Claim, Claimed},
    },
};

/// Looked through on the spot: within a millisecond.
const FEW_ROWS: u64 = 10_000;

impl Session {
    /// [`Self::look_up_parents`] for those of the rows that are there still. One that was replaced since, be it by an
    /// action of the same statement, is asked about in its newest version.
    ///
    /// Errors: 23503, 40001.
    pub(super) async fn look_up_live(&mut self, reference: &Reference, referring: Referring) -> Result<()> {
        let latest = self.latest()?;
        let Some(child) = referring_table(&latest, reference) else { return Ok(()) };
        if child.absent(&referring.mixed)?.len() < referring.mixed.len() {
            return Err(mixed(&child.def, &reference.key));
        }
        let gone = child.absent(&referring.rows)?;
        if gone.len() == referring.rows.len() {
            return Ok(());
        }
        if gone.is_empty() {
            return self.look_up_parents(reference, &referring.keys).await;
        }
        let live: Vec<bool> = referring.rows.iter().map(|row| gone.binary_search(row).is_err()).collect();
        let keys = picked(&referring.keys, &BooleanArray::from(live))?;
        self.look_up_parents(reference, &keys).await
    }

    /// Keys must have a row to refer to, which stays there until this transaction ends.
    ///
    /// Errors: 23503, 40001 where a REPEATABLE READ transaction still sees one that is gone.
    async fn look_up_parents(&mut self, reference: &Reference, keys: &[ArrayRef]) -> Result<()> {
        let key = &reference.key;
        self.lock_table(key.parent, TableMode::RowShare).await?;
        // Before the snapshot: whatever is replaced from now on can be followed.
        let _watch = self.watches.begin(&self.tenant.updates);
        loop {
            let seen = self.seen_now()?;
            let child = definition(&seen, reference.child)?;
            let parent = version(&seen, key.parent)?;
            let found = keys_found(parent, reference, keys)?;
            if let Some(row) = found.iter().position(Option::is_none) {
                return Err(missing(child, key, &parent.def, keys, row));
            }
            let rows: RoaringTreemap = found.iter().flatten().map(|row| row.0).collect();
            let claim =
                Claim { table: key.parent, mode: RowMode::KeyShare, write: false, wait: WaitPolicy::Wait };
            match self.claim(claim, rows).await? {
                Claimed::Current => return Ok(()),
                // Whether what took its place has the key is to be seen.
                Claimed::Moved(_) => {}
                Claimed::Taken(_) => return Err(Error::bug("rows to be waited for were passed over")),
            }
        }
    }

    /// Nothing may refer to keys that went; unless `strict`, keys that another row has by now did not.
    ///
    /// Errors: 23503.
    pub(super) async fn refuse_lost(
        &mut self,
        reference: &Reference,
        lost: &Lost,
        strict: bool,
    ) -> Result<()> {
        let key = &reference.key;
        self.lock_table(reference.child, TableMode::RowShare).await?;
        loop {
            let latest = self.latest()?;
            let Some(child) = referring_table(&latest, reference) else { return Ok(()) };
            let parent = version(&latest, key.parent)?;
            let mut old = lost.old.clone();
            if !strict {
                let found = keys_found_in(parent, reference, &old, parent_key(parent, reference)?)?;
                let places: Vec<usize> = (0..found.len()).filter(|place| found[*place].is_none()).collect();
                old = at_places(&old, &places)?;
            }
            let referring = rows_referring(child, reference, &old).await?;
            let Some((place, _)) = referring.first() else { return Ok(()) };
            let refusal = still_referenced(&child.def, key, &parent.def, &old, *place);
            let rows: Vec<RowId> = referring.iter().map(|(_, row)| *row).collect();
            if self.has_own(reference.child, &rows) || !self.await_writers(reference.child, &rows).await? {
                return Err(refusal);
            }
        }
    }

    /// What a look-up of rows that are referred to sees: the transaction's snapshot, which READ COMMITTED takes anew.
    fn seen_now(&mut self) -> Result<Snapshot> {
        let head = self.tenant.store.snapshot();
        let open = self.open_mut()?;
        open.refresh(head)?;
        Ok(open.view()?.clone())
    }

    /// Whether one of these rows is of this transaction: nobody else can be removing it.
    fn has_own(&self, table: TableId, rows: &[RowId]) -> bool {
        let ops = self.open.iter().flat_map(|open| &open.ops);
        let mut inserted = ops.filter_map(|op| match op {
            Op::Insert { table: of, first_row, rows } if *of == table => {
                Some(first_row.0..first_row.0 + rows.num_rows() as u64)
            }
            _ => None,
        });
        inserted.any(|own| rows.iter().any(|row| own.contains(&row.0)))
    }
}

/// The rows that refer to keys of the referenced columns, each after the place of its key; ascending. Looks at all
/// rows, of large tables off the threads that serve connections.
pub(super) async fn rows_referring(
    child: &TableVersion,
    reference: &Reference,
    keys: &[ArrayRef],
) -> Result<Vec<(usize, RowId)>> {
    let columns = reference.key.columns.clone();
    let keys = keys_as(keys, &child.def, &columns)?;
    if child.live_rows() <= FEW_ROWS {
        return Ok(child.rows_referring(&columns, &keys)?);
    }
    let child = child.clone();
    blocking("looking for rows that refer", move || Ok(child.rows_referring(&columns, &keys)?)).await
}

/// The row that has each key of the referring columns; `None` where there is none.
pub(super) fn keys_found(
    parent: &TableVersion,
    reference: &Reference,
    keys: &[ArrayRef],
) -> Result<Vec<Option<RowId>>> {
    let keys = keys_as(keys, &parent.def, &reference.key.parent_columns)?;
    keys_found_in(parent, reference, &keys, parent_key(parent, reference)?)
}

/// The same for keys of the referenced columns.
fn keys_found_in(
    parent: &TableVersion,
    reference: &Reference,
    keys: &[ArrayRef],
    unique: &UniqueDef,
) -> Result<Vec<Option<RowId>>> {
    Ok(parent.lookup_unique(unique, &in_order_of(unique, &reference.key, keys)?)?)
}

fn parent_key<'v>(parent: &'v TableVersion, reference: &Reference) -> Result<&'v UniqueDef> {
    let unique = parent.def.uniques.iter().find(|unique| unique.id == reference.key.key);
    unique.ok_or_else(|| {
        let name = &reference.key.name;
        Error::bug(format!("foreign key \"{name}\" refers to a key that \"{}\" has not", parent.def.name))
    })
}

pub(super) fn version(snapshot: &Snapshot, table: TableId) -> Result<&TableVersion> {
    match snapshot.table(table) {
        Some(version) => Ok(version),
        None => Err(Error::bug(format!("a foreign key has a table {table} that is not there"))),
    }
}

/// The table that refers, if it does still: somebody may have dropped the constraint before its table was locked.
pub(super) fn referring_table<'s>(snapshot: &'s Snapshot, reference: &Reference) -> Option<&'s TableVersion> {
    let child: &TableVersion = snapshot.table(reference.child)?;
    let mut keys = child.def.constraints.foreign_keys.iter();
    keys.any(|key| key.id == reference.key.id).then_some(child)
}

fn definition(snapshot: &Snapshot, table: TableId) -> Result<&TableDef> {
    version(snapshot, table).map(|version| version.def.as_ref())
}
