//! A WITH query whose rows would be others the next time: PostgreSQL evaluates it once, however often it is named.
//!
//! DataFusion puts the query in the place of each name. Asked by [`super::Engine::plan`], so that nobody gets two
//! answers where there is one.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, Visitor, visit_expressions, visit_relations};
use sepal_types::{Error, Result};

use crate::ddl::identifier;

/// Functions whose value is another with every call; those that change something come here, too.
static VOLATILE: [&str; 6] =
    ["clock_timestamp", "gen_random_uuid", "nextval", "random", "setval", "uuid_generate_v4"];

/// Errors: 0A000 for a WITH query that calls such a function and is named more than once.
pub(super) fn check(query: &Query) -> Result<()> {
    match Visit::visit(query, &mut Once) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Once;

impl Visitor for Once {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let Some(function) = volatile_call(&cte.query) else { continue };
            let name = identifier(&cte.alias.name);
            // A recursive one names itself, and is evaluated as one.
            if times_named(&name, query) - times_named(&name, &cte.query) > 1 {
                let message =
                    format!("the WITH query \"{name}\", which calls {function}(), is named more than once");
                let error = Error::unsupported(message);
                return ControlFlow::Break(error.with_hint("Write its rows to a table first."));
            }
        }
        ControlFlow::Continue(())
    }
}

fn times_named(name: &str, query: &Query) -> usize {
    let mut times = 0_usize;
    let _ = visit_relations(query, |relation| {
        let is_it = match relation.0.as_slice() {
            [part] => part.as_ident().is_some_and(|ident| identifier(ident) == name),
            _ => false,
        };
        times += usize::from(is_it);
        ControlFlow::<()>::Continue(())
    });
    times
}

/// The name of such a function that a query calls.
fn volatile_call(query: &Query) -> Option<&'static str> {
    let found = visit_expressions(query, |expr| {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(identifier);
        let volatile = VOLATILE.iter().find(|volatile| name.as_deref() == Some(**volatile));
        volatile.map_or(ControlFlow::Continue(()), |volatile| ControlFlow::Break(*volatile))
    });
    found.break_value()
}
