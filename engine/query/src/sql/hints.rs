//! The types that a call gives to the parameters among its arguments.
//!
//! Called by the AST pass before an expression is rewritten. Operators are left to the planner, which knows the
//! type of every operand (`planner/typing.rs`); of a function's argument it would assume text. The rules are
//! those by which Postgres picks among the functions of a name: an untyped argument takes the type of the
//! others where they share one, else the type that the function wants, `double precision` among numbers.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, TypedString, UnaryOperator, Value,
};
use sepal_types::{EnumType, SqlType, VectorKind};

use super::{
    literals::number,
    params::{ParameterTypes, compared},
    rewrite::{ColumnTypes, call, cast_target, placeholder, wrapper_name, written_modifier},
    signatures::{chooses, common_type, rank, result, takes_one_type, wanted},
};
use crate::functions::text_search_result;

/// Types the parameters that stand right inside `expr`.
pub fn hint(expr: &Expr, parameters: &mut ParameterTypes, columns: &ColumnTypes<'_>) {
    let mut known = Known { parameters, columns };
    match expr {
        Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
            // `column = ANY($1)`: the parameter is an array of the column's type; of text where there is no telling. The
            // planner can tell of a column.
            let column = matches!(left.as_ref(), Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            let ty = known.column(left).or_else(|| known.type_of(left));
            if let Some(ty) = ty.or_else(|| (!column).then_some(SqlType::Text)) {
                known.give(right, &SqlType::Array(Box::new(compared(ty))));
            }
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            if let Some(operand) = operand.as_deref() {
                let beside = conditions.iter().map(|CaseWhen { condition, .. }| condition);
                known.give_common(&std::iter::once(operand).chain(beside).collect::<Vec<_>>());
            }
            known.give_common(&results(conditions, else_result.as_deref()));
        }
        Expr::BinaryOp {
            left,
            op:
                BinaryOperator::ArrowAt
                | BinaryOperator::AtArrow
                | BinaryOperator::PGOverlap
                | BinaryOperator::StringConcat,
            right,
        } => known.give_array(left, right),
        // The planner knows what to give to what stands after these words.
        Expr::Between { expr, low, high, .. } if placeholder(expr).is_some() => {
            known.give_common(&[expr.as_ref(), low.as_ref(), high.as_ref()]);
        }
        Expr::InList { expr, list, .. } if placeholder(expr).is_some() => {
            known.give_common(&std::iter::once(expr.as_ref()).chain(list).collect::<Vec<_>>());
        }
        Expr::Cast { expr, data_type, .. } => known.give_elements_of(expr, data_type),
        Expr::AtTimeZone { timestamp, time_zone } => {
            known.give(timestamp, &SqlType::Timestamptz);
            known.give(time_zone, &SqlType::Text);
        }
        Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => known.give(expr, &SqlType::Float8),
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            known.give(expr, &SqlType::Text);
            for count in [substring_from, substring_for].into_iter().flatten() {
                known.give(count, &SqlType::Int4);
            }
        }
        Expr::Trim { expr, .. } => known.give(expr, &SqlType::Text),
        Expr::Function(function) => known.give_arguments(function),
        _ => {}
    }
}

