//! CREATE PIPELINE and ALTER PIPELINE. What a pipeline does with its definition is `pipeline`'s.

use std::sync::Arc;

use sepal_crypto::random_bytes;
use sepal_query::{
    StatementContext,
    change::ChangeQuery,
    sql::{ast, delivery as statements},
};
use sepal_storage::{LogHold, Op, Snapshot};
use sepal_types::{
    Error, Lsn, PUBLIC_SCHEMA, Result, SqlState, TableDef,
    limits::{MAX_BATCH_BYTES, MAX_PIPELINES, MAX_TENANT_BATCH_BYTES},
};

use super::{Outcome, Session, check_room, done, duplicate, missing, with_options::PipelineOptions};
use crate::{
    connector::{Encoding, Envelope, SinkSpec},
    delivery::{
        now_us,
        objects::{self, Objects, OnExhausted, OnRejected, PipelineDef, SinkDef},
        sinks::{self, Wanted},
    },
    locks::TableMode,
    pipeline::{check_position, position::Position},
    sealing::hex,
};

use statements::{CreatePipeline, ObjectKind, PipelineChange};

/// A batch, where neither statement nor plugin says how large.
const BATCH_ROWS: u32 = 1_000;
const BATCH_BYTES: u32 = 1 << 20;
const LINGER_MS: u32 = 1_000;
/// About seven minutes of waiting.
const MAX_ATTEMPTS: u32 = 20;

/// A query over a table's changes, and what it is read from.
struct Compiled {
    query: ChangeQuery,
    def: TableDef,
    /// With wildcards and the table's schema written out.
    text: String,
    key: Vec<String>,
}

impl Session {
    pub(super) async fn create_pipeline(&mut self, create: &CreatePipeline) -> Result<Outcome> {
        self.definitions_view().await?;
        let (context, objects) = self.statement_objects().await?;
        let view = context.snapshot.get();
        if objects.pipeline(&self.environment, &create.name).is_some() {
            let exists = duplicate(ObjectKind::Pipeline, &create.name);
            if !create.if_not_exists {
                return Err(exists);
            }
            let message = format!("{}, skipping", exists.message());
            self.notice("NOTICE", Error::new(SqlState::DuplicateObject, message));
            return Ok(done("CREATE PIPELINE"));
        }
        check_room(ObjectKind::Pipeline, objects.pipelines().count(), MAX_PIPELINES)?;
        let options = PipelineOptions::read(&create.with)?;
        let sink =
            objects.sink(&self.environment, &create.sink).ok_or_else(|| sinks::no_sink(&create.sink))?;
        let compiled = self.compile(&context, create)?;
        let wanted = wanted(create, &options, !compiled.key.is_empty());
        let spec = self.accept(&view, &objects, sink.clone(), wanted).await?;
        let def = self.pipeline_def(create, &compiled, &spec, &options, (&view, &objects))?;
        check_batches(&objects, &def)?;
        let mut ops = objects::put(&self.tenant.store, &view, &def)?;
        // Written again as they are: see the module's step 3.
        ops.extend(objects::put(&self.tenant.store, &view, sink)?);
        ops.push(Op::AlterTable(TableDef { captured: true, ..compiled.def }));
        // Whoever is deleting rows does so without the log's knowing of them: they are waited for.
        self.lock_table(def.table, TableMode::ShareRowExclusive).await?;
        self.begin_pipeline(&def.id, view.lsn()).await?;
        self.define(ops)?;
        Ok(done("CREATE PIPELINE"))
    }

    pub(super) async fn alter_pipeline(&mut self, name: &str, change: &PipelineChange) -> Result<Outcome> {
        let (view, objects) = self.definitions_view().await?;
        let old = objects.pipeline(&self.environment, name).ok_or_else(|| {
            missing(ObjectKind::Pipeline, name).with_hint("SHOW PIPELINES lists those that there are.")
        })?;
        let mut def = old.clone();
        match change {
            PipelineChange::Pause => def.paused = true,
            PipelineChange::Resume { from } => {
                def.paused = false;
                def.resumed += 1;
                if let Some(position) = from {
                    self.check_position(old, position).await?;
                    let counter = old.resume_from.as_ref().map_or(0, |(counter, _)| *counter);
                    def.resume_from = Some((counter + 1, position.clone()));
                }
            }
            PipelineChange::Reset => {
                def.generation += 1;
                def.resume_from = None;
                def.created_after = view.lsn().0;
                self.begin_pipeline(&def.id, view.lsn()).await?;
            }
            PipelineChange::Set(options) => {
                let options = PipelineOptions::read(options)?;
                set(&mut def, &options);
                check_batches(&objects, &def)?;
                let sink =
                    objects.sink(&self.environment, &def.sink).ok_or_else(|| sinks::no_sink(&def.sink))?;
                let wanted = Wanted { tier: options.tier.or(Some(old.tier)), ..Wanted::of(old) };
                def.tier = self.accept(&view, &objects, sink.clone(), wanted).await?.tier;
            }
        }
        let ops = objects::put(&self.tenant.store, &view, &def)?;
        self.define(ops)?;
        Ok(done("ALTER PIPELINE"))
    }

