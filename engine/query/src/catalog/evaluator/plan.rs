//! A bound catalog query: names resolved to places, types decided, casts in place.
//!
//! Made by `bind`, walked by `run`. A column is addressed by how many queries further out it lies and its
//! place in the row that that query's FROM makes; rows of a FROM with several items are their columns side by
//! side, in order.

use super::super::functions::Function;
use super::super::shape::Shape;
use super::super::value::Value;
use super::ty::Ty;

#[derive(Debug)]
pub(super) struct Query {
    /// For the cache of queries that do not depend on where they stand.
    pub id: usize,
    pub ctes: Vec<Cte>,
    pub body: Body,
    pub sort: Vec<Sort>,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
    pub columns: Vec<Column>,
    /// Reads columns of an enclosing query, or a CTE: must run again each time.
    pub dependent: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub ty: Ty,
}

#[derive(Debug)]
pub(super) enum Body {
    Nested(Box<Query>),
    Select(Box<Select>),
    Set(Box<SetOperation>),
    Values(Vec<Vec<Expr>>),
}

#[derive(Debug)]
pub(super) struct SetOperation {
    pub kind: SetKind,
    pub all: bool,
    pub left: Query,
    pub right: Query,
    /// For each column the type that both sides are cast to.
    pub types: Vec<Ty>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetKind {
    Except,
    Intersect,
    Union,
}

#[derive(Debug)]
pub(super) struct Cte {
    pub id: usize,
    /// The whole query, or the part of a recursive one that does not refer to itself.
    pub query: Query,
    pub recursion: Option<Recursion>,
}

#[derive(Debug)]
pub(super) struct Recursion {
    pub step: Query,
    /// UNION ALL: rows are not compared with earlier ones.
    pub all: bool,
}

#[derive(Debug)]
pub(super) struct Select {
    pub from: From,
    /// Conditions that no step of FROM could take.
    pub filter: Vec<Expr>,
    /// `Some` when there are groups; empty for one group of all rows.
    pub group: Option<Vec<Expr>>,
    pub having: Option<Expr>,
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<Window>,
    pub sets: Vec<SetCall>,
    pub output: Vec<Expr>,
    pub distinct: Distinct,
}

#[derive(Debug)]
pub(super) enum Distinct {
    No,
    Rows,
    On(Vec<Expr>),
}

#[derive(Debug, Default)]
pub(super) struct From {
    /// Where its first column stands: more than 0 for a join in parentheses.
    pub base: usize,
    pub steps: Vec<Step>,
}

/// One item of FROM, joined to those before it.
#[derive(Debug)]
pub(super) struct Step {
    pub source: Source,
    pub kind: Join,
    /// Where its columns begin, and how many there are.
    pub offset: usize,
    pub width: usize,
    /// Must run for each row so far: its expressions read them.
    pub lateral: bool,
    /// Conditions on its own columns only, for rows before they are joined.
    pub own: Vec<Expr>,
    /// Equalities: a value of the rows so far, a value of its own row.
    pub keys: Vec<(Expr, Expr)>,
    /// Other conditions of ON, for the joined row.
    pub on: Vec<Expr>,
    /// Conditions of WHERE that can be decided once it is joined.
    pub filter: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Full,
    Inner,
    Left,
    Right,
}

pub(super) enum Source {
    Cte(usize),
    Function { call: SetCall, ordinality: bool },
    Join(From),
    Query(Box<Query>),
    Relation(&'static Shape),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Cte(id) => write!(f, "Cte({id})"),
            Source::Function { call, .. } => call.fmt(f),
            Source::Join(from) => from.fmt(f),
            Source::Query(query) => query.fmt(f),
            Source::Relation(shape) => f.write_str(shape.relation.name),
        }
    }
}

/// A call that returns rows.
#[derive(Debug)]
pub(super) struct SetCall {
    pub function: SetFunction,
    pub arguments: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetFunction {
    AclExplode,
    /// `information_schema._pg_expandarray`: element and its number.
    ExpandArray,
    GenerateSeries,
    /// With the lower bound of the argument.
    GenerateSubscripts(i64),
    Keywords,
    OptionsToTable,
    /// A scalar function in FROM.
    One,
    /// The dead letters of one pipeline.
    SinkErrors,
    Unnest,
    /// Several arrays side by side, short ones filled with NULLs.
    UnnestTogether,
}

#[derive(Debug)]
pub(super) struct Sort {
    pub key: SortKey,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Debug)]
