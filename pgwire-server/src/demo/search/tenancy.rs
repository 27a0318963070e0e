//! What another tenant of the same server sees of our table: nothing, by name, in the catalog, or by count.

use tokio_postgres::Client;

use crate::cli::failure::Failure;

/// SQLSTATE of a table that does not exist. "Not yours" must look exactly like it.
const UNDEFINED_TABLE: &str = "42P01";

/// Where a table's name could leak, as counts. The owner sees at least one row in each.
const CATALOGS: [(&str, &str); 3] = [
    ("pg_class", "SELECT count(*) FROM pg_catalog.pg_class WHERE relname LIKE 'definitions%'"),
    (
        "information_schema.tables",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'definitions'",
    ),
    ("pg_indexes", "SELECT count(*) FROM pg_catalog.pg_indexes WHERE tablename = 'definitions'"),
];

/// Checks with a connection of each tenant; the lines to show the person.
pub async fn sees_nothing(owner: &Client, other: &Client) -> Result<Vec<String>, Failure> {
    let mut told = Vec::new();
    match other.query("SELECT word FROM definitions LIMIT 1", &[]).await {
        Ok(_) => return Err(Failure::failed("the other tenant can read the table definitions")),
        Err(error) => match error.as_db_error() {
            Some(server) if server.code().code() == UNDEFINED_TABLE => {
                told.push(format!("SELECT word FROM definitions  →  ERROR: {}", server.message()));
            }
            _ => return Err(error.into()),
        },
    }
    for (what, sql) in CATALOGS {
        let own: i64 = owner.query_one(sql, &[]).await?.try_get(0)?;
        let seen: i64 = other.query_one(sql, &[]).await?.try_get(0)?;
        if own == 0 {
            return Err(Failure::failed(format!("the owner does not see its own table in {what}")));
        }
        if seen != 0 {
            return Err(Failure::failed(format!("the other tenant sees {seen} rows in {what}")));
        }
        told.push(format!("{what}: 0 rows (its owner sees {own})"));
    }
    Ok(told)
}
