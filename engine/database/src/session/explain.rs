//! Running EXPLAIN: of a query, of one that locks its rows, and of a write.

use std::{sync::Arc, time::Instant};

use arrow::array::{ArrayRef, RecordBatch};
use futures::TryStreamExt;
use sepal_query::{
    StatementContext,
    dml::Dml,
    explain::{execution_time, explain_lines, explain_write, explain_write_by_key},
    locking::LockingQuery,
    output::OutputColumn,
    planner::parameter_values,
};
use sepal_types::{Result, SqlType};

use super::{Outcome, RowStream, Session, execute::text_rows, prepared::Query};

impl Session {
    pub(super) async fn run_explain(
        &mut self,
        query: &Query,
        analyze: bool,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        if let (true, Some(locking)) = (analyze, &query.locking) {
            return self.run_explain_locking(query, locking, parameters).await;
        }
        if analyze && !query.context.nested.is_empty() {
            let values = parameter_values(parameters, parameters.len())?;
            self.run_nested(&query.context, &values).await?;
        }
        self.bind(&query.context)?;
        if let Some(lookup) = &query.lookup {
            let started = Instant::now();
            if let Some(found) = lookup.run(&query.context, parameters)? {
                let mut lines = lookup.explain_lines(&query.context);
                if analyze {
                    lines.extend(execution_time(started.elapsed(), found.num_rows() as u64));
                }
                return self.query_plan(lines);
            }
        }
        let values = parameter_values(parameters, parameters.len())?;
        let engine = &self.engine;
        if let Some(point) = query.by_key() {
            if !analyze {
                return self.query_plan(point.explain_lines());
            }
            let started = Instant::now();
            if let Some(found) = point.find(engine, &values)? {
                let mut lines = point.explain_lines();
                lines.extend(execution_time(started.elapsed(), found.num_rows() as u64));
                return self.query_plan(lines);
            }
        }
        let physical = self.cancel.guard(engine.physical(&query.plan, values)).await?;
        let mut totals = Vec::new();
        if analyze {
            let started = Instant::now();
            let batches: Vec<RecordBatch> =
                self.cancel.guard(async { engine.start(Arc::clone(&physical))?.try_collect().await }).await?;
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            totals = execution_time(started.elapsed(), rows);
        }
        let mut lines = explain_lines(&physical, analyze);
        lines.extend(totals);
        self.query_plan(lines)
    }

    /// Runs a locking query, with its locks, and shows its plan with what it took as a whole.
    async fn run_explain_locking(
        &mut self,
        query: &Query,
        locking: &LockingQuery,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        let started = Instant::now();
        let batches = self.select_for(locking, &query.context, parameters).await?;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let totals = execution_time(started.elapsed(), rows);
        let mut lines = match locking.point() {
            Some(point) => point.explain_lines(),
            None => {
                let values = parameter_values(parameters, parameters.len())?;
                let physical = self.cancel.guard(self.tenant.engine.physical(&query.plan, values)).await?;
                explain_lines(&physical, false)
            }
        };
        lines.extend(totals);
        self.query_plan(lines)
    }

    /// Shows a write's plan; ANALYZE also does what the statement says.
    pub(super) async fn run_explain_write(
        &mut self,
        dml: &Dml,
        context: &StatementContext,
        analyze: bool,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        self.bind(context)?;
        let values = parameter_values(parameters, parameters.len())?;
        let mut lines = match (dml.point(), dml.source()) {
            (Some(point), _) => explain_write_by_key(dml.explain_lines(), point.explain_lines()),
            (None, Some(source)) => {
                let physical = self.cancel.guard(self.engine.physical(source, values)).await?;
                explain_write(dml.explain_lines(), Some(&physical))
            }
            (None, None) => explain_write(dml.explain_lines(), None),
        };
        if analyze {
            let started = Instant::now();
            let written = self.write(dml, context, parameters).await?;
            lines.extend(execution_time(started.elapsed(), written.rows));
        }
        self.query_plan(lines)
    }

    fn query_plan(&self, lines: Vec<String>) -> Result<Outcome> {
        let rows = text_rows(&[("QUERY PLAN", lines)])?;
        let columns: Arc<[OutputColumn]> = Arc::from(vec![OutputColumn::new("QUERY PLAN", SqlType::Text)]);
        Ok(Outcome::Rows(RowStream::ready(columns, vec![rows], "EXPLAIN".to_owned(), self.cancel.clone())))
    }
}