    /// Errors: 22023 for what is no position, or none that the pipeline can go on behind.
    async fn check_position(&self, def: &PipelineDef, text: &str) -> Result<()> {
        let position = Position::parse(text)?;
        let (tenant, def) = (Arc::clone(&self.tenant), Arc::new(def.clone()));
        self.off_thread(move || check_position(&tenant, &def, position)).await
    }

    /// What a statement planned now may touch, and the definitions of the same snapshot.
    async fn statement_objects(&mut self) -> Result<(StatementContext, Objects)> {
        let context = self.statement_context()?;
        let view = context.snapshot.get();
        let objects = self.off_thread(move || Objects::of(&view)).await?;
        Ok((context, objects))
    }

    /// Keeps the log from here on, and makes the next start open the tenant: both before the commit, since a pipeline
    /// that is committed must not be forgotten. Without a commit they are without effect.
    async fn begin_pipeline(&mut self, id: &str, after: Lsn) -> Result<()> {
        let tenant = Arc::clone(&self.tenant);
        let hold: LogHold = self
            .off_thread(move || {
                tenant.delivery.note_pipelines(|| Ok(true))?;
                Ok(tenant.store.hold_log(after)?)
            })
            .await?;
        if let Some(open) = &mut self.open {
            open.after.holds.push((id.to_owned(), hold));
        }
        Ok(())
    }

    /// The query and its key: the one that was named, else the primary key if the query has its columns.
    fn compile(&self, context: &StatementContext, create: &CreatePipeline) -> Result<Compiled> {
        let query = ChangeQuery::compile(&self.tenant.engine, context, &create.query, &create.key)?;
        let snapshot = context.snapshot.get();
        let def = snapshot
            .table(query.table())
            .map(|version| version.def.as_ref().clone())
            .ok_or_else(|| Error::bug("a pipeline's query over a table that is not there"))?;
        let columns = query.columns();
        let key = query.key().iter().filter_map(|place| columns.get(*place));
        let key = key.map(|column| column.name.clone()).collect();
        let text = written_out(&create.query, &def).unwrap_or_else(|| create.query_text.clone());
        Ok(Compiled { query, def, text, key })
    }

    /// Fills in what the statement leaves open about the way to the sink.
    async fn accept(
        &self,
        view: &Snapshot,
        objects: &Objects,
        sink: SinkDef,
        wanted: Wanted,
    ) -> Result<SinkSpec> {
        let (delivery, view, objects) = (Arc::clone(&self.tenant.delivery), view.clone(), objects.clone());
        self.off_thread(move || sinks::accepted(&delivery, &objects, &view, &sink, wanted)).await
    }

    fn pipeline_def(
        &self,
        create: &CreatePipeline,
        compiled: &Compiled,
        spec: &SinkSpec,
        options: &PipelineOptions,
        (view, objects): (&Snapshot, &Objects),
    ) -> Result<PipelineDef> {
        let sink =
            objects.sink(&self.environment, &create.sink).ok_or_else(|| sinks::no_sink(&create.sink))?;
        let plugin = sinks::plugin_of(&self.tenant.delivery, objects, sink)?;
        let facts = plugin.as_ref().map(|plugin| &plugin.facts);
        let mut def = PipelineDef {
            id: hex(&random_bytes::<16>()),
            name: create.name.clone(),
            environment: self.environment.to_string(),
            query: compiled.text.clone(),
            sink: create.sink.clone(),
            key: compiled.key.clone(),
            encoding: spec.encoding,
            envelope: spec.envelope,
            tier: spec.tier,
            table: compiled.def.id,
            reads: compiled.query.reads().to_vec(),
            paused: false,
            generation: 1,
            resume_from: None,
            resumed: 0,
            snapshot: true,
            batch_rows: facts.map_or(BATCH_ROWS, |facts| facts.max_rows.max(1)),
            batch_bytes: facts.map_or(BATCH_BYTES, |facts| facts.max_bytes.clamp(1, MAX_BATCH_BYTES)),
            linger_ms: facts.map_or(LINGER_MS, |facts| facts.linger_ms),
            max_attempts: MAX_ATTEMPTS,
            on_exhausted: OnExhausted::Pause,
            on_rejected: OnRejected::DeadLetter,
            created_after: view.lsn().0,
            created_by: self.key_id(),
            created_at: now_us(),
        };
        set(&mut def, options);
        Ok(def)
    }
}

