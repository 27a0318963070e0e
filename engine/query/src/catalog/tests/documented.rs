//! Do the views that the operators' guides name exist, with the columns that the guides say?

use crate::catalog::shape::{PG_CATALOG, shape};

const GUIDES: [&str; 4] = [
    include_str!("../../../../../docs/keys.md"),
    include_str!("../../../../../docs/maintenance.md"),
    include_str!("../../../../../docs/time-travel.md"),
    include_str!("../../../../../docs/backups.md"),
];

/// Figures of `/metrics`, which are no views.
const METRICS: [&str; 3] = ["sepal_backup_", "sepal_column_cache_", "sepal_rows_written_bytes"];

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

#[test]
fn views_of_the_guides_exist() {
    let mut seen = 0;
    for guide in GUIDES {
        let words =
            guide.split(|character: char| !character.is_ascii_alphanumeric() && !"_.".contains(character));
        let views = words.filter(|word| word.starts_with("sepal_") || word.starts_with("pg_stat"));
        for word in views.filter(|word| !METRICS.iter().any(|metric| word.starts_with(metric))) {
            let mut parts = word.trim_end_matches('.').split('.');
            let view = shape(PG_CATALOG, parts.next().unwrap_or_default());
            let view = view.unwrap_or_else(|| panic!("{word} is no view"));
            if let Some(column) = parts.next() {
                assert!(view.position(column).is_some(), "{word}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} views were found");
}

/// `SELECT * FROM view;   -- its columns`, and `SELECT some, columns FROM view;`.
#[test]
fn views_have_the_columns_that_the_guides_say() {
    let mut lists = 0;
    for line in GUIDES.iter().flat_map(|guide| guide.lines()) {
        let query = line.strip_prefix("SELECT ").and_then(|rest| rest.split_once(" FROM "));
        let Some((columns, rest)) = query else { continue };
        let (name, comment) = rest.split_once(';').unwrap_or((rest, ""));
        let Some(view) = shape(PG_CATALOG, name) else { continue };
        let said = if columns == "*" { comment.trim().trim_start_matches("--").trim() } else { columns };
        let said: Vec<&str> = said.split(", ").collect();
        // Other comments are prose.
        if !said.iter().all(|column| is_name(column)) {
            continue;
        }
        lists += 1;
        if columns == "*" {
            let all: Vec<&str> = view.columns.iter().map(|(column, _)| *column).collect();
            assert_eq!(said, all, "{name}");
        } else {
            assert!(said.iter().all(|column| view.position(column).is_some()), "{line}");
        }
    }
    assert!(lists >= 5, "{lists} lists were found");
}
