//! The simple protocol: one message may hold many statements; each is run and its result sent before the next
//! begins.
//!
//! All statements of one message are one transaction, unless they say otherwise themselves. The first
//! error ends the message: results that were sent stay sent, changes are rolled back.

use std::{sync::Arc, time::Instant};

use sepal_database::{Error, Outcome, Prepared, SqlState, Statement};

use super::{
    Connection,
    errors::{End, Failure},
    rows::{ResultFormats, Rows},
};
use crate::frame::{Format, write};

impl Connection {
    /// Answers a Query message.
    pub(super) async fn query(&mut self, sql: &str) -> Result<(), End> {
        #[cfg(test)]
        super::tests::panic_if_asked(sql);
        self.watch.check_alive()?;
        // As in Postgres, a simple query ends what a pipeline began and drops the unnamed statement and portal.
        let before = self.end_implicit(!self.failed).await;
        self.held.drop_statement("");
        self.held.drop_portal("");
        self.failed = false;
        let outcome = match before {
            Ok(()) => self.run_query(sql).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => {}
            Err(Failure::Statement(error)) => self.report(&error),
            Err(Failure::Connection(end)) => return Err(end),
        }
        self.ready().await
    }

    async fn run_query(&mut self, sql: &str) -> Result<(), Failure> {
        self.begin_implicit();
        let started = Instant::now();
        self.start_clock();
        if let Some(prepared) = self.watch.run(&mut self.wire, self.session.recall_now(sql)).await? {
            return self.run_prepared(&prepared, started, true).await;
        }
        let statements = self.session.split(sql)?;
        if statements.is_empty() {
            write::empty_query_response(&mut self.wire.out);
            return Ok(());
        }
        let mut left = statements.len();
        for statement in statements {
            left -= 1;
            self.begin_implicit();
            self.watch.check_alive()?;
            self.run_statement(statement, left == 0).await?;
        }
        Ok(())
    }

    async fn run_statement(&mut self, statement: Statement, last: bool) -> Result<(), Failure> {
        let started = Instant::now();
        self.start_clock();
        let prepared = self.watch.run(&mut self.wire, self.session.prepare_now(statement)).await?;
        self.run_prepared(&prepared, started, last).await
    }

    /// Runs a statement that is the last of its message or not, and sends what it gives.
    async fn run_prepared(
        &mut self,
        prepared: &Arc<Prepared>,
        started: Instant,
        last: bool,
    ) -> Result<(), Failure> {
        if !prepared.parameters().is_empty() {
            return Err(Error::new(SqlState::UndefinedParameter, "there is no parameter $1")
                .with_hint("A simple query has no parameters; use the extended protocol to bind them.")
                .into());
        }
        // It was cancelled, or its time was over, while it was planned: running, it would not know.
        self.watch.check_statement()?;
        let outcome = self.watch.run(&mut self.wire, self.session.execute(prepared, Vec::new())).await?;
        let tag = match outcome {
            Outcome::Rows(stream) => {
                let mut rows = Rows::new(stream, &self.session);
                let format = if rows.is_binary() { Format::Binary } else { Format::Text };
                write::row_description(&mut self.wire.out, rows.columns(), |_| format);
                let formats = ResultFormats::All(format);
                let sent = rows.send(&mut self.wire, &mut self.watch, &formats, 0).await?;
                self.shared.metrics.rows_sent.inc_by(sent.rows);
                Some(rows.tag(sent.rows))
            }
            Outcome::Done { tag } => Some(tag),
            Outcome::CopyIn(copy) => Some(self.copy_in(copy, Some(last)).await?),
            Outcome::CopyOut(copy) => Some(self.copy_out(copy).await?),
            Outcome::Empty => None,
        };
        if last {
            // Commit before saying that the statement is complete: a commit may fail.
            self.end_implicit(true).await?;
        }
        match tag {
            Some(tag) => self.command_complete(&tag),
            None => write::empty_query_response(&mut self.wire.out),
        }
        self.simple_statements.inc();
        self.shared.metrics.statement_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }
}
