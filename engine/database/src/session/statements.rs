//! Statements that a session has sent before, by their text: neither parsed nor planned again.
//!
//! The server asks here before it parses a query string or an unnamed statement. What is given back is what a named
//! prepared statement would be, so it holds what such a one holds and is planned anew where that would be; a text whose
//! plan is of older definitions is forgotten, and comes in as if it had never been seen. Texts of one session only: a
//! plan knows its session's sequences and settings, and a session has one environment and one key, with its scopes, for
//! life. Its settings are read when a plan runs, but for the search path and the time zone, which are a part of what names
//! definitions.
//!
//! A text in which a moment may be named (`'now'`) is not kept: its plan has the moment in it.
//!
//! A text is kept when it comes for the second time: the texts of drivers that write values into them come once. Those
//! that write a search's vector into it are told by what is around the vector.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arrow::array::ArrayRef;
use lru::LruCache;
use sepal_query::{
    sql::{inlined_vector, may_name_moment},
    values::decode_text,
    vector::FastKnn,
};
use sepal_types::{Error, Result};

use super::{
    Session,
    prepared::{Definitions, Plan, PlanKind, Prepared},
    utility::Utility,
};

/// Statements kept, at most.
const MOST_STATEMENTS: usize = 256;
/// Bytes of SQL kept. A plan is some two hundred times as large as its text.
const MOST_BYTES: usize = 64 << 10;
/// A longer text is not kept.
const MOST_BYTES_EACH: usize = 16 << 10;
/// Texts that are remembered as seen, roughly.
const SIGHTS: usize = 512;
/// A text longer than this is not searched for a vector: one of 16,000 dimensions fits.
const MOST_BYTES_READ: usize = 512 << 10;

/// What a session has sent before.
pub(super) struct Statements {
    kept: LruCache<u64, Kept>,
    /// Bytes of SQL in `kept`.
    bytes: usize,
    /// Hashes of texts that came once, each in the place that its value gives it.
    seen: Vec<u64>,
    /// The same of what was around vectors: texts with vectors in them are many, and each comes once.
    seen_around: Vec<u64>,
    hasher: RandomState,
}

struct Kept {
    statement: Found,
    bytes: usize,
}

#[derive(Clone)]
enum Found {
    Prepared(Arc<Prepared>),
    /// A text around a vector that cannot be run as one with a parameter, going by these definitions.
    Refused(Definitions),
}

/// What tells one statement from another, but for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Manner<'a> {
    declared: &'a [u32],
    /// See [`Prepared::told`].
    told: bool,
    /// The text is what is around a vector.
    around: bool,
}

impl Statements {
    pub fn new() -> Self {
        Self {
            kept: LruCache::unbounded(),
            bytes: 0,
            seen: Vec::new(),
            seen_around: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// DISCARD ALL.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    fn key(&self, sql: &str, manner: Manner<'_>) -> u64 {
        self.hasher.hash_one((sql, manner))
    }

    fn find(&mut self, key: u64, sql: &str, manner: Manner<'_>) -> Option<Found> {
        let found = &self.kept.get(&key)?.statement;
        let right = match found {
            Found::Prepared(prepared) => {
                *prepared.statement.sql == *sql
                    && prepared.declared == manner.declared
                    && prepared.told == manner.told
            }
            // Another text of the same hash is planned each time.
            Found::Refused(_) => true,
        };
        right.then(|| found.clone())
    }

    /// Whether a text has come before. It has, from now on.
    fn sight(&mut self, key: u64, manner: Manner<'_>) -> bool {
        let seen = if manner.around { &mut self.seen_around } else { &mut self.seen };
        seen.resize(SIGHTS, 0);
        let place = usize::try_from(key % SIGHTS as u64).unwrap_or(0);
        std::mem::replace(&mut seen[place], key) == key
    }

    fn keep(&mut self, key: u64, statement: Found, bytes: usize) {
        self.forget(key);
        self.bytes += bytes;
        self.kept.put(key, Kept { statement, bytes });
        while self.kept.len() > MOST_STATEMENTS || self.bytes > MOST_BYTES {
            let Some((_, gone)) = self.kept.pop_lru() else { break };
            self.bytes -= gone.bytes;
        }
    }

    fn forget(&mut self, key: u64) {
        if let Some(gone) = self.kept.pop(&key) {
            self.bytes -= gone.bytes;
        }
    }
}

impl Session {
    /// A statement that was sent before, as [`Self::prepare`] would give it; `None` for one that is to be parsed.
    ///
    /// Errors: those of a failed transaction, and of locking the statement's tables.
    pub async fn recall(&mut self, sql: &str, declared: &[u32]) -> Result<Option<Arc<Prepared>>> {
        self.recall_as(sql, Manner { declared, told: true, around: false }).await
    }

