//! EXPLAIN in Postgres' layout: one tree, children under arrows, index scans named as Postgres names them.

use std::{sync::Arc, time::Duration};

use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, scalar_subquery::ScalarSubqueryExec};

use crate::{
    planner::OnceExec,
    vector::{KnnExec, LateralExec},
};

/// The lines of `QUERY PLAN`.
pub fn explain_lines(plan: &Arc<dyn ExecutionPlan>, with_metrics: bool) -> Vec<String> {
    let mut lines = Vec::new();
    walk(plan, 0, with_metrics, &mut lines);
    walk_with_queries(plan, 0, with_metrics, &mut lines);
    lines
}

/// The lines for a write: `head` says what it does, the plan of the query for its rows stands below.
pub fn explain_write(head: Vec<String>, plan: Option<&Arc<dyn ExecutionPlan>>) -> Vec<String> {
    let mut lines = head;
    if let Some(plan) = plan {
        walk(plan, 1, false, &mut lines);
        walk_with_queries(plan, 1, false, &mut lines);
    }
    lines
}

/// The same where the rows are those of a key: `below` says so.
pub fn explain_write_by_key(head: Vec<String>, below: Vec<String>) -> Vec<String> {
    let indented = below.into_iter().enumerate().map(|(place, line)| match place {
        0 => format!("  ->  {line}"),
        _ => format!("      {line}"),
    });
    head.into_iter().chain(indented).collect()
}

/// What EXPLAIN ANALYZE adds at the end.
pub fn execution_time(elapsed: Duration, rows: u64) -> Vec<String> {
    vec![format!("Rows: {rows}"), format!("Execution Time: {:.3} ms", elapsed.as_secs_f64() * 1000.0)]
}

/// The lines of a vector search; `None` for any other node.
fn of_search(plan: &Arc<dyn ExecutionPlan>, with_metrics: bool) -> Option<Vec<String>> {
    let (mut lines, done) = if let Some(knn) = plan.downcast_ref::<KnnExec>() {
        let lines = knn.explain_lines().into_iter().map(|line| line.trim().to_owned()).collect();
        (lines, with_metrics.then(|| knn.analyze_lines()))
    } else {
        let lateral = plan.downcast_ref::<LateralExec>()?;
        (lateral.explain_lines(), with_metrics.then(|| lateral.analyze_lines()))
    };
    lines.extend(done.into_iter().flatten());
    Some(lines)
}

fn walk(plan: &Arc<dyn ExecutionPlan>, depth: usize, with_metrics: bool, lines: &mut Vec<String>) {
    // Exchanges and cooperation are DataFusion's plumbing, not steps of the query.
    if matches!(plan.name(), "RepartitionExec" | "CooperativeExec" | "CoalescePartitionsExec") {
        plan.children().into_iter().for_each(|child| walk(child, depth, with_metrics, lines));
        return;
    }
    // As Postgres has them: the plan, and below it what runs before.
    if plan.is::<ScalarSubqueryExec>() {
        for (position, child) in plan.children().into_iter().enumerate() {
            if position > 0 {
                lines.push(format!("{}InitPlan {position}", " ".repeat(6 * depth + 2)));
            }
            walk(child, depth + usize::from(position > 0), with_metrics, lines);
        }
        return;
    }
    let (first, rest) = match depth {
        0 => (String::new(), "  ".to_owned()),
        depth => (format!("{}->  ", " ".repeat(6 * (depth - 1) + 2)), " ".repeat(6 * depth + 2)),
    };
    let mut own = of_search(plan, with_metrics).unwrap_or_else(|| vec![describe(plan)]);
    if with_metrics && let Some(rows) = plan.metrics().and_then(|metrics| metrics.output_rows()) {
        own[0].push_str(&format!(" (actual rows={rows})"));
    }
    for (position, line) in own.iter().enumerate() {
        let line = without_vectors(line);
        lines.push(format!("{}{line}", if position == 0 { &first } else { &rest }));
    }
    for child in plan.children() {
        walk(child, depth + 1, with_metrics, lines);
    }
}

/// WITH queries that are evaluated once stand below the plan that reads them, under their names.
fn walk_with_queries(
    plan: &Arc<dyn ExecutionPlan>,
    depth: usize,
    with_metrics: bool,
    lines: &mut Vec<String>,
) {
    let mut found = Vec::new();
    with_queries(plan, &mut found);
    for query in found {
        lines.push(format!("{}CTE {}", " ".repeat(6 * depth + 2), query.query_name()));
        walk(query.evaluated(), depth + 1, with_metrics, lines);
    }
}

/// Each once, those that it reads itself after it.
fn with_queries<'a>(plan: &'a Arc<dyn ExecutionPlan>, found: &mut Vec<&'a OnceExec>) {
    if let Some(once) = plan.downcast_ref::<OnceExec>()
        && found.iter().all(|other| other.number() != once.number())
    {
        found.push(once);
        with_queries(once.evaluated(), found);
    }
    plan.children().into_iter().for_each(|child| with_queries(child, found));
}

/// A line with `[...]` in the place of each long list of numbers: a query vector has thousands.
fn without_vectors(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let list = after.split_once(']').filter(|(list, _)| is_long_list(list));
        match list {
            Some((_, behind)) => {
                out.push_str("[...]");
                rest = behind;
            }
            None => {
                out.push('[');
                rest = after;
            }
        }
    }
    out + rest
}

fn is_long_list(list: &str) -> bool {
    const SHORT: usize = 4;
    let mut numbers = list.split(',').map(|number| number.trim().parse::<f64>());
    list.matches(',').count() >= SHORT && numbers.all(|number| number.is_ok())
}

fn describe(plan: &Arc<dyn ExecutionPlan>) -> String {
    struct OneLine<'a>(&'a dyn ExecutionPlan);
    impl std::fmt::Display for OneLine<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt_as(DisplayFormatType::Default, f)
        }
    }
    OneLine(plan.as_ref()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_left_out_and_other_lists_stay() {
        let cases = [
            ("SortExec: expr=[l2(v, [1, 2.5, -3, 4, 1e-9]) ASC]", "SortExec: expr=[l2(v, [...]) ASC]"),
            ("FilterExec: id IN ([1, 2, 3])", "FilterExec: id IN ([1, 2, 3])"),
            ("ProjectionExec: expr=[a, b, c, d, e]", "ProjectionExec: expr=[a, b, c, d, e]"),
            ("no list [", "no list ["),
        ];
        for (line, expected) in cases {
            assert_eq!(without_vectors(line), expected);
        }
    }
}
