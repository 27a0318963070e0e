//! What a predicate is, so that what it let through can be found again.
//!
//! Two predicates of one identity let the same rows of an unchanging segment through. It is compared whole, part by
//! part, with every literal's value and type: a hash only leads to where to compare. No identity has what may give
//! another answer another time: functions that are not immutable, subqueries, which are known by what they look like
//! and not by their answer, and whatever reads a text as a moment, since `'yesterday'` is one.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        compute::CastOptions,
        datatypes::{DataType, FieldRef, Schema},
    },
    logical_expr::{Operator, ScalarUDF, Volatility},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{
            BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
            NegativeExpr, NotExpr, TryCastExpr,
        },
    },
    scalar::ScalarValue,
};
use sepal_storage::TableVersion;
use sepal_types::{ColumnDef, ColumnId, SqlType, TableId};

/// A longer predicate, a list of some thousand values, is not kept.
const MOST_BYTES: usize = 256 << 10;
/// What a part counts beside its literal's value.
const PART_BYTES: usize = 128;

/// A predicate, in parts: each stands before its operands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Of the parts: they are asked for it once for each segment.
    hash: u64,
    parts: Vec<Part>,
    bytes: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    kind: Kind,
    operands: usize,
}

/// Fields say more than types: what their metadata says decides how a function reads its operand.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// By its position in the table.
    Column(usize),
    Literal(ScalarValue, FieldRef),
    Binary(Operator),
    Cast(FieldRef, CastOptions<'static>),
    TryCast(FieldRef),
    Negative,
    Not,
    IsNull,
    IsNotNull,
    Like {
        negated: bool,
        case_insensitive: bool,
    },
    InList {
        negated: bool,
    },
    Case {
        has_base: bool,
        has_else: bool,
    },
    Function {
        function: ScalarUDF,
        returns: FieldRef,
        zone: Option<String>,
    },
}

/// A predicate over the columns of one table as they are defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Named {
    identity: Arc<Identity>,
    table: TableId,
    /// The columns that it reads, each with its position in the table.
    columns: Vec<(usize, ColumnName)>,
}

/// A column, and all that decides its values in a segment that never changes: also the value of rows that are older.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ColumnName {
    id: ColumnId,
    ty: SqlType,
    missing: Option<String>,
}

impl Identity {
    /// `None` for a predicate whose value does not depend on its columns alone, and for one of a kind not known here.
    pub fn of(predicate: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        let mut open = vec![predicate];
        while let Some(expr) = open.pop() {
            let kind = kind(expr.as_ref(), schema)?;
            bytes += PART_BYTES + kind.bytes();
            if bytes > MOST_BYTES {
                return None;
            }
            let operands = expr.children();
            parts.push(Part { kind, operands: operands.len() });
            open.extend(operands);
        }
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Some(Self { hash: hasher.finish(), parts, bytes })
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl Kind {
    fn bytes(&self) -> usize {
        match self {
            Self::Literal(value, _) => value.size(),
            _ => 0,
        }
    }
}

impl Named {
    /// `reads` tells of each column of the table whether the predicate reads it.
    pub fn new(identity: &Arc<Identity>, version: &TableVersion, reads: &[bool]) -> Self {
        let columns = version
            .def
            .columns
            .iter()
            .zip(reads)
            .enumerate()
            .filter(|(_, (_, read))| **read)
            .map(|(position, (column, _))| (position, ColumnName::of(column)));
        Self { identity: Arc::clone(identity), table: version.def.id, columns: columns.collect() }
    }

    /// About its bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.identity.bytes + self.columns.len() * PART_BYTES
    }
}

impl ColumnName {
    pub fn of(column: &ColumnDef) -> Self {
        Self { id: column.id, ty: column.ty.clone(), missing: column.missing.clone() }
    }
}

fn kind(expr: &dyn PhysicalExpr, schema: &Schema) -> Option<Kind> {
    let field = || expr.return_field(schema).ok();
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(Kind::Column(column.index()));
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Some(Kind::Literal(literal.value().clone(), field()?));
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return Some(Kind::Binary(*binary.op()));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return Some(Kind::Cast(field()?, cast.cast_options().clone()));
    }
    if expr.is::<TryCastExpr>() {
        return Some(Kind::TryCast(field()?));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        return Some(Kind::Like { negated: like.negated(), case_insensitive: like.case_insensitive() });
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        return Some(Kind::InList { negated: list.negated() });
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let (has_base, has_else) = (case.expr().is_some(), case.else_expr().is_some());
        return Some(Kind::Case { has_base, has_else });
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let zone = call.config_options().execution.time_zone.clone();
        let function = Kind::Function { function: call.fun().clone(), returns: field()?, zone };
        return is_settled(call, schema).then_some(function);
    }
    plain(expr)
}

/// Those that their operands say all of.
fn plain(expr: &dyn PhysicalExpr) -> Option<Kind> {
    if expr.is::<NotExpr>() {
        return Some(Kind::Not);
    }
    if expr.is::<IsNullExpr>() {
        return Some(Kind::IsNull);
    }
    if expr.is::<IsNotNullExpr>() {
        return Some(Kind::IsNotNull);
    }
    expr.is::<NegativeExpr>().then_some(Kind::Negative)
}

/// Whether a call gives the same answer at all times.
fn is_settled(call: &ScalarFunctionExpr, schema: &Schema) -> bool {
    let reads_text =
        || call.args().iter().any(|argument| argument.data_type(schema).is_ok_and(|ty| is_text(&ty)));
    call.fun().signature().volatility == Volatility::Immutable
        && !(is_moment(call.return_type()) && reads_text())
}

fn is_moment(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) => is_moment(item.data_type()),
        _ => ty.is_temporal(),
    }
}

fn is_text(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) => is_text(item.data_type()),
        _ => matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}