/// Reads string literals as what stands beside them, where a call, CASE or IS DISTINCT FROM wants one type of all and
/// DataFusion would not know: `coalesce(tags, '{}')`. Also where a function takes a number: `left(name, '3')`.
pub fn type_literals(expr: &mut Expr, parameters: &mut ParameterTypes, columns: &ColumnTypes<'_>) {
    let known = Known { parameters, columns };
    match expr {
        Expr::Case { operand, conditions, else_result, .. } => {
            let (mut compared, mut results): (Vec<&mut Expr>, Vec<&mut Expr>) = (Vec::new(), Vec::new());
            compared.extend(operand.as_deref_mut());
            let compares = !compared.is_empty();
            for CaseWhen { condition, result } in conditions {
                if compares {
                    compared.push(condition);
                }
                results.push(result);
            }
            results.extend(else_result.as_deref_mut());
            known.read_literals(compared);
            known.read_literals(results);
        }
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            known.read_literals(vec![left.as_mut(), right.as_mut()]);
        }
        Expr::Function(function) => {
            let Some(name) = name_of(function) else { return };
            let FunctionArguments::List(list) = &mut function.args else { return };
            let arguments = list.args.iter_mut().filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            });
            let arguments: Vec<&mut Expr> = arguments.collect();
            if chooses(&name) {
                return known.read_literals(arguments);
            }
            // Of a text `substring` might want a pattern.
            let numbers = wanted(&name, arguments.len()).into_iter().map(|ty| ty.is_number().then_some(ty));
            for (argument, ty) in arguments.into_iter().zip(numbers) {
                if let Some(ty) = ty.filter(|_| !name.starts_with("substr")) {
                    read_literal(argument, &ty);
                }
            }
        }
        _ => {}
    }
}

/// The type of an expression that shows it.
pub fn type_of(expr: &Expr, parameters: &mut ParameterTypes, columns: &ColumnTypes<'_>) -> Option<SqlType> {
    Known { parameters, columns }.type_of(expr)
}

/// The same where nothing within the expression is left open that could make it another type.
pub fn certain_type(
    expr: &Expr,
    parameters: &mut ParameterTypes,
    columns: &ColumnTypes<'_>,
) -> Option<SqlType> {
    Known { parameters, columns }.certain(expr)
}

/// Gives a string literal or a parameter the type of what stands beside it.
pub fn read_as(expr: &mut Expr, ty: &SqlType, parameters: &mut ParameterTypes) {
    match placeholder(expr) {
        Some(position) => parameters.hint(position, ty),
        None => read_literal(expr, ty),
    }
}

/// Whether nothing says what an expression is: a string literal, NULL, a parameter.
pub fn is_untyped(expr: &Expr, parameters: &ParameterTypes) -> bool {
    match expr {
        Expr::Nested(inner) => is_untyped(inner, parameters),
        Expr::Value(value) if matches!(value.value, Value::Null) => true,
        _ => is_text(expr) || placeholder(expr).is_some_and(|position| parameters.get(position).is_none()),
    }
}

/// What is known before planning.
struct Known<'a> {
    parameters: &'a mut ParameterTypes,
    columns: &'a ColumnTypes<'a>,
}

