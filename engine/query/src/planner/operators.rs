//! Binary operators and array literals that mean something else when an operand is a vector; `typing` has the
//! other types' operators.
//!
//! `text_search` is asked first, then `json_operators`, which owns those of `json` and `jsonb`. Then `arrays` is.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue},
    error::Result,
    functions::expr_fn::greatest,
    logical_expr::{
        Expr, ExprSchemable, GetFieldAccess,
        expr::Placeholder,
        lit,
        planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, Metric, SqlState, SqlType, VectorKind};

use super::{
    arrays, chosen, json_operators, text_search, typing,
    untyped::{self, Operand},
};
use crate::{
    error::{carry, undefined_operator},
    functions::{
        as_text, bit_distance, distance_call, extract_call, is_bit_distance, plan_json_aggregate,
        scalar_functions, sparse_array_call, vector_array_call,
    },
    output::{is_sparse, typed_field, vector_kind},
    vector::vector_scalar,
};

/// Owns `<->`, `<=>`, `<#>`, `<+>`, `<~>`, `<%>`, arithmetic and comparison, ARRAY of vectors, and extract.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = (chosen::type_operand(left, schema)?, chosen::type_operand(right, schema)?);
        let expr = match text_search::plan(RawBinaryExpr { op, left, right }, schema)? {
            PlannerResult::Original(expr) => expr,
            planned => return Ok(planned),
        };
        if let Some(metric) = metric(&expr.op) {
            let RawBinaryExpr { left, right, .. } = expr;
            let (left, right) = if is_sparse_expr(&left, schema) || is_sparse_expr(&right, schema) {
                let ty = SqlType::SparseVec(None);
                (untyped::typed(left, &ty)?, untyped::typed(right, &ty)?)
            } else {
                typed_operands(left, right, schema)?
            };
            return Ok(PlannerResult::Planned(distance_call(metric, left, right)));
        }
        let expr = match json_operators::plan(expr, schema)? {
            PlannerResult::Original(expr) => expr,
            planned => return Ok(planned),
        };
        let expr = match arrays::plan(expr, schema)? {
            PlannerResult::Original(expr) => expr,
            planned => return Ok(planned),
        };
        if let BinaryOperator::Custom(operator) = &expr.op {
            let operator = operator.clone();
            return plan_bit_distance(&operator, expr).map(PlannerResult::Planned);
        }
        refuse_sparse_arithmetic(&expr, schema)?;
        refuse_joined_lists(&expr, schema)?;
        let function = match expr.op {
            BinaryOperator::Plus => "vector_add",
            BinaryOperator::Minus => "vector_sub",
            BinaryOperator::Multiply => "vector_mul",
            BinaryOperator::StringConcat => "vector_concat",
            _ => return typing::plan(expr, schema),
        };
        if kind(&expr.left, schema).is_none() && kind(&expr.right, schema).is_none() {
            let expr =
                if expr.op == BinaryOperator::StringConcat { print_beside_text(expr, schema) } else { expr };
            return typing::plan(expr, schema);
        }
        let (left, right) = typed_operands(expr.left, expr.right, schema)?;
        match scalar_functions().into_iter().find(|candidate| candidate.name() == function) {
            Some(function) => Ok(PlannerResult::Planned(function.call(vec![left, right]))),
            None => Err(carry(Error::bug(format!("{function} is not registered")))),
        }
    }

    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        Ok(PlannerResult::Original(plan_json_aggregate(expr)?))
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        if exprs.iter().any(|expr| is_sparse_expr(expr, schema)) {
            let ty = SqlType::SparseVec(None);
            let vectors = exprs.into_iter().map(|expr| untyped::typed(expr, &ty)).collect::<Result<_>>()?;
            return Ok(PlannerResult::Planned(sparse_array_call(vectors)));
        }
        let Some(kind) = common_kind(&exprs, schema) else {
            return Ok(PlannerResult::Original(chosen::type_elements(exprs, schema)?));
        };
        let vectors = exprs.into_iter().map(|expr| as_vector(expr, kind)).collect::<Result<_>>()?;
        Ok(PlannerResult::Planned(vector_array_call(vectors)))
    }

    /// Postgres counts elements from 1 and has none before; DataFusion takes a negative number from the end.
    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = expr;
        if let Operand::Typed(ty) = untyped::operand(&expr, schema)
            && (ty.vector_kind().is_some() || matches!(ty, SqlType::Bit(_) | SqlType::SparseVec(_)))
        {
            let name = ty.internal_name();
            let message = format!("cannot subscript type {name} because it does not support subscripting");
            return Err(carry(Error::new(SqlState::DatatypeMismatch, message)));
        }
        let field_access = match field_access {
            GetFieldAccess::ListIndex { key } => GetFieldAccess::ListIndex { key: Box::new(from_zero(*key)) },
            other => other,
        };
        Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, expr }))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(extract_call(args)))
    }
}

