//! Every query in `captured/` is answered, and the ones that users look at are answered right.

use super::*;

/// One query of a captured file.
struct Captured {
    name: String,
    parameters: Vec<String>,
    sql: String,
}

fn captured() -> Vec<Captured> {
    let files = [
        include_str!("../captured/asyncpg.sql"),
        include_str!("../captured/drivers.sql"),
        include_str!("../captured/frameworks.sql"),
        include_str!("../captured/psql.sql"),
        include_str!("../captured/psycopg.sql"),
        include_str!("../captured/sqlalchemy.sql"),
        include_str!("../captured/tokio_postgres.sql"),
    ];
    let mut queries = Vec::new();
    for section in files.iter().flat_map(|file| file.split("-- name: ").skip(1)) {
        let (name, rest) = section.split_once('\n').unwrap();
        let (parameters, sql) = match rest.strip_prefix("-- parameters: ") {
            Some(rest) => rest.split_once('\n').unwrap(),
            None => ("", rest),
        };
        let parameters = parameters.split(", ").filter(|text| !text.is_empty());
        queries.push(Captured {
            name: name.to_owned(),
            parameters: parameters.map(|text| text.trim_matches('\'').to_owned()).collect(),
            sql: sql.trim().trim_end_matches(';').to_owned(),
        });
    }
    queries
}

