//! Prepared statements and portals of one connection, with the caps that keep a client from hoarding.
//!
//! Used by `extended`. The unnamed statement and portal have a place of their own: the hot path allocates no
//! name and hashes nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::array::ArrayRef;
use sepal_database::{Error, Prepared, SqlState};

use super::{
    deallocate::Deallocate,
    rows::{ResultFormats, Rows},
};

/// A parsed and planned statement.
pub struct Statement {
    /// `None`: the empty query.
    pub prepared: Option<Arc<Prepared>>,
    pub deallocate: Option<Deallocate>,
    /// Bytes of its SQL.
    pub bytes: usize,
}

/// A statement with its parameters, ready to run, running, or done.
pub struct Portal {
    pub statement: Arc<Statement>,
    pub formats: ResultFormats,
    pub state: PortalState,
    /// Bytes of its parameters as they came.
    pub bytes: usize,
}

pub enum PortalState {
    /// Parameters, each an array of one value.
    Ready(Vec<ArrayRef>),
    Sending(Box<Rows>),
    /// All rows are sent; running it again finds none.
    Finished(Box<Rows>),
    /// Its rows were held for longer than they may be.
    TooOld,
    /// A statement without rows has run, or the portal is running right now.
    Done,
}

/// What a client holds.
pub struct Held {
    unnamed_statement: Option<Arc<Statement>>,
    statements: HashMap<String, Arc<Statement>>,
    unnamed_portal: Option<Portal>,
    portals: HashMap<String, Portal>,
    statement_bytes: usize,
    portal_bytes: usize,
    max_statements: usize,
    max_portals: usize,
    max_bytes: usize,
}

impl Held {
    pub fn new(max_statements: usize, max_portals: usize, max_bytes: usize) -> Self {
        Self {
            unnamed_statement: None,
            statements: HashMap::new(),
            unnamed_portal: None,
            portals: HashMap::new(),
            statement_bytes: 0,
            portal_bytes: 0,
            max_statements,
            max_portals,
            max_bytes,
        }
    }

    /// Whether a statement of this name and size may be added. Asked before planning it.
    pub fn check_statement(&self, name: &str, bytes: usize) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        if self.statements.contains_key(name) {
            return Err(Error::new(
                SqlState::DuplicatePreparedStatement,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.statements.len() >= self.max_statements {
            return Err(Error::new(
                SqlState::ProgramLimitExceeded,
                format!("too many prepared statements: a connection may hold {}", self.max_statements),
            )
            .with_hint("Close statements that are no longer used."));
        }
        self.check_bytes(bytes)
    }

    pub fn add_statement(&mut self, name: &str, statement: Arc<Statement>) {
        if name.is_empty() {
            self.unnamed_statement = Some(statement);
            return;
        }
        self.statement_bytes += statement.bytes;
        self.statements.insert(name.to_owned(), statement);
    }

    pub fn statement(&self, name: &str) -> Result<&Arc<Statement>, Error> {
        let found = if name.is_empty() { self.unnamed_statement.as_ref() } else { self.statements.get(name) };
        found.ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            Error::new(SqlState::InvalidSqlStatementName, message)
        })
    }

    /// Forgets a statement; one that does not exist is no error.
    pub fn drop_statement(&mut self, name: &str) {
        if name.is_empty() {
            self.unnamed_statement = None;
        } else if let Some(statement) = self.statements.remove(name) {
            self.statement_bytes -= statement.bytes;
        }
    }

    /// Does what a DEALLOCATE or DISCARD ALL that has just run asks of the statements held here.
    pub fn deallocate(&mut self, deallocate: Option<&Deallocate>, tag: &str) -> Result<(), Error> {
        match deallocate {
            Some(Deallocate::One(name)) => {
                self.statement(name)?;
                self.drop_statement(name);
            }
            Some(Deallocate::All) => self.drop_statements(),
            None if matches!(tag, "DISCARD ALL" | "DEALLOCATE ALL") => self.drop_statements(),
            None => {}
        }
        Ok(())
    }

