//! A transaction: what it read from, what it did, and how it sees that itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{array::AsArray, datatypes::Int64Type};
use sepal_types::{ColumnId, IndexDef, TableDef, TableId};

use super::{
    dice::Dice,
    model::{Change, Refusal, Row, State, Table},
    rows::{Trouble, added, clone_definition, compare, definition, op, with_column},
};
use crate::{Op, Snapshot, TenantStore};

/// Keys are few, so that transactions meet.
const KEYS: u64 = 40;
/// Names too.
const NAMES: [&str; 5] = ["ant", "bee", "cow", "dog", "elk"];
/// Bytes of a row that does not fit a frame.
const LARGE_LABEL: usize = 2_000_000;

pub(super) struct Session {
    pub base: Snapshot,
    pub base_state: Arc<State>,
    /// With its own changes, as the store and as the model see it.
    view: Snapshot,
    view_state: State,
    pub changes: Vec<Change>,
    pub ops: Vec<Op>,
    /// How much upkeep the store had seen when the session first cloned a table.
    cloned_at: Option<u64>,
}

/// What changes a run is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taste {
    /// Rows of megabytes, so that a commit is several frames.
    pub large: bool,
    /// One table, many deletes, few inserts: segments that stay and are deleted from.
    pub deleting: bool,
}

impl Taste {
    /// Room for clones, too.
    pub(super) const fn most_tables(self) -> usize {
        if self.deleting { 2 } else { 4 }
    }
}

impl Session {
    pub(super) fn begin(base: Snapshot, base_state: Arc<State>) -> Self {
        let (view, view_state) = (base.clone(), (*base_state).clone());
        Self { base, base_state, view, view_state, changes: Vec::new(), ops: Vec::new(), cloned_at: None }
    }

    /// Does one more thing. `Err` is a violation.
    pub(super) fn act(
        &mut self,
        store: &TenantStore,
        dice: &mut Dice,
        taste: Taste,
    ) -> Result<String, Trouble> {
        for change in self.invent(store, dice, taste)? {
            self.apply(change)?;
        }
        Ok(self.changes.last().map_or_else(|| "nothing".to_owned(), told))
    }

    /// Makes a table of another one's rows: of one that it sees itself, or as `from` has it.
    pub(super) fn clone_table(
        &mut self,
        store: &TenantStore,
        from: Option<(Snapshot, Arc<State>)>,
        upkeep: u64,
        dice: &mut Dice,
    ) -> Result<String, Trouble> {
        let counted_now = from.is_none();
        let (snapshot, state) =
            from.unwrap_or_else(|| (self.view.clone(), Arc::new(self.view_state.clone())));
        let tables: Vec<&Arc<Table>> = state.tables.values().collect();
        let Some(source) = tables.get(dice.index(tables.len())) else { return Ok("no table".to_owned()) };
        let name = NAMES[dice.index(NAMES.len())];
        let def = clone_definition(self.new_table(store)?, name, &source.def);
        let ops = store.clone_ops(&snapshot, source.def.id, def.clone())?;
        if counted_now {
            check_serial(&ops, store.peek_sequence(source.def.id, ColumnId(1)))?;
        }
        self.cloned_at = self.cloned_at.or(Some(upkeep));
        let changes = clone_changes(source, def, ops)?;
        let what = changes.first().map(|(change, _)| told(change)).unwrap_or_default();
        for (change, op) in changes {
            if !self.apply_op(change, op)? {
                return Ok(format!("not to {what}"));
            }
        }
        Ok(what)
    }

    /// Whether a conflict of this table's clone may be the store's upkeep since: a file that it was to share is gone, or
    /// the key that it names that under.
    pub(super) fn may_lose_clone(&self, table: &str, upkeep: u64) -> bool {
        let is_it = |change: &Change| matches!(change, Change::Clone(made) if made.def.name == table);
        self.cloned_at.is_some_and(|at| at < upkeep) && self.changes.iter().any(is_it)
    }

    pub(super) fn tables(&self) -> usize {
        self.view_state.tables.len()
    }

    /// One row less, where a table has one.
    pub(super) fn delete_one(&mut self, dice: &mut Dice) -> Result<(), Trouble> {
        let tables: Vec<TableId> = self.view_state.tables.keys().copied().collect();
        let Some(table) = tables.get(dice.index(tables.len())) else { return Ok(()) };
        match self.delete(*table, 1, dice) {
            Some(change) => self.apply(change),
            None => Ok(()),
        }
    }

    /// Whether its commit is several frames.
    pub(super) fn is_large(&self) -> bool {
        let large = |row: &Row| row.label.len() >= LARGE_LABEL;
        self.changes
            .iter()
            .any(|change| matches!(change, Change::Insert { rows, .. } if rows.iter().any(large)))
    }

