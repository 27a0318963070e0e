//! Statements about what goes in and out: secrets, certificates, resolvers, plugins, sinks and pipelines.
//!
//! Definitions are rows of the tenant's store (`crate::delivery::objects`), so they are part of the session's
//! transaction. Secrets, certificates and grants are in the control database and take effect at once: in a transaction
//! block they are refused, as CREATE DATABASE is in Postgres.
//!
//! A statement that defines something goes three steps:
//! 1. from the view it has, it makes the definition and tries it out at the destination, without a lock;
//! 2. it waits for others that define ([`Session::definitions_view`]) and looks again at what it depends on;
//! 3. it applies its operations, and writes the definitions that it depends on again as they are: whoever drops one of
//!    them in a transaction block meanwhile fails with 40001.

mod certificates;
mod depends;
mod drop;
mod grants;
mod pipelines;
mod plugins;
mod resolvers;
mod secrets;
mod sinks;
mod values;
mod with_options;

use std::{fmt, sync::Arc};

use arrow::array::ArrayRef;
use sepal_control::{Control, ControlError, Scope};
use sepal_query::sql::{
    Statement, StatementKind,
    delivery::{Delivery, ObjectKind},
};
use sepal_storage::{LogHold, Op, Snapshot};
use sepal_types::{Error, Result, SqlState};

use super::{
    Outcome, Session,
    prepare::{Planned, write_only_key},
    prepared::PlanKind,
};
use crate::{
    blocking::blocking,
    delivery::{
        objects::Objects,
        pipelines::sweep,
        system_tables::{SystemTable, ensure},
    },
    locks::TableMode,
    maintain,
};

use values::Bound;

/// What follows the commit of a transaction that changed definitions.
#[derive(Default)]
pub struct AfterCommit {
    changed: bool,
    /// Pipelines are dropped: what they leave is to be removed.
    dropped: bool,
    /// The log of pipelines that it creates, by id.
    holds: Vec<(String, LogHold)>,
    /// It has clones whose segments lack indexes.
    unindexed: bool,
}

impl AfterCommit {
    /// A table was cloned.
    pub(super) fn note_clone(&mut self, lacks_indexes: bool) {
        self.unindexed |= lacks_indexes;
    }

    /// How many logs it holds: a mark for [`Self::let_go_since`].
    pub(super) fn holds(&self) -> usize {
        self.holds.len()
    }

    /// ROLLBACK TO a savepoint: a pipeline that was there before needs no log of its later one.
    pub(super) fn let_go_since(&mut self, mark: usize) {
        self.holds.truncate(mark);
    }
}

