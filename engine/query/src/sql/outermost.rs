//! The expressions of a node that stand outside of the queries within it.
//!
//! Called by AST passes whose rules are those of one SELECT. Never goes into a subquery: it is visited on its own, or
//! handed over as a whole.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, VisitMut, Visitor, VisitorMut};

/// Hands over each of them, outer ones first: what is put in the place of one is looked through in its turn.
pub(super) fn change_outermost(node: &mut impl VisitMut, change: impl FnMut(&mut Expr)) {
    change_with_queries(node, change, |_| {});
}

/// The same, and hands over the queries that stand right among them.
pub(super) fn change_with_queries(
    node: &mut impl VisitMut,
    change: impl FnMut(&mut Expr),
    within: impl FnMut(&mut Query),
) {
    let _ = VisitMut::visit(node, &mut Changing { change, within, depth: 0 });
}

/// Whether one of them is such.
pub(super) fn any_outermost(node: &impl Visit, is_such: impl Fn(&Expr) -> bool) -> bool {
    Visit::visit(node, &mut Looking { is_such, depth: 0 }).is_break()
}

struct Changing<E, Q> {
    change: E,
    within: Q,
    depth: usize,
}

impl<E: FnMut(&mut Expr), Q: FnMut(&mut Query)> VisitorMut for Changing<E, Q> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.within)(query);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.change)(expr);
        }
        ControlFlow::Continue(())
    }
}

struct Looking<F> {
    is_such: F,
    depth: usize,
}

impl<F: Fn(&Expr) -> bool> Visitor for Looking<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 0 && (self.is_such)(expr) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
