//! `SHOW SECRETS` and its like: a SELECT over the view of that name.

use sepal_types::{Error, Result};

use super::{Delivery, cursor::Cursor};
use crate::sql::{StatementKind, parse_statements};

/// The words after SHOW, and what they show.
const VIEWS: [(&[&str], &str); 7] = [
    (&["CERTIFICATES"], "SELECT * FROM pg_catalog.sepal_certificates ORDER BY name"),
    (&["PIPELINES"], "SELECT * FROM pg_catalog.sepal_pipelines ORDER BY name"),
    (
        &["PLUGIN", "CAPABILITIES"],
        "SELECT * FROM pg_catalog.sepal_plugin_capabilities ORDER BY plugin, capability",
    ),
    (&["PLUGINS"], "SELECT * FROM pg_catalog.sepal_plugins ORDER BY name"),
    (&["SECRET", "RESOLVERS"], "SELECT * FROM pg_catalog.sepal_resolvers ORDER BY name"),
    (&["SECRETS"], "SELECT * FROM pg_catalog.sepal_secrets ORDER BY name"),
    (&["SINKS"], "SELECT * FROM pg_catalog.sepal_sinks ORDER BY name"),
];

/// Whether these words after SHOW name one of the views. Any other is a setting's name.
pub(super) fn names_view(words: &[&str]) -> bool {
    VIEWS.iter().any(|(view, _)| *view == words)
}

/// After `SHOW`.
pub(super) fn statement(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let Some((_, query)) = VIEWS.iter().find(|(view, _)| cursor.eat_all(view)) else {
        return Err(cursor.unexpected());
    };
    match parse_statements(query)?.pop().map(|statement| statement.kind) {
        Some(StatementKind::Sql(statement)) => Ok(Delivery::Show(statement)),
        _ => Err(Error::bug(format!("not a query: {query}"))),
    }
}
