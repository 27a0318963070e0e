//! Finds the place that an error of the planner talks about.
//!
//! DataFusion's errors name a column or a table but carry no position; psql draws its caret from one.

use sepal_types::{Error, SqlState};

use super::Statement;

/// Adds the position of the quoted name in the message, where the statement holds that word.
pub fn locate(error: Error, statement: &Statement) -> Error {
    let names_object = matches!(
        error.state(),
        SqlState::UndefinedColumn
            | SqlState::UndefinedTable
            | SqlState::UndefinedFunction
            | SqlState::AmbiguousColumn
            | SqlState::UndefinedObject
    );
    if error.position().is_some() || !names_object {
        return error;
    }
    let name = error.message().split('"').nth(1).or_else(|| error.message().split([' ', '(']).nth(1));
    let position = name.and_then(|name| statement.position_of(name.rsplit('.').next().unwrap_or(name)));
    match position {
        Some(position) => error.with_position(position),
        None => error,
    }
}