/// `text || anything` prints the other operand as its type does.
fn print_beside_text(expr: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let is_text = |operand: &Operand| {
        matches!(
            operand,
            Operand::Unknown | Operand::Typed(SqlType::Text | SqlType::Varchar(_) | SqlType::Bpchar(_))
        )
    };
    let printed = |operand: &Operand| {
        let Operand::Typed(ty) = operand else { return false };
        !matches!(ty, SqlType::Array(_) | SqlType::Bit(_) | SqlType::Bytea | SqlType::Json | SqlType::Jsonb)
            && arrow_type(ty) != DataType::Utf8
    };
    let (left, right) = (untyped::operand(&expr.left, schema), untyped::operand(&expr.right, schema));
    let RawBinaryExpr { op, left: left_expr, right: right_expr } = expr;
    match (printed(&left) && is_text(&right), is_text(&left) && printed(&right)) {
        (true, _) => RawBinaryExpr { op, left: as_text(left_expr), right: right_expr },
        (_, true) => RawBinaryExpr { op, left: left_expr, right: as_text(right_expr) },
        _ => RawBinaryExpr { op, left: left_expr, right: right_expr },
    }
}

/// The same index, or the one of no element.
fn from_zero(index: Expr) -> Expr {
    match &index {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) if *number >= 0 => index,
        Expr::Literal(ScalarValue::Int32(Some(number)), _) if *number >= 0 => index,
        _ => greatest(vec![index, lit(0_i64)]),
    }
}

/// `<~>` and `<%>`. Errors: 42883 for an operator that nobody has.
fn plan_bit_distance(operator: &str, expr: RawBinaryExpr) -> Result<Expr> {
    if !is_bit_distance(operator) {
        let message = format!("operator does not exist: {operator}");
        return Err(carry(Error::new(SqlState::UndefinedFunction, message)));
    }
    let bits = SqlType::Bit(None);
    let (left, right) = (untyped::typed(expr.left, &bits)?, untyped::typed(expr.right, &bits)?);
    bit_distance(operator, left, right)
        .ok_or_else(|| carry(Error::bug(format!("{operator} has no function"))))
}

fn metric(operator: &BinaryOperator) -> Option<Metric> {
    match operator {
        BinaryOperator::LtDashGt => Some(Metric::L2),
        BinaryOperator::Spaceship => Some(Metric::Cosine),
        BinaryOperator::Custom(text) => Metric::from_operator(text),
        BinaryOperator::PGCustomBinaryOperator(parts) => Metric::from_operator(parts.last()?),
        _ => None,
    }
}

fn kind(expr: &Expr, schema: &DFSchema) -> Option<VectorKind> {
    vector_kind(&expr.get_type(schema).ok()?)
}

fn is_sparse_expr(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| is_sparse(&ty))
}

/// Errors: 42883 for an operator that dense vectors or numbers have and sparse vectors have not.
fn refuse_sparse_arithmetic(expr: &RawBinaryExpr, schema: &DFSchema) -> Result<()> {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    let computes = matches!(expr.op, Divide | Minus | Modulo | Multiply | Plus);
    if !computes || !(is_sparse_expr(&expr.left, schema) || is_sparse_expr(&expr.right, schema)) {
        return Ok(());
    }
    let [left, right] = [&expr.left, &expr.right].map(|side| match untyped::operand(side, schema) {
        Operand::Typed(ty) => ty,
        Operand::Undetermined | Operand::Unknown => SqlType::Unknown,
    });
    Err(carry(undefined_operator(Some(&left), &expr.op.to_string(), &right)))
}

/// Errors: 42883 for `||` with a sparse vector or a bit string beside something that is neither text nor an array.
fn refuse_joined_lists(expr: &RawBinaryExpr, schema: &DFSchema) -> Result<()> {
    if expr.op != BinaryOperator::StringConcat {
        return Ok(());
    }
    let sides = (untyped::operand(&expr.left, schema), untyped::operand(&expr.right, schema));
    let (Operand::Typed(left), Operand::Typed(right)) = sides else { return Ok(()) };
    let whole = |ty: &SqlType| matches!(ty, SqlType::Bit(_) | SqlType::SparseVec(_));
    let other = |ty: &SqlType| !matches!(ty, SqlType::Array(_)) && arrow_type(ty) != DataType::Utf8;
    if (whole(&left) && other(&right)) || (other(&left) && whole(&right)) {
        return Err(carry(undefined_operator(Some(&left), "||", &right)));
    }
    Ok(())
}

/// What the vectors among expressions become together; `None` where there is none.
fn common_kind<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<VectorKind> {
    exprs.into_iter().filter_map(|expr| kind(expr, schema)).reduce(VectorKind::beside)
}

/// An untyped literal or parameter beside a vector is a vector of its kind.
fn typed_operands(left: Expr, right: Expr, schema: &DFSchema) -> Result<(Expr, Expr)> {
    let kind = common_kind([&left, &right], schema).unwrap_or(VectorKind::Single);
    Ok((as_vector(left, kind)?, as_vector(right, kind)?))
}

fn as_vector(expr: Expr, kind: VectorKind) -> Result<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => Ok(placeholder(id, &kind.sql_type(None))),
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            Ok(Expr::Literal(vector_scalar(&text, kind).map_err(carry)?, None))
        }
        other => Ok(other),
    }
}

/// A parameter of a known type.
pub(super) fn placeholder(id: String, ty: &SqlType) -> Expr {
    let field = typed_field(&id, arrow_type(ty), ty);
    Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
}