#[test]
fn every_captured_query_is_answered() {
    let context = context();
    let mut failures = Vec::new();
    let queries = captured();
    assert!(queries.len() > 150, "only {} queries were read", queries.len());
    for query in queries {
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &query.sql);
        let outcome = match parsed {
            Err(error) => Err(format!("parser: {error}")),
            Ok(statements) => match prepare(&statements[0], &[], &context) {
                // What has decimals is DataFusion's.
                None if query.sql.contains("100.0") => Ok(()),
                None => Err("declined".to_owned()),
                Some(Err(error)) => Err(format!("bind: {error}")),
                Some(Ok(prepared)) => {
                    let arrays: Vec<ArrayRef> = prepared
                        .parameters()
                        .iter()
                        .zip(&query.parameters)
                        .map(|(ty, text)| parameter(ty, text))
                        .collect();
                    prepared.run(&arrays, &context).map(|_| ()).map_err(|error| format!("run: {error}"))
                }
            },
        };
        if let Err(why) = outcome {
            failures.push(format!("{}: {}", query.name, why.chars().take(160).collect::<String>()));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn answer(name: &str) -> Vec<String> {
    let context = context();
    let query =
        captured().into_iter().find(|query| query.name == name).unwrap_or_else(|| panic!("no {name}"));
    let parameters: Vec<&str> = query.parameters.iter().map(String::as_str).collect();
    rendered(&run(&context, &query.sql, &parameters).unwrap_or_else(|error| panic!("{name}: {error}")))
}

#[test]
fn psql_lists_tables_and_describes_one() {
    let tables: Vec<String> = answer("psql \\dt (1)");
    assert_eq!(tables, ["public|Notes|table|acme", "public|items|table|acme"]);
    assert_eq!(answer("psql \\d items (1)"), ["20001|public|items"]);
    let columns = answer("psql \\d items (3)");
    assert_eq!(columns[0], "id|bigint|nextval('items_id_seq'::regclass)|true|||");
    assert_eq!(columns[1], "name|character varying(64)||true|||");
    assert_eq!(columns[2], "score|numeric(10,2)|0|false|||");
    assert_eq!(columns[5], "embedding|vector(3)||false|||");
    let indexes = answer("psql \\d items (4)");
    let definitions: Vec<&str> = indexes.iter().map(|line| line.split('|').nth(5).unwrap()).collect();
    assert_eq!(
        definitions,
        [
            "CREATE UNIQUE INDEX items_pkey ON items USING btree (id)",
            "CREATE INDEX items_embedding_idx ON items USING hnsw (embedding vector_cosine_ops) WITH (m='24')",
            "CREATE UNIQUE INDEX items_name_key ON items USING btree (name)",
            "CREATE INDEX items_tags ON items USING gin (tags)",
        ]
    );
}

#[test]
fn psql_shows_sequences_extensions_and_operators() {
    assert_eq!(answer("psql \\d items_id_seq (3)"), ["bigint|1|1|9223372036854775807|1|no|1"]);
    assert_eq!(answer("psql \\d items_id_seq (4)"), ["public.items.id|a"]);
    assert_eq!(answer("psql \\dx (1)"), ["vector|0.8.1|public|"]);
    assert_eq!(
        answer("psql \\do <-> (1)"),
        [
            "pg_catalog|<->|tsquery|tsquery|tsquery|",
            "public|<->|halfvec|halfvec|double precision|",
            "public|<->|sparsevec|sparsevec|double precision|",
            "public|<->|vector|vector|double precision|"
        ]
    );
    assert_eq!(answer("psql \\du (1)")[0].split('|').next(), Some("acme"));
    assert_eq!(answer("psql \\dT (1)"), ["public|halfvec|", "public|sparsevec|", "public|vector|"]);
    assert!(answer("psql \\dA (1)").contains(&"hnsw|Index".to_owned()));
    assert!(answer("psql \\dx+ vector (2)").contains(&"type vector".to_owned()));
    let functions = answer("psql \\df (1)");
    assert!(functions.contains(&"public|l2_distance|double precision|vector, vector|func".to_owned()));
    assert!(functions.contains(&"public|avg|vector|vector|agg".to_owned()));
    assert!(functions.contains(&"public|avg|halfvec|halfvec|agg".to_owned()));
    assert!(functions.contains(&"public|l2_norm|double precision|halfvec|func".to_owned()));
    assert!(functions.contains(&"public|sparsevec_cmp|integer|sparsevec, sparsevec|func".to_owned()));
}

#[test]
fn drivers_find_the_vector_type() {
    assert_eq!(answer("psycopg (1)"), ["vector|16385|16386|vector|,"]);
    assert_eq!(answer("node-postgres pgvector types"), ["halfvec|16387", "sparsevec|16395", "vector|16385"]);
    assert_eq!(answer("psycopg2 and pg8000 pgvector types").len(), 3);
    assert_eq!(answer("pgx pgvector types"), ["16385|16386|16395"]);
    assert_eq!(answer("sqlx type by cast"), ["16385"]);
    assert_eq!(answer("asyncpg (1)"), ["16385|0|b"]);
    assert_eq!(answer("tokio-postgres type"), ["vector|b|0||0|public|0"]);
    assert_eq!(answer("pgjdbc type by name"), ["false|b|vector|16385"]);
    assert_eq!(answer("pgjdbc type by oid"), ["true|public|_vector"]);
    let tree = answer("asyncpg (3)");
    assert!(tree[..2].iter().any(|line| line.starts_with("16385|public|vector|b||0")), "{tree:?}");
    assert!(tree.iter().any(|line| line.starts_with("16386|public|_vector|b||16385|,")), "{tree:?}");
}

#[test]
fn tools_find_keys_and_indexes() {
    assert_eq!(answer("pgjdbc primary keys"), ["|items|id|1|items_pkey"]);
    assert_eq!(answer("Rails primary key"), ["id"]);
    assert_eq!(answer("pgjdbc indexes")[0], "|public|items|false|items_name_key|3|1|name|A|0.0|2442|",);
    let django = answer("Django constraints");
    assert_eq!(django, ["items_pkey|[id]|p||", "items_name_key|[name]|u||"]);
    let prisma = answer("Prisma indexes");
    let vector = "public|items_embedding_idx|items|embedding|false|false|0|vector_cosine_ops|false|hnsw|ASC";
    assert!(prisma.contains(&vector.to_owned()), "{prisma:?}");
    assert_eq!(answer("Django sequences"), ["items_id_seq|id"]);
    assert_eq!(answer("Grafana tables"), ["\"Notes\"", "items"]);
}