    fn drop_statements(&mut self) {
        self.statements.clear();
        self.statement_bytes = 0;
    }

    /// Adds a portal; the unnamed one replaces its predecessor.
    pub fn add_portal(&mut self, name: &str, portal: Portal) -> Result<(), Error> {
        if name.is_empty() {
            self.drop_portal(name);
            self.portal_bytes += portal.bytes;
            self.unnamed_portal = Some(portal);
            return Ok(());
        }
        if self.portals.contains_key(name) {
            return Err(Error::new(SqlState::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        if self.portals.len() >= self.max_portals {
            return Err(Error::new(
                SqlState::InsufficientResources,
                format!("too many open portals: a connection may hold {}", self.max_portals),
            )
            .with_hint("Close portals that are no longer used."));
        }
        self.check_bytes(portal.bytes)?;
        self.portal_bytes += portal.bytes;
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    pub fn portal(&self, name: &str) -> Result<&Portal, Error> {
        let found = if name.is_empty() { self.unnamed_portal.as_ref() } else { self.portals.get(name) };
        found.ok_or_else(|| no_portal(name))
    }

    /// Takes a portal out while it runs; [`Held::put_back`] returns it. One whose run fails stays out.
    pub fn take_portal(&mut self, name: &str) -> Result<(String, Portal), Error> {
        let taken = if name.is_empty() {
            self.unnamed_portal.take().map(|portal| (String::new(), portal))
        } else {
            self.portals.remove_entry(name)
        };
        let (name, portal) = taken.ok_or_else(|| no_portal(name))?;
        self.portal_bytes -= portal.bytes;
        Ok((name, portal))
    }

    pub fn put_back(&mut self, name: String, portal: Portal) {
        self.portal_bytes += portal.bytes;
        if name.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            self.portals.insert(name, portal);
        }
    }

    /// Forgets a portal; one that does not exist is no error.
    pub fn drop_portal(&mut self, name: &str) {
        // The error says only that there was none.
        let _none = self.take_portal(name);
    }

    /// Forgets every portal, at the end of a transaction.
    pub fn drop_portals(&mut self) {
        self.unnamed_portal = None;
        if !self.portals.is_empty() {
            self.portals.clear();
        }
        self.portal_bytes = 0;
    }

    /// How much longer the oldest result that waits for its client may be held; `None` when none waits, or without a
    /// limit.
    pub fn results_expire_in(&self, limit: Option<Duration>) -> Option<Duration> {
        let portals = self.unnamed_portal.iter().chain(self.portals.values());
        let ages = portals.filter_map(|portal| match &portal.state {
            PortalState::Sending(rows) => Some(rows.age()),
            _ => None,
        });
        Some(limit?.saturating_sub(ages.max()?))
    }

    /// Lets go of results that have waited for too long.
    pub fn expire_results(&mut self, limit: Option<Duration>) {
        let Some(limit) = limit else { return };
        for portal in self.unnamed_portal.iter_mut().chain(self.portals.values_mut()) {
            if matches!(&portal.state, PortalState::Sending(rows) if rows.age() >= limit) {
                portal.state = PortalState::TooOld;
            }
        }
    }

    fn check_bytes(&self, more: usize) -> Result<(), Error> {
        let held = self.statement_bytes.saturating_add(self.portal_bytes).saturating_add(more);
        if held <= self.max_bytes {
            return Ok(());
        }
        Err(Error::new(
            SqlState::InsufficientResources,
            format!(
                "prepared statements and portals would hold {held} bytes; a connection may hold {}",
                self.max_bytes
            ),
        )
        .with_hint("Close statements and portals that are no longer used."))
    }
}

fn no_portal(name: &str) -> Error {
    Error::new(SqlState::InvalidCursorName, format!("portal \"{name}\" does not exist"))
}