    /// The same as [`Self::prepare_now`] would give it.
    pub async fn recall_now(&mut self, sql: &str) -> Result<Option<Arc<Prepared>>> {
        self.recall_as(sql, Manner { declared: &[], told: false, around: false }).await
    }

    async fn recall_as(&mut self, sql: &str, manner: Manner<'_>) -> Result<Option<Arc<Prepared>>> {
        if !self.may_recall() || sql.len() > MOST_BYTES_READ {
            return Ok(None);
        }
        if sql.len() <= MOST_BYTES_EACH {
            let key = self.statements.key(sql, manner);
            if let Some(Found::Prepared(prepared)) = self.statements.find(key, sql, manner) {
                return self.still_holds(key, prepared).await;
            }
        }
        if !manner.declared.is_empty() {
            return Ok(None);
        }
        let Some(inlined) = inlined_vector(sql) else { return Ok(None) };
        let around = self.around_vector(&inlined.sql, Manner { around: true, ..manner }).await?;
        Ok(around.and_then(|around| around.with_vector(inlined.vector)).map(Arc::new))
    }

    /// Keeps a statement that was planned just now, if it may be and its text came before.
    pub(super) fn remember(&mut self, prepared: &Arc<Prepared>) {
        let sql = &prepared.statement.sql;
        let kept = prepared.statement.alone
            && sql.len() <= MOST_BYTES_EACH
            && !may_name_moment(sql)
            && self.may_recall();
        if !kept || !may_be_kept(&prepared.plan.read().kind) {
            return;
        }
        let manner = Manner { declared: &prepared.declared, told: prepared.told, around: false };
        let key = self.statements.key(sql, manner);
        if self.statements.sight(key, manner) {
            self.statements.keep(key, Found::Prepared(Arc::clone(prepared)), sql.len());
        }
    }

    /// Not where a plan is of the past, or of tables that only the open transaction has.
    fn may_recall(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.edition() == 0) && self.settings.lock().as_of().is_none()
    }

    /// A statement that was kept, its tables locked, if it is still planned as it would be now.
    async fn still_holds(&mut self, key: u64, prepared: Arc<Prepared>) -> Result<Option<Arc<Prepared>>> {
        self.cancel.arm();
        self.tenant.check_open()?;
        let plan: Arc<Plan> = Arc::clone(&prepared.plan.read());
        if let PlanKind::Utility(utility) = &plan.kind {
            self.check_not_failed(Some(utility))?;
            return Ok(Some(prepared));
        }
        self.check_not_failed(None)?;
        if plan.definitions != self.definitions() {
            self.statements.forget(key);
            return Ok(None);
        }
        let alone = self.open.is_none();
        if alone {
            self.start(false);
        }
        self.show_running(&prepared.statement.sql, true);
        let locked = self.lock_plan(&plan.locks).await;
        // Whoever had to be waited for may have altered a table.
        let holds = plan.definitions == self.definitions();
        if alone {
            self.roll_back();
        }
        locked?;
        Ok(holds.then_some(prepared))
    }

    /// The statement with `$1` where the vector is; `None` where there is no such, or where it was not seen before.
    ///
    /// Errors: those that say nothing of the text.
    async fn around_vector(&mut self, sql: &str, manner: Manner<'_>) -> Result<Option<Arc<Prepared>>> {
        if sql.len() > MOST_BYTES_EACH {
            return Ok(None);
        }
        let key = self.statements.key(sql, manner);
        match self.statements.find(key, sql, manner) {
            Some(Found::Prepared(prepared)) => return self.still_holds(key, prepared).await,
            Some(Found::Refused(by)) if by == self.definitions() => return Ok(None),
            Some(Found::Refused(_)) => {}
            None if !self.statements.sight(key, manner) => return Ok(None),
            None => {}
        }
        let definitions = self.definitions();
        // What is wrong with the text is said of the text as it is.
        let prepared = match self.parse_one(sql) {
            Ok(_) if may_name_moment(sql) => None,
            Ok(Some(statement)) => match self.prepare_as(statement, &[], manner.told).await {
                Ok(prepared) => Some(prepared),
                Err(error) if is_of_the_text(&error) => None,
                Err(error) => return Err(error),
            },
            Ok(None) | Err(_) => None,
        };
        let prepared = prepared.filter(|prepared| search_of(&prepared.plan.read()).is_some());
        let found = match &prepared {
            Some(prepared) => Found::Prepared(Arc::clone(prepared)),
            None => Found::Refused(definitions),
        };
        self.statements.keep(key, found, sql.len());
        Ok(prepared)
    }
}

