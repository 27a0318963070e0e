//! `SELECT … FOR UPDATE` and its kin: the query runs, its rows are locked, and what the client gets is what they are
//! once they are locked.
//!
//! Under READ COMMITTED a row that was replaced meanwhile is looked at again in its newest version, as by a write. SKIP
//! LOCKED leaves out what others have: what they have already is hidden from the query before it looks, so that LIMIT
//! counts rows that can be had; what somebody takes in between is hidden from the next look. That, and a look for
//! another row within a LIMIT, is at the newest snapshot, where Postgres goes on in its first: a queue's worker would find
//! there, one by one, what is done by now.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use roaring::RoaringTreemap;
use sepal_query::{
    StatementContext,
    locking::{Found, LockedRelation, LockingQuery, WaitPolicy},
    planner::{ScalarValue, parameter_values},
};
use sepal_types::{Error, Result};

use super::{
    Session,
    locking::{Claim, Claimed},
    seen::Seen,
};

/// What a run may see of one relation.
#[derive(Clone, Default)]
struct Shown {
    only: Option<RoaringTreemap>,
    hidden: RoaringTreemap,
}

impl Session {
    /// Runs a locking query. Its tables are locked already.
    ///
    /// Errors: 55P03 for NOWAIT, 40001 under REPEATABLE READ, 40P01, …
    pub(super) async fn select_for(
        &mut self,
        query: &LockingQuery,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Vec<RecordBatch>> {
        let values = parameter_values(parameters, parameters.len())?;
        self.run_nested(context, &values).await?;
        let found = self.find_and_lock(query, context, &values).await?;
        query.rows(&found)
    }

    /// Runs the locking queries within a statement, before it takes its own snapshot.
    pub(super) async fn run_nested(
        &mut self,
        context: &StatementContext,
        values: &[ScalarValue],
    ) -> Result<()> {
        for nested in context.nested.iter() {
            let found = self.find_and_lock(&nested.query, context, values).await?;
            nested.rows.set(nested.query.rows_as(&found, nested.rows.schema())?);
        }
        Ok(())
    }

    async fn find_and_lock(
        &mut self,
        query: &LockingQuery,
        context: &StatementContext,
        values: &[ScalarValue],
    ) -> Result<Found> {
        if let Some(relation) = query.relations().first() {
            self.check_writable(relation.mode.statement())?;
        }
        let _watch = self.watches.begin(&self.tenant.updates);
        self.bind(context)?;
        let mut seen = Seen::of(context);
        let skips = query.relations().iter().any(|relation| relation.wait == WaitPolicy::Skip);
        // Of what it saw at first only rows that it has locked are known to be there yet.
        let stays = !skips && !query.is_limited();
        let mut shown = self.first_look(query)?;
        let (engine, cancel) = (Arc::clone(&self.engine), self.cancel.clone());
        loop {
            for (place, shown) in shown.iter().enumerate() {
                query.show(place, shown.only.clone(), shown.hidden.clone());
            }
            let found = cancel.guard(query.run(&engine, values)).await?;
            let mut again = false;
            for (place, relation) in query.relations().iter().enumerate() {
                let rows = query.row_ids(&found, place);
                let claim =
                    Claim { table: relation.table, mode: relation.mode, write: false, wait: relation.wait };
                match self.claim(claim, rows.clone()).await? {
                    Claimed::Current => {
                        if !query.is_limited() && shown[place].only.is_none() {
                            // Should another relation's rows have moved, these are still the ones that count.
                            shown[place].only = Some(rows);
                        }
                    }
                    Claimed::Taken(taken) => {
                        shown[place].hidden |= taken;
                        again = true;
                    }
                    Claimed::Moved(moved) => {
                        seen.note(relation.table, &moved);
                        // With LIMIT another row may take the place of one that matches no more.
                        shown[place].only = (!query.is_limited()).then_some(moved.still);
                        again = true;
                    }
                }
            }
            if !again {
                return Ok(found);
            }
            self.bind(context)?;
            if stays {
                seen.show(&mut self.shown, context)?;
            }
        }
    }

    /// What others have locked is not looked at by SKIP LOCKED.
    fn first_look(&self, query: &LockingQuery) -> Result<Vec<Shown>> {
        let Some(open) = &self.open else { return Err(Error::bug("a lock outside of a transaction")) };
        let look = |relation: &LockedRelation| match relation.wait {
            WaitPolicy::Skip => {
                Shown { hidden: open.locks.taken_rows(relation.table, relation.mode), ..Shown::default() }
            }
            WaitPolicy::Wait | WaitPolicy::Refuse => Shown::default(),
        };
        Ok(query.relations().iter().map(look).collect())
    }
}