pub(super) enum SortKey {
    Expr(Expr),
    Output(usize),
}

#[derive(Debug)]
pub(super) struct Aggregate {
    pub kind: AggregateKind,
    pub arguments: Vec<Expr>,
    pub distinct: bool,
    pub order: Vec<(Expr, bool, bool)>,
    pub filter: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateKind {
    ArrayAgg,
    Average,
    BoolAnd,
    BoolOr,
    Count,
    CountRows,
    JsonAgg,
    Max,
    Min,
    StringAgg,
    Sum,
}

#[derive(Debug)]
pub(super) struct Window {
    pub kind: WindowKind,
    pub partition: Vec<Expr>,
    pub order: Vec<(Expr, bool, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowKind {
    DenseRank,
    Rank,
    RowNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
    Ne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    And,
    Divide,
    Multiply,
    Or,
    Remainder,
    Subtract,
}

/// A test of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Compare(Comparison),
    Like { ignore_case: bool, negated: bool, escape: Option<char> },
    Regex { ignore_case: bool, negated: bool },
}

pub(super) enum Expr {
    Aggregate(usize),
    And(Box<Expr>, Box<Expr>),
    /// `left test ANY (array)`, or ALL.
    AnyOrAll {
        test: Test,
        left: Box<Expr>,
        list: Box<Expr>,
        all: bool,
    },
    AnyOrAllRows {
        test: Test,
        left: Box<Expr>,
        query: Box<Query>,
        all: bool,
    },
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    Array(Vec<Expr>),
    ArrayOfRows(Box<Query>),
    Call(&'static Function, Vec<Expr>),
    Case {
        whens: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Cast {
        value: Box<Expr>,
        from: Ty,
        to: Ty,
    },
    Coalesce(Vec<Expr>),
    Column {
        depth: usize,
        index: usize,
    },
    /// Text.
    Concat(Box<Expr>, Box<Expr>),
    Constant(Value),
    DistinctFrom {
        left: Box<Expr>,
        right: Box<Expr>,
        negated: bool,
    },
    Exists {
        query: Box<Query>,
        negated: bool,
    },
    /// Of a record.
    Field(Box<Expr>, usize),
    /// The largest or smallest of several.
    Extreme {
        values: Vec<Expr>,
        largest: bool,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    /// An element of a list whose first one has this number.
    Index {
        list: Box<Expr>,
        index: Box<Expr>,
        lower: i64,
    },
    IsNull {
        value: Box<Expr>,
        negated: bool,
    },
    /// IS [NOT] TRUE, FALSE, UNKNOWN.
    Is {
        value: Box<Expr>,
        wanted: Option<bool>,
        negated: bool,
    },
    JoinLists(Box<Expr>, Box<Expr>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    NullIf(Box<Expr>, Box<Expr>),
    /// The same wherever it stands: computed once for each run.
    Once(usize, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Parameter(usize),
    Row(Vec<Expr>),
    Scalar(Box<Query>),
    Set(usize),
    Slice {
        list: Box<Expr>,
        from: Option<Box<Expr>>,
        to: Option<Box<Expr>>,
        lower: i64,
    },
    Test(Test, Box<Expr>, Box<Expr>),
    Window(usize),
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expr::Constant(value) => value.fmt(f),
            Expr::Column { depth, index } => write!(f, "column {depth}.{index}"),
            Expr::Call(function, arguments) => write!(f, "{}{arguments:?}", function.name),
            _ => f.write_str("expression"),
        }
    }
}

impl Expr {
    /// The places of this query's own row that it reads; `None` when it holds a query, an aggregate or
    /// anything else that cannot be computed from the row alone.
    pub fn own_columns(&self) -> Option<Vec<usize>> {
        match self {
            Expr::Column { depth: 0, index } => Some(vec![*index]),
            Expr::Column { .. } | Expr::Constant(_) | Expr::Parameter(_) | Expr::Once(..) => Some(Vec::new()),
            Expr::Cast { value, .. } | Expr::Negate(value) | Expr::Field(value, _) => value.own_columns(),
            Expr::Call(_, arguments) | Expr::Coalesce(arguments) | Expr::Row(arguments) => {
                let mut columns = Vec::new();
                for argument in arguments {
                    columns.extend(argument.own_columns()?);
                }
                Some(columns)
            }
            Expr::Arithmetic(_, left, right) | Expr::Concat(left, right) => {
                let mut columns = left.own_columns()?;
                columns.extend(right.own_columns()?);
                Some(columns)
            }
            _ => None,
        }
    }
}