impl Known<'_> {
    fn give(&mut self, expr: &Expr, ty: &SqlType) {
        if let Some(position) = placeholder(expr) {
            self.parameters.hint(position, ty);
        }
    }

    /// Parameters take the type that the other expressions have together.
    fn give_common(&mut self, exprs: &[&Expr]) {
        let Some(ty) = self.common(exprs) else {
            return;
        };
        for expr in exprs {
            self.give(expr, &ty);
        }
    }

    /// String literals among expressions that have one type together become constants of it, where that is needed.
    fn read_literals(&self, exprs: Vec<&mut Expr>) {
        let Some(ty) = self.agreed(&exprs.iter().map(|expr| &**expr).collect::<Vec<_>>()) else { return };
        exprs.into_iter().for_each(|expr| read_literal(expr, &ty));
    }

    /// What expressions have in common, but those that have no type yet. `None` where one is not known: the planner,
    /// which knows all, reads the literals then.
    fn agreed(&self, exprs: &[&Expr]) -> Option<SqlType> {
        let open = |expr: &&Expr| !is_untyped(expr, self.parameters) && self.certain(expr).is_none();
        if exprs.iter().any(open) { None } else { self.common(exprs) }
    }

    /// The type of an expression in which nothing is left open.
    fn certain(&self, expr: &Expr) -> Option<SqlType> {
        match expr {
            Expr::Nested(inner)
            | Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => {
                self.certain(inner)
            }
            // Numbers: what dates and intervals make together is neither the one nor the other.
            Expr::BinaryOp {
                left,
                op:
                    BinaryOperator::Plus
                    | BinaryOperator::Minus
                    | BinaryOperator::Multiply
                    | BinaryOperator::Divide
                    | BinaryOperator::Modulo,
                right,
            } => {
                let (left, right) = (self.certain(left)?, self.certain(right)?);
                (rank(&left).is_some() && rank(&right).is_some()).then(|| common_type(left, right))
            }
            Expr::Case { conditions, else_result, .. } => {
                self.agreed(&results(conditions, else_result.as_deref()))
            }
            Expr::Function(function) => {
                let (name, arguments) = (name_of(function)?, arguments(function));
                if takes_one_type(&name) {
                    return self.agreed(&arguments);
                }
                if matches!(name.as_str(), "avg" | "max" | "min" | "sum") {
                    self.certain(arguments.first()?)?;
                }
                self.type_of(expr)
            }
            Expr::Array(array) => {
                let elements: Vec<&Expr> = array.elem.iter().collect();
                self.agreed(&elements)
                    .or_else(|| elements.iter().all(|element| is_text(element)).then_some(SqlType::Text))?;
                self.type_of(expr)
            }
            _ => self.type_of(expr),
        }
    }

    /// A parameter beside an array is one.
    fn give_array(&mut self, left: &Expr, right: &Expr) {
        for (array, beside) in [(left, right), (right, left)] {
            if let Some(ty @ SqlType::Array(_)) = self.type_of(array) {
                self.give(beside, &ty);
            }
        }
    }

    /// `ARRAY[$1, $2]::vector[]`: the cast types the elements.
    fn give_elements_of(&mut self, operand: &Expr, target: &DataType) {
        let array = match operand {
            Expr::Array(array) => array,
            Expr::Nested(inner) => return self.give_elements_of(inner, target),
            _ => return,
        };
        if let Some(SqlType::Array(element)) = cast_target(target) {
            array.elem.iter().for_each(|item| self.give(item, &element));
        }
    }

    /// The elements among the arguments of `array_append` and its kin.
    fn give_elements(&mut self, array: &Expr, elements: &[&Expr]) {
        if let Some(SqlType::Array(element)) = self.type_of(array) {
            elements.iter().for_each(|item| self.give(item, &element));
        }
    }

    fn give_arguments(&mut self, function: &Function) {
        let Some(name) = name_of(function) else {
            return;
        };
        let arguments = arguments(function);
        if arguments.iter().all(|argument| placeholder(argument).is_none()) {
            return;
        }
        if takes_one_type(&name) {
            self.give_common(&arguments);
            return;
        }
        match (name.as_str(), arguments.as_slice()) {
            (
                "array_append" | "array_position" | "array_positions" | "array_remove" | "array_replace",
                [array, rest @ ..],
            ) => {
                self.give_elements(
                    array,
                    rest.get(..if name == "array_replace" { 2 } else { 1 }).unwrap_or(rest),
                );
                return;
            }
            ("array_prepend", [element, array]) => {
                self.give_elements(array, &[*element]);
                return;
            }
            _ => {}
        }
        // Beside a halfvec or a sparsevec an untyped vector is one, too.
        let same = |ty: &SqlType| ty.vector_kind() == Some(VectorKind::Half) || ty.is_sparse();
        let beside = self.common(&arguments).filter(same);
        for (argument, ty) in arguments.iter().zip(wanted(&name, arguments.len())) {
            let ty = if ty.vector_kind().is_some() { beside.clone().unwrap_or(ty) } else { ty };
            self.give(argument, &ty);
        }
    }

    fn common(&self, exprs: &[&Expr]) -> Option<SqlType> {
        exprs.iter().filter_map(|expr| self.type_of(expr)).reduce(common_type)
    }

    /// The type of an expression that shows it.
    fn type_of(&self, expr: &Expr) -> Option<SqlType> {
        let ty = match expr {
            Expr::Value(value) => match &value.value {
                Value::Number(..) => number_type(number(expr)?),
                Value::Boolean(_) => SqlType::Bool,
                Value::Placeholder(_) => self.parameters.get(placeholder(expr)?)?.clone(),
                _ => return None,
            },
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                cast_target(data_type)?
            }
            Expr::Array(array) => {
                let elements: Vec<&Expr> = array.elem.iter().collect();
                let texts = !elements.is_empty() && elements.iter().all(|element| is_text(element));
                let element = self.common(&elements).or_else(|| texts.then_some(SqlType::Text))?;
                SqlType::Array(Box::new(element))
            }
            Expr::Case { conditions, else_result, .. } => {
                self.common(&results(conditions, else_result.as_deref()))?
            }
            Expr::Interval(_) => SqlType::Interval,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.column(expr)?,
            Expr::Nested(inner) => self.type_of(inner)?,
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => self.type_of(expr)?,
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo => self.common(&[left.as_ref(), right.as_ref()])?,
                BinaryOperator::StringConcat => {
                    let kept = |operand| {
                        let ty = self.type_of(operand);
                        ty.filter(|ty| matches!(ty, SqlType::Array(_) | SqlType::TsQuery | SqlType::TsVector))
                    };
                    kept(left).or_else(|| kept(right)).unwrap_or(SqlType::Text)
                }
                BinaryOperator::LongArrow | BinaryOperator::HashLongArrow => SqlType::Text,
                _ => return None,
            },
            Expr::Function(function) => {
                let name = name_of(function)?;
                match name.strip_prefix("sepal_cast_") {
                    Some(target) => SqlType::from_name(target)?,
                    None if takes_one_type(&name) => self.common(&arguments(function))?,
                    None => match self.aggregate(&name, &arguments(function)) {
                        Some(ty) => ty,
                        None => result(&name).or_else(|| text_search_result(&name))?,
                    },
                }
            }
            _ => return None,
        };
        Some(match ty {
            SqlType::Numeric(_) => SqlType::Numeric(None),
            SqlType::Bit(_) => SqlType::Bit(None),
            SqlType::Bpchar(_) => SqlType::Bpchar(None),
            SqlType::HalfVec(_) => SqlType::HalfVec(None),
            SqlType::Vector(_) => SqlType::Vector(None),
            SqlType::SparseVec(_) => SqlType::SparseVec(None),
            SqlType::Varchar(_) | SqlType::Name | SqlType::Char => SqlType::Text,
            other => other,
        })
    }

    /// What the common aggregates give, also over windows.
    fn aggregate(&self, name: &str, arguments: &[&Expr]) -> Option<SqlType> {
        let argument = || self.type_of(arguments.first()?);
        match (name, arguments.len()) {
            ("count" | "dense_rank" | "rank" | "row_number", _) => Some(SqlType::Int8),
            ("max" | "min", 1) => argument(),
            ("sum", 1) => match argument()? {
                SqlType::Int2 | SqlType::Int4 => Some(SqlType::Int8),
                SqlType::Int8 | SqlType::Numeric(_) => Some(SqlType::Numeric(None)),
                ty => Some(ty),
            },
            ("avg", 1) => match argument()? {
                SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Numeric(_) => {
                    Some(SqlType::Numeric(None))
                }
                SqlType::Float4 | SqlType::Float8 => Some(SqlType::Float8),
                ty => Some(ty),
            },
            _ => None,
        }
    }

    fn column(&self, expr: &Expr) -> Option<SqlType> {
        let name = match expr {
            Expr::Identifier(ident) => ident,
            Expr::CompoundIdentifier(parts) => parts.last()?,
            _ => return None,
        };
        (self.columns)(&normalized(name))
    }
}

