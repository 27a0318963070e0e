//! From the AST to a plan: names to places, literals and parameters to types.
//!
//! Two ways out: `Decline` when the query is not one for the evaluator (it names a user's table, or uses
//! something that only DataFusion does), `Fail` when it is wrong.

mod call;
mod cast;
mod expr;
mod from;
mod name;
mod predicate;
mod query;
mod select;

use datafusion::sql::sqlparser::ast::{self, Ident};
use sepal_types::{Error, SqlState, SqlType};

use super::super::CatalogContext;
use super::super::value::Value;
use super::plan::{Aggregate, Column, Expr, SetCall, Window};
use super::ty::{Class, Ty};

/// Why a query was not bound.
pub(super) enum Stop {
    Decline,
    Fail(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Fail(error)
    }
}

pub(super) type Bound<T> = Result<T, Stop>;
/// An expression and its type.
type Typed = (Expr, Ty);

pub(super) struct Binder<'a> {
    context: &'a CatalogContext,
    parameters: Vec<Option<SqlType>>,
    /// The queries around this place, outermost first.
    scopes: Vec<Scope>,
    /// The CTEs in sight, latest last.
    ctes: Vec<CteName>,
    /// What has been read since the outermost query began: which query's scope and which of its columns.
    reads: Vec<Read>,
    next_id: usize,
    touched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Column { level: usize, index: usize },
    Cte(usize),
}

/// One query: what its FROM offers, and what its select list has needed so far.
#[derive(Default)]
struct Scope {
    columns: Vec<ScopeColumn>,
    aggregates: Vec<Aggregate>,
    windows: Vec<Window>,
    sets: Vec<SetCall>,
    /// Calls already bound, so that the same call in ORDER BY is not made twice.
    seen_sets: Vec<ast::Expr>,
    /// Set-returning functions may stand here: in the select list only.
    allows_sets: bool,
    in_aggregate: bool,
}

#[derive(Clone)]
struct ScopeColumn {
    qualifier: String,
    name: String,
    ty: Ty,
    /// Not part of `*`: a system column, or the second of a pair that USING merged.
    hidden: bool,
    /// Not found by its bare name.
    merged: bool,
    /// Of such a pair the one that is: `*` shows it before all others.
    leads: bool,
}

struct CteName {
    name: String,
    id: usize,
    columns: Vec<Column>,
    used: bool,
}

impl<'a> Binder<'a> {
    pub fn new(context: &'a CatalogContext, declared: &[Option<SqlType>]) -> Self {
        let parameters = declared.iter().map(|ty| ty.clone().filter(|ty| *ty != SqlType::Unknown)).collect();
        Self {
            context,
            parameters,
            scopes: Vec::new(),
            ctes: Vec::new(),
            reads: Vec::new(),
            next_id: 0,
            touched: false,
        }
    }

    /// Whether a catalog relation, a catalog function or a reg* cast was met.
    pub fn touched(&self) -> bool {
        self.touched
    }

    /// The parameters' types as declared or inferred; text where nothing says more.
    pub fn parameters(&self) -> Vec<SqlType> {
        self.parameters.iter().map(|ty| ty.clone().unwrap_or(SqlType::Text)).collect()
    }

    fn id(&mut self) -> usize {
        self.next_id += 1;
        self.next_id
    }

    fn scope(&mut self) -> Bound<&mut Scope> {
        self.scopes.last_mut().ok_or_else(|| Stop::Fail(Error::bug("expression outside of any query")))
    }

    /// A column by name: `name`, `table.name`, `schema.table.name`.
    fn column(&mut self, parts: &[Ident]) -> Bound<Typed> {
        let folded: Vec<String> = parts.iter().map(fold).collect();
        let (name, qualifier) = match folded.as_slice() {
            [name] => (name, None),
            [.., qualifier, name] => (name, Some(qualifier)),
            [] => return Err(Stop::Decline),
        };
        let top = self.scopes.len();
        for level in (0..top).rev() {
            let matching = |column: &ScopeColumn| {
                column.name == *name
                    && match qualifier {
                        Some(qualifier) => column.qualifier == *qualifier,
                        None => !column.merged,
                    }
            };
            let columns = &self.scopes[level].columns;
            let found: Vec<usize> = (0..columns.len()).filter(|index| matching(&columns[*index])).collect();
            // System columns give way to real ones of the same name, and are not ambiguous among themselves.
            let visible: Vec<usize> = found.iter().copied().filter(|index| !columns[*index].hidden).collect();
            let index = match (visible.as_slice(), found.as_slice()) {
                ([index], _) => *index,
                ([], [index, ..]) => *index,
                ([], []) => continue,
                _ => {
                    let message = format!("column reference \"{name}\" is ambiguous");
                    return Err(Error::new(SqlState::AmbiguousColumn, message).into());
                }
            };
            let ty = columns[index].ty.clone();
            self.reads.push(Read::Column { level, index });
            return Ok((Expr::Column { depth: top - 1 - level, index }, ty));
        }
        // Functions that SQL writes without parentheses, where the parser took them for columns.
        if matches!(
            name.as_str(),
            "current_catalog" | "current_role" | "current_schema" | "current_user" | "session_user"
        ) && qualifier.is_none_or(|qualifier| qualifier == "pg_catalog")
        {
            return self.scalar_function(&name.clone(), Vec::new());
        }
        let written = match folded.as_slice() {
            [name] => format!("\"{name}\""),
            parts => parts.join("."),
        };
        Err(Error::new(SqlState::UndefinedColumn, format!("column {written} does not exist")).into())
    }