impl Prepared {
    /// This statement with its one parameter given; `None` for what is no vector of the column's dimensions.
    fn with_vector(&self, text: &str) -> Option<Self> {
        let [ty] = self.parameters.as_slice() else { return None };
        ty.vector_kind()?;
        let vector: ArrayRef = decode_text(ty, Some(text.as_bytes())).ok()?;
        if !search_of(&self.plan.read())?.accepts(&vector) {
            return None;
        }
        Some(Self {
            statement: Arc::clone(&self.statement),
            declared: Vec::new(),
            parameters: Vec::new(),
            given: Some(vector),
            columns: self.columns.clone(),
            told: self.told,
            plan: Arc::clone(&self.plan),
        })
    }
}

/// The search that a plan is, if it is one without a plan of DataFusion's that is told nothing but a vector.
fn search_of(plan: &Plan) -> Option<&FastKnn> {
    match &plan.kind {
        PlanKind::Query(query) if query.locking.is_none() && query.context.nested.is_empty() => {
            query.fast.as_ref().filter(|fast| fast.takes_only_a_vector() && !query.reads_catalog)
        }
        _ => None,
    }
}

/// Queries and writes of tables, whose plans are named by definitions, and what begins and ends transactions. Catalogs
/// are planned each time; the rest is rare, runs long, or may have a secret in its text.
fn may_be_kept(kind: &PlanKind) -> bool {
    match kind {
        PlanKind::Query(query) => !query.reads_catalog,
        PlanKind::Dml { .. } => true,
        PlanKind::Utility(utility) => {
            matches!(utility, Utility::Begin { .. } | Utility::Commit { .. } | Utility::Rollback { .. })
        }
        _ => false,
    }
}

/// Syntax, names, types, values: not a lock, a cancellation, a transaction.
fn is_of_the_text(error: &Error) -> bool {
    matches!(error.state().code().get(..2), Some("0A" | "22" | "42" | "54"))
}

#[cfg(test)]
mod tests {
    use sepal_query::Zone;

    use super::*;

    const BY: Definitions = Definitions { committed: 1, own: 0, path: 0, zone: Zone::UTC };
    const MANNER: Manner<'static> = Manner { declared: &[], told: true, around: true };

    fn held(statements: &mut Statements, texts: std::ops::Range<usize>) -> usize {
        let found = |text: usize| {
            let text = text.to_string();
            let key = statements.key(&text, MANNER);
            statements.find(key, &text, MANNER)
        };
        texts.filter_map(found).count()
    }

    #[test]
    fn a_session_keeps_so_many_statements_and_so_many_bytes() {
        let mut statements = Statements::new();
        for text in 0..1_000 {
            let key = statements.key(&text.to_string(), MANNER);
            statements.keep(key, Found::Refused(BY), 10);
            statements.keep(key, Found::Refused(BY), 20);
        }
        assert_eq!((statements.kept.len(), statements.bytes), (MOST_STATEMENTS, 20 * MOST_STATEMENTS));
        assert_eq!(held(&mut statements, 0..1_000 - MOST_STATEMENTS), 0, "the oldest have left");
        assert_eq!(held(&mut statements, 1_000 - MOST_STATEMENTS..1_000), MOST_STATEMENTS);
        let key = statements.key("large", MANNER);
        statements.keep(key, Found::Refused(BY), MOST_BYTES - 40);
        assert_eq!((statements.kept.len(), statements.bytes), (3, MOST_BYTES));
        statements.forget(key);
        assert_eq!((statements.kept.len(), statements.bytes), (2, 40));
        statements.clear();
        assert_eq!((statements.kept.len(), statements.bytes), (0, 0));
    }

    #[test]
    fn a_text_is_told_by_its_manner() {
        let mut statements = Statements::new();
        let key = statements.key("a", MANNER);
        let others = [
            Manner { told: false, ..MANNER },
            Manner { around: false, ..MANNER },
            Manner { declared: &[23], ..MANNER },
            Manner { declared: &[0], ..MANNER },
        ];
        assert!(others.iter().all(|other| statements.key("a", *other) != key));
        assert!(!statements.sight(key, MANNER));
        assert!(!statements.sight(key, others[1]), "what is around vectors is seen for itself");
        assert!(statements.sight(key, MANNER));
    }
}