fn name_of(function: &Function) -> Option<String> {
    function.name.0.last().and_then(|part| part.as_ident()).map(normalized)
}

/// A string literal as a constant of this type, unless it is text, or what `planner/json_operators.rs` reads.
fn read_literal(expr: &mut Expr, ty: &SqlType) {
    if !is_text(expr) || !is_no_text(ty) {
        return;
    }
    if let SqlType::Enum(ty) = ty {
        *expr = cast_to(ty, expr.clone());
        return;
    }
    let Some(wrapper) = wrapper_name(ty) else { return };
    let modifier = written_modifier(ty, expr).or_else(|| written_bits(ty, expr));
    *expr = call(&wrapper, expr.clone(), modifier);
}

fn is_no_text(ty: &SqlType) -> bool {
    ty.is_number()
        || ty.vector_kind().is_some()
        || matches!(
            ty,
            SqlType::Array(_)
                | SqlType::Bit(_)
                | SqlType::Bool
                | SqlType::Bytea
                | SqlType::Date
                | SqlType::Enum(_)
                | SqlType::Interval
                | SqlType::SparseVec(_)
                | SqlType::Time
                | SqlType::Timestamp
                | SqlType::Timestamptz
                | SqlType::Uuid
        )
}

/// Of an enum only the planner knows the labels.
fn cast_to(ty: &EnumType, expr: Expr) -> Expr {
    let name = [&ty.schema, &ty.name].map(|part| Ident::with_quote('"', part)).to_vec();
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type: DataType::Custom(name.into(), Vec::new()),
        array: false,
        format: None,
    }
}