    /// The expression as a value of another type.
    fn coerce(&mut self, (value, from): Typed, to: &Ty) -> Bound<Expr> {
        if from == *to {
            return Ok(value);
        }
        if from.is_unknown() {
            return self.coerce_untyped(value, to);
        }
        let same = from.class() == to.class()
            && from.class() != Class::List
            && !narrows(to)
            && from.reg().is_none()
            && to.reg().is_none();
        // Number and name of an object are both its oid in memory.
        let both_oids = from.class() == Class::Int && to.class() == Class::Int;
        if same || both_oids {
            return Ok(value);
        }
        Ok(Expr::Cast { value: Box::new(value), from, to: to.clone() })
    }

    /// A literal or a parameter that nothing has typed yet.
    fn coerce_untyped(&mut self, value: Expr, to: &Ty) -> Bound<Expr> {
        match value {
            Expr::Parameter(place) => {
                let wanted = to.outward();
                if self.parameters[place].is_none() {
                    self.parameters[place] = Some(match to {
                        // The client sends a name, as it would write it.
                        Ty::Namespace | Ty::Role => SqlType::Text,
                        _ => wanted,
                    });
                }
                let from = self.parameter_type(place);
                if from == *to && to.reg().is_none() {
                    return Ok(Expr::Parameter(place));
                }
                // reg* parameters arrive as text.
                let from = if from.reg().is_some() { Ty::TEXT } else { from };
                if from.class() == to.class() && from.class() != Class::List && !narrows(to) {
                    return Ok(Expr::Parameter(place));
                }
                Ok(Expr::Cast { value: Box::new(Expr::Parameter(place)), from, to: to.clone() })
            }
            Expr::Constant(Value::Null) => Ok(Expr::Constant(Value::Null)),
            Expr::Constant(value @ Value::Text(_)) if to.class() == Class::Text && !narrows(to) => {
                Ok(Expr::Constant(value))
            }
            value => {
                let cast = Expr::Cast { value: Box::new(value), from: Ty::TEXT, to: to.clone() };
                Ok(Expr::Once(self.id(), Box::new(cast)))
            }
        }
    }

    fn parameter_type(&self, place: usize) -> Ty {
        self.parameters.get(place).cloned().flatten().map_or(Ty::UNKNOWN, Ty::Sql)
    }

    /// Both sides in a type in which they compare.
    fn meet(&mut self, left: Typed, right: Typed, operator: &str) -> Bound<(Expr, Expr, Ty)> {
        let (left_name, right_name) = (left.1.name(), right.1.name());
        let Some(mut ty) = left.1.common(&right.1) else {
            return Err(no_operator(&left_name, operator, &right_name));
        };
        // A name is looked up, not read as a number, wherever one side is a reg* value.
        if let Some(reg) = [&left.1, &right.1].into_iter().find(|ty| ty.reg().is_some()) {
            ty = reg.clone();
        }
        let (left, right) = (self.coerce(left, &ty)?, self.coerce(right, &ty)?);
        Ok((left, right, ty))
    }

    /// All in one type, for CASE, COALESCE, ARRAY and VALUES.
    fn meet_all(&mut self, values: Vec<Typed>) -> Bound<(Vec<Expr>, Ty)> {
        let mut ty = Ty::UNKNOWN;
        for (_, next) in &values {
            ty = if next.is_unknown() {
                ty
            } else if ty.is_unknown() {
                next.clone()
            } else {
                let message = || format!("types {} and {} cannot be matched", ty.name(), next.name());
                ty.common(next).ok_or_else(|| Error::new(SqlState::DatatypeMismatch, message()))?
            };
        }
        if ty.is_unknown() && values.iter().any(|(value, _)| !matches!(value, Expr::Constant(Value::Null))) {
            ty = Ty::TEXT;
        }
        let mut exprs = Vec::with_capacity(values.len());
        for value in values {
            exprs.push(self.coerce(value, &ty)?);
        }
        Ok((exprs, ty))
    }
}

/// A cast to it may shorten the value.
fn narrows(ty: &Ty) -> bool {
    matches!(ty, Ty::Sql(SqlType::Char | SqlType::Bpchar(Some(_)) | SqlType::Varchar(Some(_))))
}

fn no_operator(left: &str, operator: &str, right: &str) -> Stop {
    let error = Error::new(
        SqlState::UndefinedFunction,
        format!("operator does not exist: {left} {operator} {right}"),
    );
    Stop::Fail(error.with_hint("You might need to add explicit type casts."))
}

/// Unquoted names are lower case.
fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The parts of an object name, folded; `None` when it is not made of plain names.
fn name_parts(name: &ast::ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(fold)).collect()
}
