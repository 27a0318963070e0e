//! Portals and the unnamed statement of one connection, with the caps that keep a client from hoarding.
//!
//! Used by `extended`. Statements with names are the engine's, which EXECUTE knows them by, and it also has the rows of
//! portals with names, which are cursors to FETCH. The unnamed statement and portal have a place of their own: the hot
//! path allocates no name and hashes nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::array::ArrayRef;
use sepal_database::{Error, NamedStatement, NamedStatements, SqlState};

use super::rows::{ResultFormats, Rows};

/// A statement with its parameters, ready to run, running, or done.
pub struct Portal {
    pub statement: Arc<NamedStatement>,
    pub formats: ResultFormats,
    pub state: PortalState,
    /// Bytes of its parameters as they came.
    pub bytes: usize,
    /// Which cursor it is to SQL, if it is one.
    pub cursor: Option<u64>,
}

pub enum PortalState {
    /// Parameters, each an array of one value.
    Ready(Vec<ArrayRef>),
    Sending(Box<Rows>),
    /// All rows are sent; running it again finds none, which this tag says. What has sent them is gone: it may hold its
    /// snapshot.
    Finished(String),
    /// Its rows were held for longer than they may be.
    TooOld,
    /// A statement without rows has run, or the portal is running right now.
    Done,
}

/// What a client holds.
pub struct Held {
    named: NamedStatements,
    unnamed_statement: Option<Arc<NamedStatement>>,
    unnamed_portal: Option<Portal>,
    portals: HashMap<String, Portal>,
    portal_bytes: usize,
    max_portals: usize,
}

impl Held {
    /// `named`: the session's statements, with their limits.
    pub fn new(named: NamedStatements, max_portals: usize) -> Self {
        Self {
            named,
            unnamed_statement: None,
            unnamed_portal: None,
            portals: HashMap::new(),
            portal_bytes: 0,
            max_portals,
        }
    }

    /// Whether a statement of this name and size may be added. Asked before planning it.
    pub fn check_statement(&self, name: &str, bytes: usize) -> Result<(), Error> {
        if name.is_empty() { Ok(()) } else { self.named.check(name, bytes, self.portal_bytes) }
    }

    pub fn add_statement(&mut self, name: &str, statement: Arc<NamedStatement>) {
        if name.is_empty() {
            self.unnamed_statement = Some(statement);
        } else {
            self.named.add(name, statement, false);
        }
    }

    pub fn statement(&self, name: &str) -> Result<Arc<NamedStatement>, Error> {
        if !name.is_empty() {
            return self.named.get(name);
        }
        self.unnamed_statement.clone().ok_or_else(|| {
            Error::new(SqlState::InvalidSqlStatementName, "unnamed prepared statement does not exist")
        })
    }

    /// Forgets a statement; one that does not exist is no error.
    pub fn drop_statement(&mut self, name: &str) {
        if name.is_empty() {
            self.unnamed_statement = None;
        } else {
            // The error says only that there was none.
            let _none = self.named.remove(name);
        }
    }

    /// Notes that a portal with a name is a cursor.
    pub fn note_cursor(&mut self, name: &str, cursor: Option<u64>) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.cursor = cursor;
        }
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
        self.named.check_bytes(portal.bytes, self.portal_bytes)?;
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

    /// Whether a result waits for its client.
    pub fn is_sending(&self) -> bool {
        let mut portals = self.unnamed_portal.iter().chain(self.portals.values());
        portals.any(|portal| matches!(portal.state, PortalState::Sending(_)))
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
}

fn no_portal(name: &str) -> Error {
    Error::new(SqlState::InvalidCursorName, format!("portal \"{name}\" does not exist"))
}
