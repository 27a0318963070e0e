//! `=`, `<>`, `<`, `<=`, `>`, `>=` over vectors: by elements, then by length, as pgvector's `vector_cmp`.
//!
//! The planner writes these calls for the operators; the names are pgvector's own. Arrow compares lists of one
//! fixed length only, and knows no order among lists.

use std::{cmp::Ordering, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, BooleanArray},
        datatypes::DataType,
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_types::Error;

use super::{
    distance::elements,
    vector_cast::{common_kind, operand},
};
use crate::error::carry;

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorComparison {
    name: &'static str,
    operator: Operator,
    signature: Signature,
}

static COMPARISONS: [(&str, Operator); 6] = [
    ("vector_eq", Operator::Eq),
    ("vector_ge", Operator::GtEq),
    ("vector_gt", Operator::Gt),
    ("vector_le", Operator::LtEq),
    ("vector_lt", Operator::Lt),
    ("vector_ne", Operator::NotEq),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    COMPARISONS.iter().map(|(name, operator)| Arc::new(function(name, *operator))).collect()
}

fn function(name: &'static str, operator: Operator) -> ScalarUDF {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::from(VectorComparison { name, operator, signature })
}

/// `left <operator> right` as a call; `None` for an operator that is no comparison.
pub fn vector_comparison(operator: Operator, left: Expr, right: Expr) -> Option<Expr> {
    let (name, operator) = COMPARISONS.iter().find(|(_, candidate)| *candidate == operator)?;
    let function = Arc::new(function(name, *operator));
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![left, right])))
}

impl ScalarUDFImpl for VectorComparison {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(carry(Error::bug(format!("{} takes two arguments", self.name))));
        };
        let kind = common_kind([left.data_type(), right.data_type()]);
        let (left, right) = (operand(left, kind)?, operand(right, kind)?);
        let answers: BooleanArray =
            (0..left.len()).map(|row| compare(&left, &right, row).map(|order| self.holds(order))).collect();
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

impl VectorComparison {
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

/// NULL beside anything has no order. A vector holds neither NaN nor NULL.
fn compare(left: &ArrayRef, right: &ArrayRef, row: usize) -> Option<Ordering> {
    let (left, right) = (elements(left, row)?, elements(right, row)?);
    let (left, right) = (left.values(), right.values());
    let mut orders = left.iter().zip(right.iter()).filter_map(|(left, right)| left.partial_cmp(right));
    Some(orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len())))
}
