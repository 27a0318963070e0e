//! Statements planned: what Parse makes and Execute runs.

use std::sync::Arc;

use arrow::array::ArrayRef;
use parking_lot::RwLock;
use sepal_query::{
    CopyFormat, FastLookup, PointRead, StatementContext, Zone,
    catalog::CatalogQuery,
    ddl::CreateAs,
    dml::Dml,
    locking::LockingQuery,
    output::OutputColumn,
    planner::{LogicalPlan, SingleRow},
    sql::{Declare, Fetch, Statement},
    vector::FastKnn,
};
use sepal_types::{RelationName, SqlType, TableId};

use super::{named::Execute, utility::Utility};
use crate::locks::TableMode;

/// A planned statement of one session.
pub struct Prepared {
    pub(super) statement: Arc<Statement>,
    pub(super) declared: Vec<u32>,
    pub(super) parameters: Vec<SqlType>,
    /// The plan's one parameter, where its value was written into the text: the client is told of none.
    pub(super) given: Option<ArrayRef>,
    pub(super) columns: Option<Arc<[OutputColumn]>>,
    /// Somebody may have been told of `columns`: they must not become others.
    pub(super) told: bool,
    /// Replaced when definitions changed since it was planned.
    pub(super) plan: Arc<RwLock<Arc<Plan>>>,
}

/// What runs.
pub(super) struct Plan {
    pub kind: PlanKind,
    /// The columns of its rows.
    pub columns: Option<Arc<[OutputColumn]>>,
    /// What is locked before it runs.
    pub locks: Vec<(TableId, TableMode)>,
    /// What it was planned from.
    pub definitions: Definitions,
}

/// Names what tables there are and what they look like, to a session, and what else its plans were made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Definitions {
    /// The tenant's count of changes, as far as they are seen.
    pub committed: u64,
    /// Which ones the open transaction has made; 0 for none.
    pub own: u64,
    /// Along which search path names are looked up: its number in the session.
    pub path: u64,
    /// In which time zone literals were read.
    pub zone: Zone,
}

pub(super) enum PlanKind {
    /// A catalog query, answered without DataFusion.
    Catalog(CatalogQuery),
    CopyIn {
        table: RelationName,
        columns: Vec<OutputColumn>,
        format: CopyFormat,
    },
    CopyOut {
        query: Box<Query>,
        format: CopyFormat,
    },
    CreateAs {
        create: CreateAs,
        /// A query or a catalog query.
        source: Box<PlanKind>,
    },
    Ddl,
    /// A statement about secrets, plugins, sinks or pipelines.
    Delivery,
    Dml {
        dml: Dml,
        context: StatementContext,
    },
    Explain {
        query: Box<Query>,
        analyze: bool,
    },
    ExplainWrite {
        dml: Dml,
        context: StatementContext,
        analyze: bool,
    },
    /// A statement about snapshots, or a clone.
    History,
    Query(Box<Query>),
    /// Sees the past. Planned by each execution: a plan that is kept would keep what is old.
    Unplanned,
    Utility(Utility),
    Declare {
        declare: Declare,
        /// A query or a catalog query.
        source: Box<PlanKind>,
    },
    Execute(Execute),
    ExplainExecute {
        execute: Execute,
        /// EXPLAIN of what the name stands for.
        explain: Box<PlanKind>,
    },
    /// FETCH, MOVE
    Fetch(Fetch),
    /// PREPARE. What it prepares is planned when it runs.
    Prepare,
}

/// A planned query.
pub(super) struct Query {
    pub plan: LogicalPlan,
    pub fast: Option<FastKnn>,
    /// The plan again, when it asks for one row by its key.
    pub lookup: Option<FastLookup>,
    /// The plan again, when it asks for one row by its key and for more than its columns.
    pub point: Option<PointRead>,
    /// The plan again, when it reads no table.
    pub row: Option<SingleRow>,
    /// The plan with row ids, when the query has a locking clause.
    pub locking: Option<LockingQuery>,
    /// It may call a function of advisory locks.
    pub advisory: bool,
    pub context: StatementContext,
    pub columns: Arc<[OutputColumn]>,
    /// Reads the catalogs: what it shows is made when it is planned, so each execution plans anew.
    pub reads_catalog: bool,
}

impl Query {
    /// The plan where it goes by a key, with locks or without.
    pub fn by_key(&self) -> Option<&PointRead> {
        self.point.as_ref().or_else(|| self.locking.as_ref().and_then(LockingQuery::point))
    }
}

impl Prepared {
    /// The types of `$1`, `$2`, …
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    /// The columns of the rows it returns; `None` for a statement that returns none.
    pub fn columns(&self) -> Option<&[OutputColumn]> {
        self.columns.as_deref()
    }

    /// The oids of the parameters' types where the types that a new plan found are others: whoever was told of the
    /// first sends values of those, and the statement means what it meant with them.
    pub(super) fn told_types(&self, found: &[SqlType]) -> Option<Vec<u32>> {
        let same = self.parameters.iter().map(SqlType::oid).eq(found.iter().map(SqlType::oid));
        (self.given.is_none() && !same).then(|| self.parameters.iter().map(SqlType::oid).collect())
    }

    pub fn returns_rows(&self) -> bool {
        self.columns.is_some()
    }
}
