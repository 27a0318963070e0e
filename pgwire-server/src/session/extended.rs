//! The extended protocol: Parse, Bind, Describe, Execute, Close. Sync lives in `session`.
//!
//! Messages are answered in order into the output buffer, so a pipeline is one write. The plan that Describe
//! shows is the plan that Execute runs. All statements up to Sync are one transaction; the last one's tag is
//! written when that is committed.

use std::{borrow::Cow, sync::Arc, time::Instant};

use arrow::array::ArrayRef;
use sepal_database::values::{decode_binary, decode_text};
use sepal_database::{
    Error, NamedStatement, Outcome, Prepared, RowStream, Session, SqlState, SqlType, TransactionStatus,
    snapshot_too_old,
};

use super::{
    Connection,
    errors::{Failure, protocol},
    held::{Portal, PortalState},
    rows::{ResultFormats, Rows},
};
use crate::frame::{Bind, Format, Parse, Target, write};

impl Connection {
    pub(super) async fn parse(&mut self, parse: Parse<'_>) -> Result<(), Failure> {
        self.watch.check_alive()?;
        self.begin_implicit();
        self.held.check_statement(parse.name, parse.sql.len())?;
        let declared: Vec<u32> = parse.types.iter().collect();
        self.start_clock();
        let recall = self.session.recall(parse.sql, &declared);
        let prepared = match self.watch.run(&mut self.wire, recall).await? {
            Some(prepared) => Some(prepared),
            None => match self.session.parse_one(parse.sql)? {
                None => None,
                Some(statement) => {
                    declared.iter().try_for_each(|oid| check_declared(&mut self.session, *oid))?;
                    self.start_clock();
                    Some(self.watch.run(&mut self.wire, self.session.prepare(statement, &declared)).await?)
                }
            },
        };
        self.watch.finish();
        let statement = NamedStatement { prepared, bytes: parse.sql.len() };
        self.held.add_statement(parse.name, Arc::new(statement));
        write::parse_complete(&mut self.wire.out);
        Ok(())
    }

    pub(super) fn bind(&mut self, bind: Bind<'_>) -> Result<(), Failure> {
        self.begin_implicit();
        let statement = self.held.statement(bind.statement)?;
        let prepared = statement.prepared.as_deref();
        let types = match prepared {
            Some(prepared) => self.session.parameter_types(prepared)?,
            None => Cow::Borrowed(&[][..]),
        };
        let parameters = self.session.time_zone().within(|| parameters(&bind, &types))?;
        let columns = prepared.and_then(Prepared::columns).map_or(0, <[_]>::len);
        // A statement without rows may be bound with any single code; drivers do so.
        let formats = bind.result_formats.for_count(columns).ok_or_else(|| {
            protocol(format!(
                "bind message has {} result formats but query has {columns} columns",
                bind.result_formats.len()
            ))
        })?;
        let shared = if bind.portal.is_empty() { Vec::new() } else { parameters.clone() };
        let portal = Portal {
            statement: Arc::clone(&statement),
            formats: ResultFormats::new(formats),
            state: PortalState::Ready(parameters),
            bytes: bind.values.total_bytes(),
            cursor: None,
        };
        // A name that SQL has given back may be taken.
        self.is_bound(bind.portal);
        self.held.add_portal(bind.portal, portal)?;
        if let (false, Some(prepared)) = (bind.portal.is_empty(), &statement.prepared) {
            match self.session.open_portal(bind.portal, prepared, &shared) {
                Ok(cursor) => self.held.note_cursor(bind.portal, cursor),
                Err(error) => {
                    self.held.drop_portal(bind.portal);
                    return Err(error.into());
                }
            }
        }
        write::bind_complete(&mut self.wire.out);
        Ok(())
    }

    /// Whether a portal is one of Bind. One that is a cursor to SQL, and was closed there or ended with its
    /// transaction, is none any more.
    fn is_bound(&mut self, name: &str) -> bool {
        let Ok(portal) = self.held.portal(name) else { return false };
        let closed = portal.cursor.is_some() && portal.cursor != self.session.portal_number(name);
        if closed {
            self.held.drop_portal(name);
        }
        !closed
    }

