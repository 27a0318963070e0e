//! Numbers that must not repeat: object ids, row ids, serials.
//!
//! Handed out in memory, without a write. They become durable with what uses them: object and row ids are found
//! again in the ops that carry them, a serial's value is logged with the next commit. What was handed out but
//! never committed may be handed out again after a crash; nobody can have seen it in a committed row.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
};

use parking_lot::Mutex;
use sepal_types::{ColumnId, RowId, TableDef, TableId, limits::FIRST_OBJECT_ID};

use crate::{Op, ops::SequenceMark};

/// All counters of a tenant.
pub(crate) struct Counters {
    state: Mutex<State>,
}

/// A copy for a manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct CounterValues {
    pub next_object: u32,
    pub next_rows: HashMap<TableId, RowId>,
    pub sequences: Vec<(TableId, ColumnId, i64)>,
}

#[derive(Default)]
struct State {
    next_object: u32,
    next_rows: HashMap<TableId, u64>,
    sequences: BTreeMap<(TableId, ColumnId), Sequence>,
    /// Sequences of their own that have counted since the store was opened.
    apart: BTreeSet<(TableId, ColumnId)>,
    /// Those of them that are ahead of the log.
    ahead: BTreeSet<(TableId, ColumnId)>,
}

/// `next` is handed out next; `logged` is what the log would give after a crash.
#[derive(Clone, Copy)]
struct Sequence {
    next: i64,
    logged: i64,
}

const FIRST_ROW: u64 = 1;
const FRESH: Sequence = Sequence { next: FIRST_NUMBER, logged: FIRST_NUMBER };
/// Of a sequence that was told no other.
pub(crate) const FIRST_NUMBER: i64 = 1;

impl Counters {
    pub(crate) fn new(values: &CounterValues) -> Self {
        let logged = |value: i64| Sequence { next: value, logged: value };
        let state = State {
            next_object: values.next_object.max(FIRST_OBJECT_ID),
            next_rows: values.next_rows.iter().map(|(table, row)| (*table, row.0)).collect(),
            sequences: values
                .sequences
                .iter()
                .map(|(table, column, next)| ((*table, *column), logged(*next)))
                .collect(),
            apart: BTreeSet::new(),
            ahead: BTreeSet::new(),
        };
        Self { state: Mutex::new(state) }
    }

    pub(crate) fn next_object(&self) -> TableId {
        let mut state = self.state.lock();
        let id = state.next_object;
        state.next_object = id.saturating_add(1);
        TableId(id)
    }

    /// The first of `n` row ids.
    pub(crate) fn reserve_rows(&self, table: TableId, n: u64) -> RowId {
        let mut state = self.state.lock();
        let next = state.next_rows.entry(table).or_insert(FIRST_ROW);
        let first = *next;
        *next = first.saturating_add(n);
        RowId(first)
    }

    /// What each table's next row would be. Nothing of a table that never had a row.
    pub(crate) fn row_ends(&self) -> HashMap<TableId, RowId> {
        self.state.lock().row_ends()
    }

    /// The table's row ids go on from `next` at least. A clone's: its transaction inserts into it before the commit says
    /// which rows it has.
    pub(crate) fn skip_rows(&self, table: TableId, next: RowId) {
        let mut state = self.state.lock();
        let counted = state.next_rows.entry(table).or_insert(FIRST_ROW);
        *counted = (*counted).max(next.0);
    }

    /// The first of `n` values.
    pub(crate) fn next_sequence(&self, table: TableId, column: ColumnId, n: u64) -> i64 {
        let mut state = self.state.lock();
        let sequence = state.sequences.entry((table, column)).or_insert(FRESH);
        let first = sequence.next;
        sequence.next = first.saturating_add(i64::try_from(n).unwrap_or(i64::MAX));
        first
    }

    /// The same of a sequence of its own. Whichever table its numbers are for: the next commit logs them.
    pub(crate) fn next_apart(&self, table: TableId, column: ColumnId, n: u64) -> i64 {
        let first = self.next_sequence(table, column, n);
        let mut state = self.state.lock();
        state.apart.insert((table, column));
        state.ahead.insert((table, column));
        first
    }

    /// The value that [`Self::next_sequence`] would give, without taking it.
    pub(crate) fn peek_sequence(&self, table: TableId, column: ColumnId) -> i64 {
        self.state.lock().sequences.get(&(table, column)).map_or(FRESH.next, |sequence| sequence.next)
    }

