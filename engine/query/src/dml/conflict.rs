//! ON CONFLICT: a probe of the unique key per proposed row, then insert, update or skip.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array},
        compute::{concat_batches, take},
        datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
        row::{OwnedRow, RowConverter, SortField},
    },
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, ConflictTarget, Expr, Ident, OnConflictAction, SelectItem, SetExpr},
};
use sepal_storage::TableVersion;
use sepal_types::{ColumnId, Error, Result, RowId, SqlState, TableDef, UniqueDef};

use super::{
    DmlContext,
    assign::{TargetRows, assign, row_schema},
    change::{assigned_columns, refuse_computed},
    defaults::{default_expression, is_default},
    generation::{Generation, affected},
    returning::{parse_query, qualified},
    rows_table::RowsTable,
};
use crate::{
    ddl::{identifier, object_name},
    planner::TemporaryTables,
    sql::{ParameterTypes, prepare_expression, prepare_query},
    table::ROW_ID,
};

/// Joins a proposed row to the row it conflicts with.
const PAIR: &str = "__pair";

/// A prepared ON CONFLICT clause.
#[derive(Debug)]
pub struct Conflict {
    /// The constraints that are probed; every one of them when the clause names none.
    uniques: Vec<UniqueDef>,
    /// The clause names its constraint.
    named: bool,
    update: Option<Update>,
}

/// DO UPDATE.
#[derive(Debug)]
struct Update {
    /// Row id, then every column's new value.
    plan: LogicalPlan,
    /// The columns that SET names, and those that are computed from them.
    assigned: Vec<ColumnId>,
    generation: Generation,
    existing: RowsTable,
    excluded: RowsTable,
}

/// What is to become of the proposed rows.
#[derive(Debug)]
pub struct Resolved {
    /// Rows inserted and new versions of rows updated, in the order in which they were proposed.
    pub rows: TargetRows,
    /// The rows that are updated, ascending.
    pub replaced: Vec<RowId>,
    /// Each of them, and the place in `rows` of what replaces it.
    pub places: Vec<(RowId, u64)>,
    /// The rows in the way of DO UPDATE, ascending: also those that its WHERE leaves as they are.
    pub locked: Vec<RowId>,
    /// The rows because of which DO NOTHING skips a proposed one, ascending.
    pub standing: Vec<RowId>,
}

impl Resolved {
    fn inserted(rows: TargetRows) -> Self {
        let none = Vec::new;
        Self { rows, replaced: none(), places: Vec::new(), locked: none(), standing: none() }
    }
}