    pub(super) fn describe(&mut self, target: Target<'_>) -> Result<(), Failure> {
        self.begin_implicit();
        if let Target::Portal(name) = target
            && !self.is_bound(name)
            && let Some(columns) = self.session.portal_columns(name)
        {
            // What DECLARE has opened: its rows have the format that FETCH asks for.
            write::row_description(&mut self.wire.out, &columns, |_| Format::Text);
            return Ok(());
        }
        let out = &mut self.wire.out;
        let all_text = ResultFormats::All(Format::Text);
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.held.statement(name)?;
                let parameters = statement.prepared.as_deref().map_or(&[][..], Prepared::parameters);
                write::parameter_description(out, parameters);
                (statement, &all_text)
            }
            Target::Portal(name) => {
                let portal = self.held.portal(name)?;
                (Arc::clone(&portal.statement), &portal.formats)
            }
        };
        match statement.prepared.as_deref().and_then(Prepared::columns) {
            Some(columns) => write::row_description(out, columns, |column| formats.get(column)),
            None => write::no_data(out),
        }
        Ok(())
    }

    pub(super) fn close(&mut self, target: Target<'_>) {
        match target {
            Target::Portal(name) => {
                self.held.drop_portal(name);
                if !name.is_empty() {
                    self.session.close_portal(name);
                }
            }
            Target::Statement(name) => self.held.drop_statement(name),
        }
        write::close_complete(&mut self.wire.out);
    }

    pub(super) async fn execute(&mut self, name: &str, max_rows: i32) -> Result<(), Failure> {
        self.watch.check_alive()?;
        self.begin_implicit();
        let started = Instant::now();
        let was = self.session.transaction_status();
        // Zero and below mean all, as in Postgres. The number is only ever counted against.
        let limit = u64::try_from(max_rows).unwrap_or(0);
        if !name.is_empty()
            && !self.is_bound(name)
            && let Some(stream) = self.session.portal_rows(name)?
        {
            self.session.resume()?;
            return self.execute_cursor(stream, limit).await;
        }
        let (name, mut portal) = self.held.take_portal(name)?;
        self.run_portal(&name, &mut portal, limit).await?;
        if was != TransactionStatus::Idle && self.session.transaction_status() == TransactionStatus::Idle {
            // COMMIT or ROLLBACK in the middle of a pipeline.
            self.held.drop_portals();
        } else {
            self.held.put_back(name, portal);
        }
        self.extended_statements.inc();
        self.shared.metrics.statement_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Sends rows of a cursor that DECLARE has opened, from where it stands.
    async fn execute_cursor(&mut self, stream: RowStream, limit: u64) -> Result<(), Failure> {
        self.start_clock();
        let mut rows = Rows::new(stream, &self.session);
        let formats = ResultFormats::All(Format::Text);
        let sent = rows.send(&mut self.wire, &mut self.watch, &formats, limit).await?;
        self.shared.metrics.rows_sent.inc_by(sent.rows);
        self.extended_statements.inc();
        if sent.finished {
            return self.complete(&rows.tag(sent.rows)).await;
        }
        self.watch.finish();
        self.send_notices();
        write::portal_suspended(&mut self.wire.out);
        Ok(())
    }

    async fn run_portal(&mut self, name: &str, portal: &mut Portal, limit: u64) -> Result<(), Failure> {
        self.start_clock();
        match std::mem::replace(&mut portal.state, PortalState::Done) {
            PortalState::Ready(parameters) => {
                let Some(prepared) = &portal.statement.prepared else {
                    write::empty_query_response(&mut self.wire.out);
                    return Ok(());
                };
                // FETCH or MOVE may have begun it.
                let begun = if name.is_empty() { None } else { self.session.portal_rows(name)? };
                if let Some(stream) = begun {
                    self.session.resume()?;
                    let rows = Box::new(Rows::new(stream, &self.session));
                    return self.send_rows(portal, rows, limit).await;
                }
                let work = self.session.execute(prepared, parameters);
                match self.watch.run(&mut self.wire, work).await? {
                    Outcome::Rows(stream) => {
                        let shared = !name.is_empty();
                        let stream = if shared { self.session.share_rows(name, stream) } else { stream };
                        let rows = Box::new(Rows::new(stream, &self.session));
                        self.send_rows(portal, rows, limit).await
                    }
                    Outcome::Done { tag } => self.complete(&tag).await,
                    Outcome::CopyIn(copy) => {
                        let tag = self.copy_in(copy, None).await?;
                        self.complete(&tag).await
                    }
                    Outcome::CopyOut(copy) => {
                        let tag = self.copy_out(copy).await?;
                        self.complete(&tag).await
                    }
                    Outcome::Empty => {
                        write::empty_query_response(&mut self.wire.out);
                        Ok(())
                    }
                }
            }
            PortalState::Sending(rows) => {
                self.session.resume()?;
                self.send_rows(portal, rows, limit).await
            }
            PortalState::Finished(tag) => {
                self.command_complete(&tag);
                portal.state = PortalState::Finished(tag);
                Ok(())
            }
            PortalState::TooOld => {
                portal.state = PortalState::TooOld;
                Err(snapshot_too_old().into())
            }
            PortalState::Done => Err(Error::new(
                SqlState::ObjectNotInPrerequisiteState,
                format!("portal \"{name}\" cannot be run"),
            )
            .with_hint("It has run already. Bind a new portal.")
            .into()),
        }
    }

    /// Says that a statement is complete. If nothing follows in its transaction that is committed first: a commit
    /// may fail, and drivers overlook an error after the tag (tokio-postgres at the end of a COPY, for one).
    async fn complete(&mut self, tag: &str) -> Result<(), Failure> {
        if self.sync_follows().await? {
            self.end_implicit(true).await?;
        }
        self.command_complete(tag);
        Ok(())
    }

    /// Whether the next message is Sync. Waits for it: no client expects an answer before it has sent a Sync or
    /// Flush.
    pub(super) async fn sync_follows(&mut self) -> Result<bool, Failure> {
        self.watch.finish();
        loop {
            match self.wire.next_kind() {
                Some(kind) => return Ok(kind == b'S'),
                None => self.watch.input(&mut self.wire, None).await?,
            }
        }
    }

    async fn send_rows(
        &mut self,
        portal: &mut Portal,
        mut rows: Box<Rows>,
        limit: u64,
    ) -> Result<(), Failure> {
        let sent = rows.send(&mut self.wire, &mut self.watch, &portal.formats, limit).await?;
        self.shared.metrics.rows_sent.inc_by(sent.rows);
        if sent.finished {
            self.complete(&rows.tag(sent.rows)).await?;
            portal.state = PortalState::Finished(rows.tag(0));
        } else {
            self.watch.finish();
            self.send_notices();
            write::portal_suspended(&mut self.wire.out);
            portal.state = PortalState::Sending(rows);
        }
        Ok(())
    }
}