    /// Whether it sees what it did.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        compare(&self.view, &self.view_state)
    }

    fn apply(&mut self, change: Change) -> Result<(), Trouble> {
        let def = self.view_state.tables.get(&change.table()).map(|table| table.def.clone());
        let op = op(&change, def.as_ref());
        self.apply_op(change, op).map(drop)
    }

    /// In the transaction's own view: what the model refuses the store refuses too, and such a change is dropped.
    /// Whether it was not.
    fn apply_op(&mut self, change: Change, op: Op) -> Result<bool, Trouble> {
        let mut next = self.view_state.clone();
        match (next.apply(&change), self.view.apply(&op)) {
            (Ok(()), Ok(view)) => {
                (self.view, self.view_state) = (view, next);
                self.changes.push(change);
                self.ops.push(op);
                Ok(true)
            }
            (Err(expected), Err(found)) if Refusal::of(&found) == Some(expected) => Ok(false),
            (_, Err(found)) if Refusal::of(&found).is_none() => Err(Trouble::Store(found)),
            (expected, found) => {
                let found = found.map(|_| ());
                Err(Trouble::Wrong(format!("{} gave {found:?}, expected {expected:?}", told(&change))))
            }
        }
    }

    fn invent(&self, store: &TenantStore, dice: &mut Dice, taste: Taste) -> Result<Vec<Change>, Trouble> {
        let tables: Vec<TableId> = self.view_state.tables.keys().copied().collect();
        if tables.is_empty() || (tables.len() < 3 && !taste.deleting && dice.once_in(8)) {
            return self.create(store, dice);
        }
        let table = tables[dice.index(tables.len())];
        if taste.deleting && dice.once_in(2) {
            return Ok(self.delete(table, 1, dice).into_iter().collect());
        }
        Ok(match dice.below(24) {
            0 => vec![Change::Drop(table)],
            1 if !self.view_state.tables[&table].def.captured => vec![Change::Truncate(table)],
            2 | 3 => vec![self.alter(store, table, dice)],
            4 => {
                let next = i64::try_from(dice.below(100)).unwrap_or(0);
                vec![Change::SetSequence { table, next }]
            }
            5..=10 => self.delete(table, 3, dice).into_iter().collect(),
            11..=15 => self.update(store, table, dice)?,
            _ => {
                let many = 1 + dice.below(6);
                let rows = (0..many).map(|_| self.row(table, None, dice, taste)).collect();
                vec![self.insert(store, table, rows)?]
            }
        })
    }

    fn create(&self, store: &TenantStore, dice: &mut Dice) -> Result<Vec<Change>, Trouble> {
        let id = self.new_table(store)?;
        let name = NAMES[dice.index(NAMES.len())];
        Ok(vec![Change::Create(definition(id, name, dice.once_in(4)))])
    }

    fn new_table(&self, store: &TenantStore) -> Result<TableId, Trouble> {
        let id = store.next_object_id();
        // For its constraint and its index: one after the other, nobody else draws meanwhile.
        let _ = (store.next_object_id(), store.next_object_id());
        if self.view_state.tables.contains_key(&id) {
            return Err(Trouble::Wrong(format!("table id {id} was given a second time")));
        }
        Ok(id)
    }

    fn alter(&self, store: &TenantStore, table: TableId, dice: &mut Dice) -> Change {
        let mut def = self.view_state.tables[&table].def.clone();
        match dice.below(4) {
            0 => {
                let name = NAMES[dice.index(NAMES.len())];
                name.clone_into(&mut def.name);
            }
            1 if !added(&def).is_empty() => {
                def.columns.pop();
            }
            2 => match def.indexes.pop() {
                Some(_) => {}
                None => {
                    let mut made = definition(table, &def.name, false).indexes.remove(0);
                    made.id = store.next_object_id();
                    made.name = format!("{}_again_{}", def.name, made.id);
                    def.indexes.push(made);
                }
            },
            _ => {
                let missing = dice.once_in(2).then_some(7);
                def = with_column(&def, missing);
            }
        }
        Change::Alter(def)
    }

    fn delete(&self, table: TableId, most: u64, dice: &mut Dice) -> Option<Change> {
        let rows: Vec<u64> = self.view_state.tables[&table].rows.keys().copied().collect();
        let from = dice.index(rows.len());
        let count = usize::try_from(1 + dice.below(most)).unwrap_or(1);
        let rows: Vec<u64> = rows.into_iter().skip(from).step_by(2).take(count).collect();
        (!rows.is_empty()).then_some(Change::Delete { table, rows })
    }

    /// A row under its old key.
    fn update(&self, store: &TenantStore, table: TableId, dice: &mut Dice) -> Result<Vec<Change>, Trouble> {
        let rows: Vec<(u64, i64)> =
            self.view_state.tables[&table].rows.iter().map(|(row, content)| (*row, content.id)).collect();
        let Some((row, id)) = rows.get(dice.index(rows.len())).copied() else { return Ok(Vec::new()) };
        let taste = Taste { large: false, deleting: false };
        let content = self.row(table, Some(id), dice, taste);
        let insert = self.insert(store, table, vec![content])?;
        Ok(vec![Change::Delete { table, rows: vec![row] }, insert])
    }

    fn insert(&self, store: &TenantStore, table: TableId, rows: Vec<Row>) -> Result<Change, Trouble> {
        store.next_sequence(table, ColumnId(1), rows.len() as u64);
        let first_row = store.reserve_rows(table, rows.len() as u64).0;
        let used = &self.view_state.tables[&table].used;
        if used.range(first_row..first_row + rows.len() as u64).next().is_some() {
            return Err(Trouble::Wrong(format!("row ids from {first_row} on are given a second time")));
        }
        Ok(Change::Insert { table, first_row, rows })
    }

    fn row(&self, table: TableId, key: Option<i64>, dice: &mut Dice, taste: Taste) -> Row {
        let id = key.unwrap_or_else(|| i64::try_from(dice.below(KEYS)).unwrap_or(0));
        let mark = dice.below(1 << 16);
        let label = if taste.large && dice.once_in(16) {
            format!("{id} as {mark:04x} {}", "x".repeat(LARGE_LABEL))
        } else {
            format!("{id} as {mark:04x}")
        };
        let columns = added(&self.view_state.tables[&table].def);
        let value = |dice: &mut Dice| (!dice.once_in(4)).then(|| i64::try_from(dice.below(50)).unwrap_or(0));
        let more: BTreeMap<u32, Option<i64>> =
            columns.iter().map(|column| (column.id.0, value(dice))).collect();
        Row { id, label: label.into(), more }
    }
}