    /// The serials of the tables that `ops` insert into, and all sequences of their own, where they are ahead of the
    /// log. Marks them logged.
    pub(crate) fn take_unlogged(&self, ops: &[Op]) -> Vec<SequenceMark> {
        let mut state = self.state.lock();
        let mut marks: Vec<SequenceMark> = Vec::new();
        for (table, column) in std::mem::take(&mut state.ahead) {
            let Some(sequence) = state.sequences.get_mut(&(table, column)) else { continue };
            if sequence.next > sequence.logged {
                sequence.logged = sequence.next;
                marks.push(SequenceMark { table, column, next: sequence.next });
            }
        }
        for op in ops {
            let Op::Insert { table, .. } = op else { continue };
            for ((table, column), sequence) in state.sequences.range_mut(of_table(*table)) {
                if sequence.next > sequence.logged {
                    sequence.logged = sequence.next;
                    marks.push(SequenceMark { table: *table, column: *column, next: sequence.next });
                }
            }
        }
        marks.sort_by_key(|mark| (mark.table, mark.column));
        marks
    }

    /// A group was rolled back: nothing that it marked is in the log.
    pub(crate) fn forget_logged(&self) {
        let mut state = self.state.lock();
        state.sequences.values_mut().for_each(|sequence| sequence.logged = i64::MIN);
        state.ahead = state.apart.clone();
    }

    /// What a durable commit says about the counters. Also called for each replayed one.
    pub(crate) fn committed(&self, marks: &[SequenceMark], ops: &[Op]) {
        let mut state = self.state.lock();
        for mark in marks {
            let sequence = state.sequences.entry((mark.table, mark.column)).or_insert(FRESH);
            sequence.next = sequence.next.max(mark.next);
        }
        for op in ops {
            match op {
                Op::CreateTable(def) | Op::AlterTable(def) | Op::Clone { def, .. } => {
                    state.next_object = state.next_object.max(after_ids(def));
                    if let Op::Clone { source, .. } = op {
                        let next = state.next_rows.entry(def.id).or_insert(FIRST_ROW);
                        *next = (*next).max(source.next_row.0);
                    }
                }
                Op::Insert { table, first_row, rows } => {
                    let after = first_row.0.saturating_add(rows.num_rows() as u64);
                    let next = state.next_rows.entry(*table).or_insert(FIRST_ROW);
                    *next = (*next).max(after);
                }
                Op::SetSequence { table, column, next } => {
                    state.sequences.insert((*table, *column), Sequence { next: *next, logged: *next });
                }
                Op::DropTable(gone) => {
                    // Its row ids count on until the store is opened again: a transaction that still sees the table may
                    // write to its own view of it, where no id may come twice.
                    state.sequences.retain(|(table, _), _| table != gone);
                    state.apart.retain(|(table, _)| table != gone);
                    state.ahead.retain(|(table, _)| table != gone);
                }
                Op::Truncate(_) | Op::Delete { .. } => {}
            }
        }
    }

    /// The serials of a table that have counted, with their next values.
    pub(crate) fn sequences_of(&self, table: TableId) -> Vec<(ColumnId, i64)> {
        let state = self.state.lock();
        let own = state.sequences.range(of_table(table));
        own.map(|((_, column), sequence)| (*column, sequence.next)).collect()
    }

    pub(crate) fn values(&self) -> CounterValues {
        let state = self.state.lock();
        let sequences = state
            .sequences
            .iter()
            .map(|((table, column), sequence)| (*table, *column, sequence.next))
            .collect();
        CounterValues { next_object: state.next_object, next_rows: state.row_ends(), sequences }
    }
}

impl State {
    fn row_ends(&self) -> HashMap<TableId, RowId> {
        self.next_rows.iter().map(|(table, row)| (*table, RowId(*row))).collect()
    }
}

/// The places of a table's serials.
fn of_table(table: TableId) -> RangeInclusive<(TableId, ColumnId)> {
    (table, ColumnId(0))..=(table, ColumnId(u32::MAX))
}