/// A pipeline holds some batches in memory whether its destination takes them or not: what all of a tenant's may hold
/// is shared out when they are defined, so that no pipeline ever waits for another's memory. Errors: 54000.
fn check_batches(objects: &Objects, def: &PipelineDef) -> Result<()> {
    let others = objects.pipelines().filter(|other| other.id != def.id);
    let others: u64 = others.map(|other| u64::from(other.batch_bytes)).sum();
    let wanted = u64::from(def.batch_bytes);
    if others + wanted <= MAX_TENANT_BATCH_BYTES {
        return Ok(());
    }
    let message = format!(
        "batches of {wanted} bytes do not fit: batch_bytes of this tenant's other pipelines are {others} together, and \
         {MAX_TENANT_BATCH_BYTES} is the most for all"
    );
    Err(Error::new(SqlState::ProgramLimitExceeded, message)
        .with_hint("Say less: WITH (batch_bytes = '1MiB'), here or with ALTER PIPELINE … SET for another."))
}

/// Options but for `delivery`, which the sink has a say in.
fn set(def: &mut PipelineDef, options: &PipelineOptions) {
    def.snapshot = options.snapshot.unwrap_or(def.snapshot);
    def.batch_rows = options.batch_rows.unwrap_or(def.batch_rows);
    def.batch_bytes = options.batch_bytes.unwrap_or(def.batch_bytes);
    def.linger_ms = options.linger_ms.unwrap_or(def.linger_ms);
    def.max_attempts = options.max_attempts.unwrap_or(def.max_attempts);
    def.on_exhausted = options.on_exhausted.unwrap_or(def.on_exhausted);
    def.on_rejected = options.on_rejected.unwrap_or(def.on_rejected);
}

fn wanted(create: &CreatePipeline, options: &PipelineOptions, keyed: bool) -> Wanted {
    let encoding = |format: statements::Format| match format {
        statements::Format::Arrow => Encoding::ArrowIpcStream,
        statements::Format::Ndjson => Encoding::Ndjson,
    };
    let envelope = |envelope: statements::Envelope| match envelope {
        statements::Envelope::Append => Envelope::Append,
        statements::Envelope::Debezium => Envelope::Debezium,
        statements::Envelope::Upsert => Envelope::Upsert,
    };
    Wanted {
        encoding: create.format.map(encoding),
        envelope: create.envelope.map(envelope),
        tier: options.tier,
        keyed,
    }
}

/// The query's text with the columns in the place of `*`: one that is added later must not change what is sent. Also
/// with the table's schema, unless that is `public`: a pipeline has no search path. `None` where the text is to stay.
fn written_out(query: &ast::Query, def: &TableDef) -> Option<String> {
    let mut query = query.clone();
    let select = select_of(&mut query)?;
    let bare = select.from.first_mut().and_then(|from| match &mut from.relation {
        ast::TableFactor::Table { name, .. } if name.0.len() == 1 && def.schema != PUBLIC_SCHEMA => {
            Some(name)
        }
        _ => None,
    });
    if bare.is_none() && !select.projection.iter().any(is_wildcard) {
        return None;
    }
    if let Some(name) = bare {
        let parts = [&def.schema, &def.name].map(|part| ast::Ident::with_quote('"', part));
        *name = ast::ObjectName::from(parts.to_vec());
    }
    let columns = def.columns.iter().map(|column| {
        ast::SelectItem::UnnamedExpr(ast::Expr::Identifier(ast::Ident::with_quote('"', &column.name)))
    });
    let columns: Vec<ast::SelectItem> = columns.collect();
    select.projection = std::mem::take(&mut select.projection)
        .into_iter()
        .flat_map(|item| if is_wildcard(&item) { columns.clone() } else { vec![item] })
        .collect();
    Some(query.to_string())
}

fn select_of(query: &mut ast::Query) -> Option<&mut ast::Select> {
    match query.body.as_mut() {
        ast::SetExpr::Select(select) => Some(select.as_mut()),
        ast::SetExpr::Query(inner) => select_of(inner),
        _ => None,
    }
}

fn is_wildcard(item: &ast::SelectItem) -> bool {
    matches!(item, ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..))
}
