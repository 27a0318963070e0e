//! The expressions of a node that stand outside of the queries within it.
//!
//! Called by AST passes whose rules are those of one SELECT. Never goes into a subquery: it is visited on its own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, VisitMut, Visitor, VisitorMut};

/// Hands over each of them, outer ones first: what is put in the place of one is looked through in its turn.
pub(super) fn change_outermost(node: &mut impl VisitMut, change: impl FnMut(&mut Expr)) {
    let _ = VisitMut::visit(node, &mut Outermost { each: change, depth: 0 });
}

/// Whether one of them is such.
pub(super) fn any_outermost(node: &impl Visit, is_such: impl Fn(&Expr) -> bool) -> bool {
    Visit::visit(node, &mut Outermost { each: is_such, depth: 0 }).is_break()
}

struct Outermost<F> {
    each: F,
    depth: usize,
}

impl<F: FnMut(&mut Expr)> VisitorMut for Outermost<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.each)(expr);
        }
        ControlFlow::Continue(())
    }
}

impl<F: Fn(&Expr) -> bool> Visitor for Outermost<F> {
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
        if self.depth == 0 && (self.each)(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
