//! What a statement sees of the past: the tables of its clauses AS OF, and all of it under the setting `sepal.as_of`.
//!
//! Called before a statement is planned, by Parse and again by each Execute: a moment may be an hour before now, or a
//! parameter. The snapshots are let go of with the statement, so that no prepared one keeps what is old.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::TimestampMicrosecondType,
};
use sepal_query::{
    planner::{Asked, ask, parameter_values},
    sql::{Moment, Statement, moments},
    values::decode_text,
};
use sepal_storage::{AsOf, Snapshot};
use sepal_types::{Error, Result, SqlState, SqlType};

use super::{
    Session,
    prepare::write_only_key,
    prepared::{PlanKind, Prepared},
    utility::Utility,
};
use crate::blocking::blocking;

/// The snapshots of the statement that is being planned or run.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// What it sees in place of the present.
    whole: Option<Snapshot>,
    /// What its clauses AS OF see, by number; `None` for a moment that is a parameter without its value.
    tables: Arc<[Option<Snapshot>]>,
}

impl Moments {
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.tables.is_empty()
    }

    pub fn whole(&self) -> Option<&Snapshot> {
        self.whole.as_ref()
    }

    pub fn tables(&self) -> &Arc<[Option<Snapshot>]> {
        &self.tables
    }
}

/// The types and values of a statement's parameters.
type Given<'a> = Option<(&'a [SqlType], &'a [ArrayRef])>;

impl Session {
    /// Resolves what a statement says of the past. `given`: at Execute.
    ///
    /// Errors: 55000 for what is not kept any more, 22023 for the future, 42704 for an unknown snapshot, 42501 for a key
    /// that may only write; those of the expressions after AS OF.
    pub(super) async fn look_back(&mut self, statement: &Statement, given: Given<'_>) -> Result<()> {
        self.moments = Moments::default();
        let failed = self.open.as_ref().is_some_and(|open| open.explicit && open.failed);
        // What ends a transaction or changes a setting must go through, whatever the past is like.
        if failed || !matches!(Utility::recognise(&statement.kind), Ok(None)) {
            return Ok(());
        }
        let as_of = {
            let settings = self.settings.lock();
            settings.zone().within(|| settings.as_of().map(parse_as_of))
        };
        if let Some(as_of) = as_of {
            let snapshot = self.snapshot_of(as_of?).await;
            self.moments.whole = Some(snapshot.map_err(|error| {
                error.with_hint("sepal.as_of is set. RESET sepal.as_of goes back to the present.")
            })?);
        }
        if let Some(parsed) = statement.kind.ast() {
            let moments = moments(parsed)?;
            if !moments.is_empty() && !self.principal.scopes.read {
                return Err(write_only_key());
            }
            let tables = self.tables(&moments, given).await?;
            self.moments.tables = tables.into();
        }
        Ok(())
    }

    /// The same for a prepared statement that is to run, where it was found to concern the past, or is made to.
    pub(super) async fn look_back_again(
        &mut self,
        prepared: &Prepared,
        parameters: &[ArrayRef],
    ) -> Result<()> {
        let concerned = matches!(prepared.plan.read().kind, PlanKind::Unplanned)
            || self.settings.lock().as_of().is_some();
        if !concerned {
            return Ok(());
        }
        self.look_back(&prepared.statement, Some((prepared.parameters.as_slice(), parameters))).await
    }

    async fn tables(&mut self, moments: &[Moment], given: Given<'_>) -> Result<Vec<Option<Snapshot>>> {
        let mut tables = Vec::with_capacity(moments.len());
        for asked in self.ask(moments, given).await? {
            tables.push(match asked {
                Some(asked) => Some(self.snapshot_of(asked).await?),
                None => None,
            });
        }
        Ok(tables)
    }

    /// Evaluates moments, all at one time; `None` for one that is a parameter without its value.
    pub(super) async fn ask(&mut self, moments: &[Moment], given: Given<'_>) -> Result<Vec<Option<Asked>>> {
        if moments.is_empty() {
            return Ok(Vec::new());
        }
        let context = self.statement_context()?;
        let engine = Arc::clone(&self.engine);
        let (types, values) = match given {
            Some((types, arrays)) => (Some(types), parameter_values(arrays, types.len())?),
            None => (None, Vec::new()),
        };
        let given = types.map(|types| (types, values.as_slice()));
        self.cancel.guard(ask(&engine, &context, moments, given)).await
    }

    /// The tenant's tables at a moment.
    pub(super) async fn snapshot_of(&self, asked: Asked) -> Result<Snapshot> {
        let at = match asked {
            Asked::Time(time_us) => AsOf::Time(time_us),
            Asked::Snapshot(name) => AsOf::Named { environment: self.environment.to_string(), name },
        };
        let store = Arc::clone(&self.tenant.store);
        let snapshot = blocking("reading the past", move || Ok(store.snapshot_as_of(&at)?)).await?;
        Ok(snapshot.searching(self.search_path()))
    }
}

/// A value of `sepal.as_of`: a time, of the zone at hand where it names no offset, or `snapshot:` and a name.
///
/// Errors: 22007 and 22008 for what is no time, 22023 for no name.
pub(super) fn parse_as_of(text: &str) -> Result<Asked> {
    if let Some(name) = text.strip_prefix("snapshot:").map(str::trim) {
        if name.is_empty() {
            return Err(Error::new(SqlState::InvalidParameterValue, "the snapshot has no name"));
        }
        return Ok(Asked::Snapshot(name.to_owned()));
    }
    let time = decode_text(&SqlType::Timestamptz, Some(text.as_bytes()))?;
    match time.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) if times.len() == 1 => Ok(Asked::Time(times.value(0))),
        _ => Err(Error::bug("a timestamptz has another form")),
    }
}