impl Conflict {
    /// Errors: 42P10 when no constraint matches the named columns, 42704 an unknown constraint.
    pub fn prepare(
        on: &ast::OnConflict,
        def: &Arc<TableDef>,
        alias: Option<&str>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let uniques = arbiters(on.conflict_target.as_ref(), def)?;
        let update = match &on.action {
            OnConflictAction::DoNothing => None,
            OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => {
                return Err(Error::new(
                    SqlState::SyntaxError,
                    "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                )
                .with_hint("For example, ON CONFLICT (column_name)."));
            }
            OnConflictAction::DoUpdate(update) => {
                Some(Update::prepare(update, def, alias, parameters, context)?)
            }
        };
        Ok(Self { uniques, named: on.conflict_target.is_some(), update })
    }

    /// DO UPDATE rather than DO NOTHING.
    pub fn updates(&self) -> bool {
        self.update.is_some()
    }

    pub fn is_about(&self, unique: &UniqueDef) -> bool {
        self.uniques.iter().any(|known| known.id == unique.id)
    }

    /// Whether DO UPDATE gives a column of a unique constraint another value.
    pub fn changes_keys(&self, def: &TableDef) -> bool {
        let assigned = self.update.iter().flat_map(|update| &update.assigned);
        let keyed = |column: &ColumnId| def.uniques.iter().any(|unique| unique.columns.contains(column));
        assigned.into_iter().any(keyed)
    }

    pub fn explain_lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("  Conflict Resolution: {}", if self.updates() { "UPDATE" } else { "NOTHING" })];
        let names: Vec<&str> = self.uniques.iter().map(|unique| unique.name.as_str()).collect();
        if self.named && !names.is_empty() {
            lines.push(format!("  Conflict Arbiter Indexes: {}", names.join(", ")));
        }
        lines
    }

    /// Probes every proposed row and does what the clause says.
    pub async fn resolve(
        &self,
        def: &Arc<TableDef>,
        proposed: &TargetRows,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Resolved> {
        let snapshot = context.statement.snapshot.get();
        let version = snapshot.table(def.id).ok_or_else(|| crate::planner::undefined_table(&def.name))?;
        let found = self.probe(def, version, proposed)?;
        let fresh: Vec<u64> = positions(&found, |fate| *fate == Fate::Insert);
        let inserted = take_rows(proposed, &fresh)?;
        let mut in_the_way: Vec<RowId> = found.iter().filter_map(Fate::row).collect();
        in_the_way.sort_unstable();
        in_the_way.dedup();
        let Some(update) = &self.update else {
            return Ok(Resolved { standing: in_the_way, ..Resolved::inserted(inserted) });
        };
        if in_the_way.is_empty() {
            return Ok(Resolved::inserted(inserted));
        }
        let (ids, changed) = update.run(def, version, proposed, &found, values, context).await?;
        let order = proposed_order(&found, &ids, inserted.rows);
        let offset = u64::try_from(inserted.rows).unwrap_or(u64::MAX);
        let replaced_at = |(place, from): (u64, &u64)| {
            let changed = usize::try_from(from.checked_sub(offset)?).ok()?;
            Some((*ids.get(changed)?, place))
        };
        let places: Vec<(RowId, u64)> = (0u64..).zip(&order).filter_map(replaced_at).collect();
        let rows = take_rows(&append(def, &inserted, &changed)?, &order)?;
        let mut replaced = ids;
        replaced.sort_unstable();
        Ok(Resolved { rows, replaced, places, locked: in_the_way, standing: Vec::new() })
    }

    fn probe(&self, def: &TableDef, version: &TableVersion, proposed: &TargetRows) -> Result<Vec<Fate>> {
        let mut fates = vec![Fate::Insert; proposed.rows];
        for unique in &self.uniques {
            let keys = key_arrays(def, &unique.columns, proposed);
            let existing = version.lookup_unique(unique, &keys)?;
            for (fate, row) in fates.iter_mut().zip(existing) {
                if let (Fate::Insert, Some(row)) = (&fate, row) {
                    *fate = Fate::Conflict(row);
                }
            }
            self.settle_duplicates(&keys, &mut fates)?;
        }
        Ok(fates)
    }

    /// Two proposed rows of one key: DO NOTHING keeps the first, DO UPDATE refuses (21000).
    fn settle_duplicates(&self, keys: &[ArrayRef], fates: &mut [Fate]) -> Result<()> {
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(crate::error::arrow)?;
        let rows = converter.convert_columns(keys).map_err(crate::error::arrow)?;
        let mut seen: HashMap<OwnedRow, ()> = HashMap::new();
        for (position, fate) in fates.iter_mut().enumerate() {
            if *fate == Fate::Skip || keys.iter().any(|key| key.is_null(position)) {
                continue;
            }
            if seen.insert(rows.row(position).owned(), ()).is_none() {
                continue;
            }
            if self.update.is_some() {
                return Err(Error::new(
                    SqlState::CardinalityViolation,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
            }
            *fate = Fate::Skip;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Insert,
    Conflict(RowId),
    Skip,
}

impl Fate {
    fn row(&self) -> Option<RowId> {
        match self {
            Self::Conflict(row) => Some(*row),
            Self::Insert | Self::Skip => None,
        }
    }
}

fn positions(fates: &[Fate], wanted: impl Fn(&Fate) -> bool) -> Vec<u64> {
    (0u64..).zip(fates).filter(|(_, fate)| wanted(fate)).map(|(position, _)| position).collect()
}

/// Where each proposed row's outcome stands, in the rows inserted (`inserted` of them) and then those updated, whose
/// ids are `updated`. A row that WHERE kept from being updated has none.
fn proposed_order(fates: &[Fate], updated: &[RowId], inserted: usize) -> Vec<u64> {
    let offset = u64::try_from(inserted).unwrap_or(u64::MAX);
    let places: HashMap<RowId, u64> = updated.iter().copied().zip(offset..).collect();
    let mut fresh = 0u64..;
    let place = |fate: &Fate| match fate {
        Fate::Insert => fresh.next(),
        Fate::Conflict(row) => places.get(row).copied(),
        Fate::Skip => None,
    };
    fates.iter().filter_map(place).collect()
}

fn key_arrays(def: &TableDef, columns: &[ColumnId], rows: &TargetRows) -> Vec<ArrayRef> {
    columns
        .iter()
        .filter_map(|id| def.columns.iter().position(|column| column.id == *id))
        .map(|position| Arc::clone(&rows.arrays[position]))
        .collect()
}

fn take_rows(rows: &TargetRows, positions: &[u64]) -> Result<TargetRows> {
    if positions.len() == rows.rows && positions.is_sorted() {
        return Ok(rows.clone());
    }
    let indices = UInt64Array::from(positions.to_vec());
    let arrays = rows
        .arrays
        .iter()
        .map(|array| take(array, &indices, None))
        .collect::<std::result::Result<_, _>>()
        .map_err(crate::error::arrow)?;
    Ok(TargetRows { arrays, rows: positions.len() })
}

fn append(def: &TableDef, left: &TargetRows, right: &TargetRows) -> Result<TargetRows> {
    let batches = [left.batch(def)?, right.batch(def)?];
    let batch = concat_batches(&row_schema(def), &batches).map_err(crate::error::arrow)?;
    Ok(TargetRows { arrays: batch.columns().to_vec(), rows: batch.num_rows() })
}

fn arbiters(target: Option<&ConflictTarget>, def: &TableDef) -> Result<Vec<UniqueDef>> {
    match target {
        None => Ok(def.uniques.clone()),
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = object_name(name)?;
            let named = |unique: &&UniqueDef| unique.is_constraint() && unique.name == name;
            let unique = def.uniques.iter().find(named).ok_or_else(|| {
                let message = format!("constraint \"{name}\" for table \"{}\" does not exist", def.name);
                Error::new(SqlState::UndefinedObject, message)
            })?;
            Ok(vec![unique.clone()])
        }
        Some(ConflictTarget::Columns(columns)) => {
            let mut wanted = Vec::with_capacity(columns.len());
            for column in columns {
                let name = identifier(column);
                let found = def.column(&name).ok_or_else(|| {
                    Error::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"))
                })?;
                wanted.push(found.id);
            }
            wanted.sort_unstable();
            let matches = |unique: &&UniqueDef| {
                let mut columns = unique.columns.clone();
                columns.sort_unstable();
                columns == wanted
            };
            def.uniques.iter().find(matches).map(|unique| vec![unique.clone()]).ok_or_else(|| {
                Error::new(
                    SqlState::InvalidColumnReference,
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )
            })
        }
    }
}

impl Update {
    fn prepare(
        update: &ast::DoUpdate,
        def: &Arc<TableDef>,
        alias: Option<&str>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let existing = RowsTable::new(paired_schema(def, true));
        let excluded = RowsTable::new(paired_schema(def, false));
        let shown = alias.unwrap_or(&def.name);
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (table, shown_quoted) = (qualified(def), quoted(shown));
        let mut query = parse_query(&format!(
            "SELECT 1 FROM {table} AS {shown_quoted} JOIN excluded ON {shown_quoted}.{PAIR} = excluded.{PAIR}"
        ))?;
        let assigned = assigned_columns(def, &update.assignments)?;
        refuse_computed(def, &assigned)?;
        let own = |column: &str| {
            Expr::CompoundIdentifier(vec![Ident::with_quote('"', shown), Ident::with_quote('"', column)])
        };
        let named = |expr: Expr, name: &str| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', format!("__new_{name}")),
        };
        let mut items = vec![named(own(ROW_ID), ROW_ID)];
        for column in &def.columns {
            let value = match assigned.iter().find(|(name, _)| *name == column.name) {
                Some((_, value)) => {
                    let mut value =
                        if is_default(value) { default_expression(def, column)? } else { value.clone() };
                    prepare_expression(&mut value, parameters, Some(&column.ty));
                    value
                }
                None => own(&column.name),
            };
            items.push(named(value, &column.name));
        }
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.projection = items;
            select.selection = update.selection.clone();
        }
        let columns = context.statement.column_types(&query);
        prepare_query(&mut query, parameters, &[], &columns);
        let temporary = TemporaryTables::default()
            .instead_of(def, Arc::new(existing.clone()))
            .with("excluded", Arc::new(excluded.clone()));
        let plan = context.engine.plan(context.statement, &temporary, &query, parameters)?;
        let named = assigned.iter().filter_map(|(name, _)| def.column(name)).map(|column| column.id);
        let mut assigned: Vec<ColumnId> = named.collect();
        let generation = Generation::after_change(def, &assigned, context)?;
        assigned.extend(affected(def, &assigned));
        Ok(Self { plan, assigned, generation, existing, excluded })
    }

    /// The ids of the rows replaced and the rows that replace them, one beside the other.
    async fn run(
        &self,
        def: &TableDef,
        version: &TableVersion,
        proposed: &TargetRows,
        fates: &[Fate],
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<(Vec<RowId>, TargetRows)> {
        let conflicting = positions(fates, |fate| matches!(fate, Fate::Conflict(_)));
        let ids: Vec<RowId> = fates
            .iter()
            .filter_map(|fate| match fate {
                Fate::Conflict(row) => Some(*row),
                _ => None,
            })
            .collect();
        let pairs: ArrayRef =
            Arc::new(UInt64Array::from_iter_values(0..u64::try_from(ids.len()).unwrap_or(0)));
        let mut old = stored_rows(def, version, &ids)?;
        old.push(Arc::new(UInt64Array::from_iter_values(ids.iter().map(|row| row.0))));
        old.push(Arc::clone(&pairs));
        let mut new = take_rows(proposed, &conflicting)?.arrays;
        new.push(pairs);
        let batch = |table: &RowsTable, arrays| {
            RecordBatch::try_new(Arc::clone(table.schema()), arrays).map_err(crate::error::arrow)
        };
        self.existing.set(vec![batch(&self.existing, old)?]);
        self.excluded.set(vec![batch(&self.excluded, new)?]);
        let batches = context.engine.collect(&self.plan, values.to_vec()).await;
        self.existing.set(Vec::new());
        self.excluded.set(Vec::new());
        let batches = batches?;
        let (ids, mut changed) = context.engine.zone().within(|| self.changed(def, &batches))?;
        self.generation.fill(def, &mut changed, context.engine)?;
        Ok((ids, changed))
    }

    fn changed(&self, def: &TableDef, batches: &[RecordBatch]) -> Result<(Vec<RowId>, TargetRows)> {
        let fields: Vec<Field> =
            self.plan.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let schema =
            batches.first().map_or_else(|| Arc::new(Schema::new(fields.clone())), RecordBatch::schema);
        let batch = concat_batches(&schema, batches).map_err(crate::error::arrow)?;
        let ids: Vec<RowId> =
            batch.column(0).as_primitive::<UInt64Type>().values().iter().map(|id| RowId(*id)).collect();
        let arrays = batch
            .columns()
            .iter()
            .zip(&fields)
            .skip(1)
            .zip(&def.columns)
            .map(|((array, field), column)| assign(array, field, column))
            .collect::<Result<Vec<_>>>()?;
        Ok((ids, TargetRows { arrays, rows: batch.num_rows() }))
    }
}

fn paired_schema(def: &TableDef, with_row_id: bool) -> SchemaRef {
    let mut fields: Vec<Field> =
        row_schema(def).fields().iter().map(|field| field.as_ref().clone()).collect();
    if with_row_id {
        fields.push(Field::new(ROW_ID, DataType::UInt64, false));
    }
    fields.push(Field::new(PAIR, DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The stored columns of some rows, in the rows' order.
fn stored_rows(def: &TableDef, version: &TableVersion, ids: &[RowId]) -> Result<Vec<ArrayRef>> {
    let mut hits = Vec::with_capacity(ids.len());
    for id in ids {
        let (chunk, position) = version
            .locate(*id)?
            .ok_or_else(|| Error::bug(format!("row {id} was found by its key but not by its id")))?;
        hits.push(crate::vector::Hit { chunk, position, distance: None });
    }
    def.columns.iter().map(|column| crate::vector::fetch(version, column, &hits)).collect()
}