/// The length that a bit string is written with.
fn written_bits(ty: &SqlType, literal: &Expr) -> Option<i32> {
    let (SqlType::Bit(None), Expr::Value(value)) = (ty, literal) else { return None };
    let Value::SingleQuotedString(digits) = &value.value else { return None };
    let plain = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0' | b'1'));
    plain.then(|| i32::try_from(digits.len()).ok()).flatten()
}

/// A string literal, which has no type yet.
fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value)
        if matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_)))
}

/// What CASE chooses from.
fn results<'a>(conditions: &'a [CaseWhen], or_else: Option<&'a Expr>) -> Vec<&'a Expr> {
    conditions.iter().map(|CaseWhen { result, .. }| result).chain(or_else).collect()
}

fn arguments(function: &Function) -> Vec<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn normalized(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn number_type(digits: &str) -> SqlType {
    if digits.parse::<i32>().is_ok() {
        SqlType::Int4
    } else if digits.parse::<i64>().is_ok() {
        SqlType::Int8
    } else {
        SqlType::Numeric(None)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    #[test]
    fn arguments_give_parameters_their_types() {
        let cases = [
            ("coalesce($1, 7)", SqlType::Int4),
            ("coalesce($1, 7, 2.5)", SqlType::Numeric(None)),
            ("greatest(id + 1, $1)", SqlType::Int8),
            ("nullif($1, 'x'::uuid)", SqlType::Uuid),
            ("round($1, 2)", SqlType::Numeric(None)),
            ("sqrt($1)", SqlType::Float8),
            ("lower($1)", SqlType::Text),
            ("id = ANY($1)", SqlType::Array(Box::new(SqlType::Int8))),
            ("lower(t) = ANY($1)", SqlType::Array(Box::new(SqlType::Text))),
            ("m ->> 't' <> ALL($1)", SqlType::Array(Box::new(SqlType::Text))),
            ("length(t) = ANY($1)", SqlType::Array(Box::new(SqlType::Int4))),
            ("id % 2 = ANY($1)", SqlType::Array(Box::new(SqlType::Int8))),
            ("CASE WHEN true THEN $1 ELSE false END", SqlType::Bool),
            ("CASE id WHEN $1 THEN 'x' END", SqlType::Int8),
            ("ARRAY['a'] || $1", SqlType::Array(Box::new(SqlType::Text))),
            ("$1 && ARRAY[id]", SqlType::Array(Box::new(SqlType::Int8))),
            ("array_cat(ARRAY[1], $1)", SqlType::Array(Box::new(SqlType::Int4))),
            ("array_append(ARRAY['a'] || ARRAY['b'], $1)", SqlType::Text),
            ("array_prepend($1, ARRAY[2.5])", SqlType::Numeric(None)),
            ("ARRAY[$1]::vector[]", SqlType::Vector(None)),
            ("l2_distance(v, $1)", SqlType::Vector(None)),
            ("l2_distance('[1]'::halfvec, $1)", SqlType::HalfVec(None)),
            ("l2_distance('{}/3'::sparsevec(3), $1)", SqlType::SparseVec(None)),
            ("sparsevec_cmp($1, '{}/3')", SqlType::SparseVec(None)),
        ];
        for (sql, expected) in cases {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let expr = parser.and_then(|mut parser| parser.parse_expr()).expect("a valid expression");
            let mut parameters = ParameterTypes::default();
            hint(&expr, &mut parameters, &|name: &str| (name == "id").then_some(SqlType::Int8));
            assert_eq!(parameters.get(1), Some(&expected), "{sql}");
        }
    }

    #[test]
    fn literals_have_the_type_of_what_stands_beside_them() {
        let cases = [
            ("coalesce(tags, '{}')", "coalesce(tags, sepal_cast__text('{}'))"),
            (
                "CASE WHEN a THEN '{1}' ELSE ARRAY[2] END",
                "CASE WHEN a THEN sepal_cast__int4('{1}') ELSE ARRAY[2] END",
            ),
            ("array_cat('{a}', tags)", "array_cat(sepal_cast__text('{a}'), tags)"),
            ("coalesce(n, '0')", "coalesce(n, sepal_cast_int4('0'))"),
            ("coalesce(max(n + 1), '0')", "coalesce(max(n + 1), sepal_cast_int4('0'))"),
            ("greatest('2.5', n, 1.0)", "greatest(sepal_cast_numeric('2.5', 131077), n, 1.0)"),
            (
                "CASE n WHEN '1' THEN '2' ELSE NULL END",
                "CASE n WHEN sepal_cast_int4('1') THEN '2' ELSE NULL END",
            ),
            ("left(t, '3')", "left(t, sepal_cast_int4('3'))"),
            ("split_part('1,2', ',', '2')", "split_part('1,2', ',', sepal_cast_int4('2'))"),
            // What is not known here might be of any type.
            ("coalesce(unknown, 1, '2.5')", "coalesce(unknown, 1, '2.5')"),
            ("coalesce(unknown + 1, '2.5')", "coalesce(unknown + 1, '2.5')"),
            ("coalesce(max(unknown + 1), '2.5')", "coalesce(max(unknown + 1), '2.5')"),
            ("coalesce(d - d, '1')", "coalesce(d - d, '1')"),
            ("coalesce(t, '{}')", "coalesce(t, '{}')"),
            ("nullif(v, '[1,2]')", "nullif(v, sepal_cast_vector('[1,2]', 2))"),
            ("b IS DISTINCT FROM '1010'", "b IS DISTINCT FROM sepal_cast_bit('1010', 4)"),
            (
                "CASE b WHEN '101' THEN v ELSE '[1]' END",
                "CASE b WHEN sepal_cast_bit('101', 3) THEN v ELSE sepal_cast_vector('[1]', 1) END",
            ),
        ];
        let columns = |name: &str| match name {
            "b" => Some(SqlType::Bit(Some(3))),
            "d" => Some(SqlType::Date),
            "n" => Some(SqlType::Int4),
            "tags" => Some(SqlType::Array(Box::new(SqlType::Text))),
            "v" => Some(SqlType::Vector(Some(3))),
            _ => None,
        };
        for (sql, expected) in cases {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let mut expr = parser.and_then(|mut parser| parser.parse_expr()).expect("a valid expression");
            type_literals(&mut expr, &mut ParameterTypes::default(), &columns);
            assert_eq!(expr.to_string(), expected);
        }
    }
}
