//! `=`, `<>`, `<`, `<=`, `>`, `>=` over vectors and bit strings.
//!
//! The planner writes these calls for the operators; the names are pgvector's own, and those of Postgres' functions.
//! Vectors compare by elements, then by length, as pgvector's `vector_cmp`: Arrow compares lists of one fixed length
//! only, and knows no order among lists. Sparse vectors compare as the dense ones that they stand for. Bit strings
//! compare bit by bit, then by length (`bit_cmp` in `varbit.c`).

use std::{cmp::Ordering, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, BooleanArray},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlType};

use super::{
    bit::{bit_column, takes_bits},
    constants::{all_constant, answer},
    distance::elements,
    sparse,
    vector_cast::{common_kind, operand},
};
use crate::{
    error::{carry, undefined_function_call},
    output::natural_type,
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compared {
    Bits,
    Vectors,
    Sparse,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Comparison {
    name: &'static str,
    compared: Compared,
    operator: Operator,
    signature: Signature,
}

const COMPARISONS: [(&str, Compared, Operator); 18] = [
    ("biteq", Compared::Bits, Operator::Eq),
    ("bitge", Compared::Bits, Operator::GtEq),
    ("bitgt", Compared::Bits, Operator::Gt),
    ("bitle", Compared::Bits, Operator::LtEq),
    ("bitlt", Compared::Bits, Operator::Lt),
    ("bitne", Compared::Bits, Operator::NotEq),
    ("vector_eq", Compared::Vectors, Operator::Eq),
    ("vector_ge", Compared::Vectors, Operator::GtEq),
    ("vector_gt", Compared::Vectors, Operator::Gt),
    ("vector_le", Compared::Vectors, Operator::LtEq),
    ("vector_lt", Compared::Vectors, Operator::Lt),
    ("vector_ne", Compared::Vectors, Operator::NotEq),
    ("sparsevec_eq", Compared::Sparse, Operator::Eq),
    ("sparsevec_ge", Compared::Sparse, Operator::GtEq),
    ("sparsevec_gt", Compared::Sparse, Operator::Gt),
    ("sparsevec_le", Compared::Sparse, Operator::LtEq),
    ("sparsevec_lt", Compared::Sparse, Operator::Lt),
    ("sparsevec_ne", Compared::Sparse, Operator::NotEq),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    COMPARISONS.into_iter().map(|(name, compared, operator)| function(name, compared, operator)).collect()
}

fn function(name: &'static str, compared: Compared, operator: Operator) -> Arc<ScalarUDF> {
    let signature = Signature::any(2, Volatility::Immutable);
    Arc::new(ScalarUDF::from(Comparison { name, compared, operator, signature }))
}

/// `left <operator> right` as a call; `None` for an operator that is no comparison.
pub fn comparison(compared: Compared, operator: Operator, left: Expr, right: Expr) -> Option<Expr> {
    let (name, ..) =
        COMPARISONS.into_iter().find(|(_, known, wanted)| (*known, *wanted) == (compared, operator))?;
    let function = function(name, compared, operator);
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![left, right])))
}

impl ScalarUDFImpl for Comparison {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Errors: 42883 for what is no bit string. What is no vector is refused when rows come.
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if self.compared == Compared::Bits && !arguments.iter().all(takes_bits) {
            let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
            return Err(carry(undefined_function_call(self.name, &types)));
        }
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(carry(Error::bug(format!("{} takes two arguments", self.name))));
        };
        answer(Arc::new(self.rows(left, right)?), all_constant(&args.args))
    }
}

impl Comparison {
    /// NULL beside anything has no order.
    fn rows(&self, left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
        let rows = 0..left.len();
        Ok(match self.compared {
            Compared::Bits => {
                let (left, right) = (bit_column(left)?, bit_column(right)?);
                let order = |row| Some(bits_order(left.get_opt(row)?, right.get_opt(row)?));
                rows.map(|row| order(row).map(|order| self.holds(order))).collect()
            }
            Compared::Sparse => {
                let orders = sparse::orders(left, right)?.into_iter();
                orders.map(|order| order.map(|order| self.holds(order))).collect()
            }
            Compared::Vectors => {
                let kind = common_kind([left.data_type(), right.data_type()]);
                let (left, right) = (operand(left, kind)?, operand(right, kind)?);
                rows.map(|row| vectors_order(&left, &right, row).map(|order| self.holds(order))).collect()
            }
        })
    }

    fn holds(&self, order: Ordering) -> bool {
        match self.operator {
            Operator::Eq => order.is_eq(),
            Operator::Gt => order.is_gt(),
            Operator::GtEq => order.is_ge(),
            Operator::Lt => order.is_lt(),
            Operator::LtEq => order.is_le(),
            _ => order.is_ne(),
        }
    }
}

fn bits_order((left, bits): (&[u8], u32), (right, others): (&[u8], u32)) -> Ordering {
    let both = left.len().min(right.len());
    left[..both].cmp(&right[..both]).then(bits.cmp(&others))
}

/// `None` where one is NULL. A vector holds neither NaN nor NULL.
fn vectors_order(left: &ArrayRef, right: &ArrayRef, row: usize) -> Option<Ordering> {
    let (left, right) = (elements(left, row)?, elements(right, row)?);
    let (left, right) = (left.values(), right.values());
    let mut orders = left.iter().zip(right.iter()).filter_map(|(left, right)| left.partial_cmp(right));
    Some(orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len())))
}
