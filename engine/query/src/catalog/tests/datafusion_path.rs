//! What the evaluator leaves to DataFusion: catalogs beside a user's table.

use super::*;
use crate::CatalogSlot;

async fn plan_and_run(slot: &CatalogSlot, sql: &str) -> Vec<String> {
    let context = &*slot.get().unwrap();
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let catalog = session.catalog("datafusion").unwrap();
    for schema in ["pg_catalog", "information_schema"] {
        let provider = Arc::new(MemorySchemaProvider::new());
        for name in relation_names(schema) {
            let batch = rows(schema, name, context).unwrap();
            let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
            provider.register_table(name.to_owned(), Arc::new(table)).unwrap();
        }
        catalog.register_schema(schema, provider).unwrap();
    }
    for function in functions(slot) {
        session.register_udf(function);
    }
    session.sql("CREATE TABLE items (id BIGINT, name TEXT) AS VALUES (1, 'a'), (2, 'b')").await.unwrap();
    let mut statement = parse(sql);
    rewrite(&mut statement, context).unwrap();
    // Planned from its text: DataFusion reads types by name.
    let frame =
        session.sql(&statement.to_string()).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let batches = frame.collect().await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    batches.iter().flat_map(rendered).collect()
}

#[tokio::test]
async fn catalogs_beside_a_user_table_plan_and_run() {
    let context = CatalogSlot::new(context());
    let cases: [(&str, &[&str]); 8] = [
        (
            "SELECT i.id, c.relname FROM items i, pg_class c WHERE c.oid = '20001' ORDER BY i.id",
            &["1|items", "2|items"],
        ),
        (
            "SELECT i.name, pg_catalog.format_type(16385, 3) FROM items i WHERE i.name OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
            &["a|vector(3)"],
        ),
        (
            "SELECT count(*) FROM items, pg_catalog.pg_attribute a WHERE a.attrelid = 'items'::regclass",
            &["12"],
        ),
        ("SELECT id, 20001::regclass FROM items ORDER BY id", &["1|items", "2|items"]),
        (
            "SELECT id, 'items'::regclass::pg_catalog.text, 'items'::regclass::oid FROM items LIMIT 1",
            &["1|items|20001"],
        ),
        (
            "SELECT id, current_database(), pg_catalog.pg_table_is_visible(20001) FROM items LIMIT 1",
            &["1|default|true"],
        ),
        (
            "SELECT id, sepal_dlq_replay('orders', since => '2023-11-14 22:13:20+00') FROM items LIMIT 1",
            &["1|1700000000000000"],
        ),
        ("SELECT id, pg_relation_size('items'), pg_typeof(id) FROM items LIMIT 1", &["1|20001000|bigint"]),
    ];
    for (sql, expected) in cases {
        assert_eq!(plan_and_run(&context, sql).await, expected, "{sql}");
    }
}

#[test]
fn statements_without_catalogs_are_not_touched() {
    let context = CatalogSlot::new(context());
    for sql in [
        "SELECT name COLLATE \"C\", a::text FROM items WHERE oid = '5' ORDER BY embedding <-> '[1,2]' LIMIT 3",
        "WITH pg_class AS (SELECT 1) SELECT * FROM pg_class",
        "INSERT INTO items VALUES (1, 'x') RETURNING id",
    ] {
        let mut statement = parse(sql);
        let before = statement.clone();
        rewrite(&mut statement, &context.get().unwrap()).unwrap();
        assert_eq!(statement, before);
    }
}
