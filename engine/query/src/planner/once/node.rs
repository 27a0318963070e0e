//! `WithQuery` in a logical plan: the place of one name of a WITH query that is evaluated once.
//!
//! It stands over the whole query until an execution takes that out ([`super::physical`]); then it is a leaf, so that
//! no rule moves into one name's query what is asked of that name alone.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    common::{
        DFSchemaRef,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
};

/// The node.
#[derive(Clone, Debug)]
pub struct Once {
    /// The same for all names of a query.
    pub number: usize,
    pub name: Arc<str>,
    /// `None` once it is taken out.
    input: Option<LogicalPlan>,
    schema: DFSchemaRef,
}

/// A query that was taken out of a plan.
pub struct TakenOut {
    pub number: usize,
    pub name: Arc<str>,
    pub plan: LogicalPlan,
}

impl Once {
    pub fn new(number: usize, name: &str, input: LogicalPlan) -> Self {
        let schema = Arc::clone(input.schema());
        Self { number, name: name.into(), input: Some(input), schema }
    }

    fn identity(&self) -> (usize, Option<&LogicalPlan>) {
        (self.number, self.input.as_ref())
    }
}

fn once(plan: &LogicalPlan) -> Option<&Once> {
    match plan {
        LogicalPlan::Extension(Extension { node }) => node.as_any().downcast_ref::<Once>(),
        _ => None,
    }
}

/// Whether a plan's topmost node is a [`Once`].
pub fn is_once(plan: &LogicalPlan) -> bool {
    once(plan).is_some()
}

/// Whether a plan has such nodes.
pub fn has_once(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= is_once(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Leaves in the place of all such nodes, and what stood below them: a query comes after those that it names.
pub fn take_out(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<TakenOut>)> {
    let mut taken: Vec<TakenOut> = Vec::new();
    let plan = plan.transform_up_with_subqueries(|node| {
        let Some((leaf, query)) = once(&node).and_then(Once::taken_out) else {
            return Ok(Transformed::no(node));
        };
        if taken.iter().all(|other| other.number != query.number) {
            taken.push(query);
        }
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(leaf) })))
    })?;
    Ok((plan.data, taken))
}

impl Once {
    fn taken_out(&self) -> Option<(Self, TakenOut)> {
        let query = TakenOut { number: self.number, name: Arc::clone(&self.name), plan: self.input.clone()? };
        Some((Self { input: None, ..self.clone() }, query))
    }
}

impl PartialEq for Once {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Once {}

impl PartialOrd for Once {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for Once {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Once {
    fn name(&self) -> &'static str {
        "WithQuery"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.input.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WithQuery: {}", self.name)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(match inputs.pop() {
            Some(input) => Self::new(self.number, &self.name, input),
            None => self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;

    fn named(number: usize, input: LogicalPlan) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Once::new(number, "q", input)) })
    }

    #[test]
    fn a_query_is_taken_out_once_after_those_that_it_names() {
        let rows = LogicalPlanBuilder::empty(true).build().unwrap();
        let (first, second) = (named(0, rows.clone()), named(1, named(0, rows)));
        let both = LogicalPlanBuilder::from(second.clone()).cross_join(first).unwrap();
        let plan = both.cross_join(second).unwrap().build().unwrap();
        let (plan, taken) = take_out(plan).unwrap();
        let numbers: Vec<usize> = taken.iter().map(|query| query.number).collect();
        assert_eq!(numbers, [0, 1]);
        assert!(!has_once(&taken[0].plan).unwrap());
        assert!(is_once(&taken[1].plan), "a leaf stands for the other");
        let mut leaves = 0;
        plan.apply_with_subqueries(|node| {
            leaves += usize::from(is_once(node));
            assert!(!is_once(node) || node.inputs().is_empty());
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        assert_eq!(leaves, 3);
    }
}