impl fmt::Debug for AfterCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterCommit")
            .field("changed", &self.changed)
            .field("holds", &self.holds.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn plan_delivery(&mut self, statement: &Delivery, declared: &[u32]) -> Result<Planned> {
        if let Delivery::Show(query) = statement {
            return self.plan_query(query, declared);
        }
        let parameters = values::parameter_types(statement, declared)?;
        Ok(Planned { kind: PlanKind::Delivery, parameters, columns: None })
    }

    pub(super) async fn run_delivery(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        let StatementKind::Delivery(statement) = &statement.kind else {
            return Err(Error::bug("a plan for another statement"));
        };
        self.check_writable(&statement.command())?;
        if carries_rows(statement) && !self.principal.scopes.read {
            return Err(write_only_key());
        }
        let bound = Bound::new(parameters);
        match statement.as_ref() {
            Delivery::CreateSecret { .. } | Delivery::AlterSecret { .. } => {
                self.run_secret(statement, bound).await
            }
            Delivery::CreateCertificate { name, certificate, key } => {
                self.create_certificate(name, certificate, key, bound).await
            }
            Delivery::AlterCertificate { name, certificate, key } => {
                self.alter_certificate(name, certificate, key, bound).await
            }
            Delivery::CreateResolver { name, plugin, options, allow_hosts } => {
                self.create_resolver(name, plugin, options, allow_hosts).await
            }
            Delivery::CreateTrustKey { name, key } => self.create_trust_key(name, key, bound).await,
            Delivery::CreatePlugin { name, or_replace, component, signature } => {
                self.create_plugin(name, *or_replace, (component, signature.as_ref()), bound).await
            }
            Delivery::UpdatePlugin { name, version, component, signature } => {
                self.update_plugin(name, version.as_deref(), (component, signature.as_ref()), bound).await
            }
            Delivery::CreateSink { name, connector, options, allow_hosts } => {
                self.create_sink(name, connector, options, allow_hosts).await
            }
            Delivery::AlterSink { name, options, allow_hosts } => {
                self.alter_sink(name, options.as_ref(), allow_hosts.as_deref()).await
            }
            Delivery::ValidateSink { name } => self.validate_sink(name).await,
            Delivery::CreatePipeline(create) => self.create_pipeline(create).await,
            Delivery::AlterPipeline { name, change } => self.alter_pipeline(name, change).await,
            Delivery::Drop { kind, name, if_exists, cascade } => {
                self.drop_object(*kind, name, *if_exists, *cascade).await
            }
            Delivery::Grant { kind, name, to } => self.grant(*kind, name, to, true).await,
            Delivery::Revoke { kind, name, from } => self.grant(*kind, name, from, false).await,
            Delivery::Show(_) => Err(Error::bug("SHOW is planned as a query")),
        }
    }

    /// Errors: 25001 in a transaction block.
    fn check_no_block(&self, statement: &str) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.explicit) {
            return Err(Error::new(
                SqlState::ActiveSqlTransaction,
                format!("{statement} cannot run inside a transaction block"),
            )
            .with_detail("Secrets, certificates and grants take effect at once and cannot be rolled back.")
            .with_hint("Run it by itself: COMMIT first, or switch autocommit on."));
        }
        Ok(())
    }

    /// Asks the control database, off the async threads.
    async fn ask_control<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Control, &Scope<'_>) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T> {
        let (delivery, environment) = (Arc::clone(&self.tenant.delivery), Arc::clone(&self.environment));
        blocking("asking the control database", move || {
            let scope = Scope { tenant: delivery.tenant, environment: &environment };
            let answer = question(&delivery.control, &scope);
            delivery.resolved.outdate();
            Ok(answer?)
        })
        .await
    }

    /// Runs what decodes or compiles off the async threads.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking("the work of a statement", work).await
    }

    /// The definitions that the next statement sees.
    async fn objects(&mut self) -> Result<(Snapshot, Objects)> {
        let view = self.current_view()?;
        self.off_thread(move || Ok((view.clone(), Objects::of(&view)?))).await
    }

    /// The same, for writing: the tables are there, and an autocommitted statement has waited for those before it.
    ///
    /// Errors: 40001 in a transaction whose snapshot is older than the tables.
    async fn definitions_view(&mut self) -> Result<(Snapshot, Objects)> {
        let store = Arc::clone(&self.tenant.store);
        let made = self.off_thread(move || ensure(&store)).await?;
        let Some(table) = SystemTable::Objects.id(&made) else {
            return Err(Error::bug("the table of definitions was not made"));
        };
        // In a transaction block it does not wait: there the first committer wins.
        if self.open.as_ref().is_some_and(|open| !open.explicit) {
            self.lock_table(table, TableMode::ShareRowExclusive).await?;
        }
        let (view, objects) = self.objects().await?;
        if SystemTable::ALL.iter().any(|table| table.find(&view).is_none()) {
            let message = "could not serialize access due to concurrent definition";
            return Err(Error::new(SqlState::SerializationFailure, message)
                .with_hint("Retry the transaction: it began before the first definition of this kind."));
        }
        Ok((view, objects))
    }

    /// Makes definitions part of the transaction.
    fn define(&mut self, ops: Vec<Op>) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::bug("a definition outside of a transaction"));
        };
        open.apply(ops)?;
        open.after.changed = true;
        Ok(())
    }

    /// After the commit: whoever runs pipelines looks at them again, and the next start knows whether there are any.
    pub(super) async fn follow(&mut self, after: AfterCommit, snapshot: Snapshot) {
        if after.unindexed {
            // Indexes are built over segments that a manifest names as the table's.
            let tenant = Arc::clone(&self.tenant);
            tokio::task::spawn_blocking(move || maintain::checkpoint_and_index(&tenant));
        }
        if !after.changed {
            return;
        }
        let tenant = Arc::clone(&self.tenant);
        let noted = self.off_thread(move || {
            let objects = Objects::of(&snapshot)?;
            for (id, hold) in after.holds {
                // Not if it was dropped again.
                if objects.pipelines().any(|pipeline| pipeline.id == id) {
                    tenant.delivery.keep_log(id, hold);
                }
            }
            tenant.pipelines_changed.notify_one();
            if after.dropped {
                sweep(&tenant.store)?;
            }
            let head = || tenant.store.snapshot();
            tenant.delivery.note_pipelines(|| Ok(Objects::of(&head())?.pipelines().next().is_some()))
        });
        if let Err(error) = noted.await {
            // The statement is done. What is missing here is made up for when the tenant is opened next.
            tracing::error!(tenant = %self.tenant.id, %error, "what follows a change of pipelines was not done");
        }
    }

    fn key_id(&self) -> String {
        self.principal.key_id.to_string()
    }
}

/// Whether a statement decides where rows go, or whose code sees them: that is reading them.
fn carries_rows(statement: &Delivery) -> bool {
    matches!(
        statement,
        Delivery::CreatePipeline(_)
            | Delivery::AlterPipeline { .. }
            | Delivery::CreateSink { .. }
            | Delivery::AlterSink { .. }
            | Delivery::CreatePlugin { .. }
            | Delivery::UpdatePlugin { .. }
    )
}

fn done(tag: &str) -> Outcome {
    Outcome::Done { tag: tag.to_owned() }
}

fn duplicate(kind: ObjectKind, name: &str) -> Error {
    Error::new(SqlState::DuplicateObject, format!("{} \"{name}\" already exists", kind.noun()))
}

fn missing(kind: ObjectKind, name: &str) -> Error {
    Error::new(SqlState::UndefinedObject, format!("{} \"{name}\" does not exist", kind.noun()))
}

/// Errors: 54000 when a tenant has as many of these as it may, in all its environments together.
fn check_room(kind: ObjectKind, there: usize, most: usize) -> Result<()> {
    if there < most {
        return Ok(());
    }
    let noun = kind.noun();
    let message = format!("this tenant has {there} {noun}s, and {most} is the most it may have");
    Err(Error::new(SqlState::ProgramLimitExceeded, message)
        .with_hint(format!("Drop a {noun} that is not needed, in whichever environment.")))
}