/// Above the ids of a table and of all that is its own.
pub(crate) fn after_ids(def: &TableDef) -> u32 {
    let uniques = def.uniques.iter().map(|unique| unique.id);
    let indexes = def.indexes.iter().map(|index| index.id);
    let checks = def.constraints.checks.iter().map(|check| check.id);
    let foreign_keys = def.constraints.foreign_keys.iter().map(|key| key.id);
    let labels = def.enum_type().into_iter().flat_map(|ty| {
        let labels = ty.labels.iter().map(|label| label.id);
        std::iter::once(ty.array).chain(labels)
    });
    let ids = std::iter::once(def.id).chain(uniques).chain(indexes).chain(checks).chain(foreign_keys);
    ids.chain(labels).map(|id| id.0.saturating_add(1)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use sepal_types::{CheckDef, EnumDef, ForeignKeyDef, ReferenceAction};

    use super::*;
    use crate::fixtures::items;

    #[test]
    fn serials_are_logged_with_the_insert_that_uses_them() {
        let counters = Counters::new(&CounterValues::default());
        let (table, column) = (TableId(FIRST_OBJECT_ID), ColumnId(1));
        assert_eq!(counters.next_sequence(table, column, 3), 1);
        assert_eq!(counters.next_sequence(table, column, 1), 4);
        let rows = arrow::record_batch::RecordBatch::new_empty(arrow::datatypes::Schema::empty().into());
        let insert = [Op::Insert { table, first_row: RowId(1), rows }];
        assert!(counters.take_unlogged(&[Op::Truncate(table)]).is_empty());
        let mark = SequenceMark { table, column, next: 5 };
        assert_eq!(counters.take_unlogged(&insert), vec![mark]);
        assert!(counters.take_unlogged(&insert).is_empty());
        counters.forget_logged();
        assert_eq!(counters.take_unlogged(&insert), vec![mark]);
    }

    #[test]
    fn sequences_of_their_own_are_logged_with_the_next_commit() {
        let counters = Counters::new(&CounterValues::default());
        let (table, column) = (TableId(FIRST_OBJECT_ID), ColumnId(1));
        counters.committed(&[], &[Op::SetSequence { table, column, next: 100 }]);
        assert_eq!(counters.next_apart(table, column, 10), 100);
        let other = [Op::Truncate(TableId(FIRST_OBJECT_ID + 1))];
        let mark = SequenceMark { table, column, next: 110 };
        assert_eq!(counters.take_unlogged(&other), vec![mark]);
        assert!(counters.take_unlogged(&other).is_empty());
        counters.forget_logged();
        assert_eq!(counters.take_unlogged(&other), vec![mark]);
        counters.next_apart(table, column, 1);
        counters.committed(&[], &[Op::DropTable(table)]);
        assert!(counters.take_unlogged(&other).is_empty());
    }

    #[test]
    fn replay_never_sets_a_serial_back_unless_told_to() {
        let counters = Counters::new(&CounterValues::default());
        let (table, column) = (TableId(FIRST_OBJECT_ID), ColumnId(1));
        counters.committed(&[SequenceMark { table, column, next: 9 }], &[]);
        counters.committed(&[SequenceMark { table, column, next: 5 }], &[]);
        assert_eq!(counters.peek_sequence(table, column), 9);
        counters.committed(&[], &[Op::SetSequence { table, column, next: 2 }]);
        assert_eq!(counters.next_sequence(table, column, 1), 2);
    }
    /// A definition's constraints come last, so theirs are the greatest ids that a log without a checkpoint knows.
    #[test]
    fn ids_of_constraints_are_not_given_again() {
        let id = |above: u32| TableId(FIRST_OBJECT_ID + above);
        let check = CheckDef {
            id: id(7),
            name: "items_id_check".into(),
            expression: "\"id\" > 0".into(),
            shown: "(id > 0)".into(),
            columns: vec![ColumnId(1)],
            not_valid: false,
        };
        let foreign_key = ForeignKeyDef {
            id: id(9),
            name: "items_id_fkey".into(),
            columns: vec![ColumnId(1)],
            parent: id(0),
            parent_columns: vec![ColumnId(1)],
            key: id(1),
            on_delete: ReferenceAction::NoAction,
            on_update: ReferenceAction::NoAction,
            full: false,
            deferrable: false,
            initially_deferred: false,
            not_valid: false,
        };
        let counters = Counters::new(&CounterValues::default());
        let mut def = items(FIRST_OBJECT_ID, "items");
        def.constraints.checks.push(check);
        counters.committed(&[], &[Op::CreateTable(def.clone())]);
        assert_eq!(counters.next_object(), id(8));
        def.constraints.foreign_keys.push(foreign_key);
        counters.committed(&[], &[Op::AlterTable(def)]);
        assert_eq!(counters.next_object(), id(10));
        let def = EnumDef {
            id: id(11),
            array: id(12),
            schema: "public".into(),
            name: "mood".into(),
            labels: vec![],
        };
        let def = def.with_labels(&["sad".to_owned()], &|| id(13)).unwrap();
        counters.committed(&[], &[Op::CreateTable(TableDef::of_enum("default", def.into()))]);
        assert_eq!(counters.next_object(), id(14));
    }
}