/// A type of Postgres' own that Sepal lacks (`bpchar`, `timetz`, …) is left to inference, as drivers declare them
/// freely. A user-defined oid that is not ours means another database's catalog: values would be misread.
fn check_declared(session: &mut Session, oid: u32) -> Result<(), Error> {
    const FIRST_USER_OID: u32 = 16_384;
    if oid < FIRST_USER_OID || SqlType::from_oid(oid).is_some() || session.has_type(oid) {
        return Ok(());
    }
    Err(Error::new(SqlState::UndefinedObject, format!("type with OID {oid} does not exist"))
        .with_hint("Look the type's oid up in this database: SELECT to_regtype('vector')::oid."))
}

/// Decodes the values of Bind, each into an array of one.
fn parameters(bind: &Bind<'_>, types: &[SqlType]) -> Result<Vec<ArrayRef>, Error> {
    if bind.values.len() != types.len() {
        return Err(protocol(format!(
            "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
            bind.values.len(),
            bind.statement,
            types.len()
        )));
    }
    let formats = bind.parameter_formats.for_count(types.len()).ok_or_else(|| {
        protocol(format!(
            "bind message has {} parameter formats but {} parameters",
            bind.parameter_formats.len(),
            types.len()
        ))
    })?;
    let values = bind.values.iter().zip(types).enumerate();
    values
        .map(|(position, (value, ty))| match formats.get(position) {
            Format::Text => decode_text(ty, value),
            Format::Binary => decode_binary(ty, value),
        })
        .collect()
}