/// A clone's serial goes on from where its source's is.
fn check_serial(ops: &[Op], source: i64) -> Result<(), Trouble> {
    let set = ops.iter().find_map(|op| match op {
        Op::SetSequence { next, .. } => Some(*next),
        _ => None,
    });
    // Where nobody has counted there is nothing to be set.
    if set.unwrap_or(1) == source {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("a clone's serial begins at {set:?}, its source's is at {source}")))
}

/// A clone's ops as changes: the rows that it copies are told by their keys, all others it shares.
fn clone_changes(source: &Table, def: TableDef, ops: Vec<Op>) -> Result<Vec<(Change, Op)>, Trouble> {
    let wrong = |what: &str| Trouble::Wrong(format!("a clone of table {} {what}", source.def.id));
    let by_key: BTreeMap<i64, &Row> = source.rows.values().map(|row| (row.id, row)).collect();
    let id = def.id;
    let mut made = Table { rows: source.rows.clone(), kin: kin(source, &def), ..Table::new(def) };
    let mut ops = ops.into_iter();
    let Some(first @ Op::Clone { .. }) = ops.next() else { return Err(wrong("does not begin with itself")) };
    let mut changes = Vec::new();
    for op in ops {
        let change = match &op {
            Op::Insert { first_row, rows, .. } => {
                let keys = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                let copied: Option<Vec<Row>> =
                    keys.iter().map(|key| by_key.get(key).copied().cloned()).collect();
                made.rows.retain(|_, row| !keys.contains(&row.id));
                let rows = copied.ok_or_else(|| wrong("copies rows that are not there"))?;
                Change::Insert { table: id, first_row: first_row.0, rows }
            }
            Op::SetSequence { next, .. } => Change::SetSequence { table: id, next: *next },
            other => return Err(wrong(&format!("consists of {other:?}"))),
        };
        changes.push((change, op));
    }
    made.used = made.rows.keys().copied().collect();
    changes.insert(0, (Change::Clone(Arc::new(made)), first));
    Ok(changes)
}

/// Whose bytes the clone's indexes begin with.
fn kin(source: &Table, def: &TableDef) -> BTreeMap<TableId, BTreeSet<TableId>> {
    let of = |own: &IndexDef| {
        let from = source.def.indexes.iter().find(|index| index.columns == own.columns)?;
        let older = source.kin.get(&from.id).into_iter().flatten();
        let kin: BTreeSet<TableId> = std::iter::once(&from.id).chain(older).copied().collect();
        Some((own.id, kin))
    };
    def.indexes.iter().filter_map(of).collect()
}

/// A change in a few words.
pub(super) fn told(change: &Change) -> String {
    let table = change.table();
    match change {
        Change::Create(def) => format!("create {table} \"{}\"", def.name),
        Change::Clone(made) => {
            format!("clone into {table} \"{}\" sharing {} rows", made.def.name, made.rows.len())
        }
        Change::Alter(def) => {
            format!(
                "alter {table} \"{}\" {} columns {} indexes",
                def.name,
                def.columns.len(),
                def.indexes.len()
            )
        }
        Change::Drop(_) => format!("drop {table}"),
        Change::Truncate(_) => format!("truncate {table}"),
        Change::Insert { first_row, rows, .. } => {
            let keys: Vec<i64> = rows.iter().map(|row| row.id).collect();
            format!("insert into {table} from row {first_row} keys {keys:?}")
        }
        Change::Delete { rows, .. } => format!("delete from {table} rows {rows:?}"),
        Change::SetSequence { next, .. } => format!("set the serial of {table} to {next}"),
    }
}
