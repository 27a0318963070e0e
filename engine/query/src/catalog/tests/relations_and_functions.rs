//! Shapes, rows and functions by themselves, and the evaluator's rules.

use super::*;

#[test]
fn every_relation_has_all_its_columns_and_makes_its_rows() {
    let context = context();
    for relation in ALL.iter().flat_map(|family| family.iter()) {
        let shape = shape::shape(relation.schema, relation.name).unwrap();
        let declared = relation.columns.split(", ").count();
        assert_eq!(shape.columns.len(), declared, "a type of {} was not read", relation.name);
        let batch = rows(relation.schema, relation.name, &context).unwrap();
        assert_eq!(&batch.schema(), &super::super::relation(relation.schema, relation.name).unwrap());
    }
}

#[test]
fn oids_of_relations_are_unique_and_types_are_complete() {
    let mut oids: Vec<u32> =
        ALL.iter().flat_map(|family| family.iter()).map(|relation| relation.oid).collect();
    let count = oids.len();
    oids.sort_unstable();
    oids.dedup();
    assert_eq!(oids.len(), count);
    // Every type's input function exists: a driver that joins pg_proc must find it.
    let context = context();
    let missing = lines(&context, "SELECT typname FROM pg_type WHERE typinput::oid = 0 OR typsend::oid = 0");
    assert_eq!(missing, Vec::<String>::new());
    assert!(procedures().len() > 500);
    let arrays = "SELECT count(*) FROM pg_type t JOIN pg_type a ON a.oid = t.typarray AND a.typelem = t.oid";
    assert!(lines(&context, arrays)[0].parse::<i64>().unwrap() > 25);
}

#[test]
fn only_the_sessions_environment_is_seen() {
    let context = context();
    assert_eq!(lines(&context, "SELECT count(*) FROM pg_class WHERE oid >= 20020 AND oid < 20030"), ["0"]);
    assert_eq!(lines(&context, "SELECT to_regclass('\"Notes\"')::oid"), ["20010"]);
    assert_eq!(lines(&context, "SELECT pg_get_indexdef(20021)"), [""]);
    assert_eq!(lines(&context, "SELECT datname FROM pg_database ORDER BY 1"), ["default", "staging"]);
}

#[test]
fn reg_casts_are_names_and_numbers() {
    let context = context();
    assert_eq!(
        lines(&context, "SELECT 'items'::regclass, 'items'::regclass::oid, 20010::regclass"),
        ["items|20001|\"Notes\""]
    );
    assert_eq!(
        lines(&context, "SELECT 'vector'::regtype::oid, 'int4'::regtype, 1009::regtype::text"),
        ["16385|integer|text[]"]
    );
    assert_eq!(
        lines(
            &context,
            "SELECT 'public'::regnamespace::oid, relnamespace::regnamespace FROM pg_class LIMIT 1"
        ),
        ["2200|public"]
    );
    assert_eq!(
        lines(
            &context,
            "SELECT attname FROM pg_attribute WHERE attrelid = 'public.items'::regclass AND attnum = 6"
        ),
        ["embedding"]
    );
    let error = run(&context, "SELECT 'nothing'::regclass", &[]).unwrap_err();
    assert_eq!(
        (error.state(), error.message()),
        (SqlState::UndefinedTable, "relation \"nothing\" does not exist")
    );
    assert_eq!(
        lines(&context, "SELECT to_regclass('nothing') IS NULL, to_regtype('densevec') IS NULL"),
        ["true|true"]
    );
}

#[test]
fn vectors_of_numbers_count_from_zero_and_arrays_from_one() {
    let context = context();
    let sql = "SELECT indkey[0], indkey, conkey[1], conkey[0] FROM pg_index JOIN pg_constraint ON conindid = indexrelid \
               WHERE indexrelid = 'items_name_key'::regclass";
    assert_eq!(lines(&context, sql), ["2|2|2|"]);
    let sets = "SELECT unnest(indkey), generate_subscripts(indkey, 1) FROM pg_index WHERE indexrelid = 20002";
    assert_eq!(lines(&context, sets), ["1|0"]);
}

#[test]
fn sizes_settings_and_definitions() {
    let context = context();
    assert_eq!(
        lines(&context, "SELECT pg_relation_size('items_embedding_idx'), pg_table_size(20001)"),
        ["20005000|20001000"]
    );
    let pretty = "SELECT pg_size_pretty(10239::bigint), pg_size_pretty(10240::bigint), pg_size_pretty(20971520::bigint), \
                  pg_size_pretty(-5000000000::bigint)";
    assert_eq!(lines(&context, pretty), ["10239 bytes|10 kB|20 MB|-4768 MB"]);
    assert_eq!(
        lines(&context, "SELECT current_setting('jit'), current_setting('no.such', true) IS NULL"),
        ["off|true"]
    );
    let error = run(&context, "SELECT current_setting('no_such')", &[]).unwrap_err();
    assert_eq!(error.state(), SqlState::UndefinedObject);
    assert_eq!(
        lines(&context, "SELECT pg_get_constraintdef(20003), pg_get_serial_sequence('items', 'id')"),
        ["UNIQUE (name)|public.items_id_seq"]
    );
    assert_eq!(lines(&context, "SELECT pg_postmaster_start_time()::text"), ["2023-11-14 22:13:20.25+00"]);
    assert_eq!(lines(&context, "SELECT quote_ident('Order'), quote_literal('it''s')"), ["\"Order\"|'it''s'"]);
}

#[test]
fn sessions_are_shown_as_far_as_they_may_be_known() {
    let context = context();
    let sql = "SELECT pid, datname, usename, application_name, client_addr, client_port, xact_start::text, query_start, \
               wait_event_type, wait_event, state, query, backend_type FROM pg_stat_activity ORDER BY pid";
    assert_eq!(
        lines(&context, sql),
        [
            "7|staging|key|psql||||||||<insufficient privilege>|",
            "4242|default|key|psql|192.0.2.7|5000|2023-11-14 22:13:20.5+00||Lock|tuple|active|SELECT 1|client backend"
        ]
    );
    assert_eq!(lines(&context, "SELECT inet_client_addr(), inet_client_port()"), ["192.0.2.7|5000"]);
    assert_eq!(lines(&context, "SELECT numbackends FROM pg_stat_database"), ["1"]);
    assert_eq!(lines(&context, "SELECT pg_cancel_backend(9), pg_terminate_backend(9, 0)"), ["false|false"]);
    let error = run(&context, "SELECT pg_terminate_backend(9, -1)", &[]).unwrap_err();
    assert_eq!(error.state(), SqlState::NumericValueOutOfRange);
    let error = run(&context, "SELECT pg_terminate_backend(9, 100)", &[]).unwrap_err();
    assert_eq!(error.state(), SqlState::FeatureNotSupported);
}

#[test]
fn progress_is_counted() {
    let sql = "SELECT phase, 100 * blocks_done / nullif(blocks_total, 0), tuples_done \
               FROM pg_stat_progress_create_index";
    assert_eq!(lines(&context(), sql), ["building index: loading tuples|12|100"]);
}

#[test]
fn work_of_other_environments_is_not_shown() {
    let context = context();
    let tasks = "SELECT task, relname, done, total, started::text FROM sepal_maintenance ORDER BY task";
    assert_eq!(
        lines(&context, tasks),
        ["flush||8192|16385|2023-11-14 22:13:20+00", "vacuum|items|8192|16385|2023-11-14 22:13:20+00"]
    );
    let vacuums =
        "SELECT pid, relid::regclass::text, heap_blks_total, heap_blks_scanned FROM pg_stat_progress_vacuum";
    assert_eq!(lines(&context, vacuums), ["7|items|3|1"]);
    let copies = "SELECT relid::regclass::text, command, tuples_processed FROM pg_stat_progress_copy";
    assert_eq!(lines(&context, copies), ["items|COPY FROM|3"]);
}

#[test]
fn statistics_look_as_in_postgres() {
    let context = context();
    let found = "SELECT attname, null_frac, avg_width, n_distinct, most_common_vals, most_common_freqs::text, \
                 histogram_bounds FROM pg_stats WHERE tablename = 'items'";
    assert_eq!(lines(&context, found), ["name|0.25|6|-0.5|{\"a b\",c}|{0.125,0.0625}|{d,\"e,f\"}"]);
    let tables = "SELECT relname, last_vacuum::text, vacuum_count, last_analyze IS NULL, n_dead_tup \
                  FROM pg_stat_user_tables ORDER BY relname DESC";
    assert_eq!(lines(&context, tables), ["items|2023-11-14 22:13:20+00|2|true|0", "Notes||0|true|0"]);
    let storage = "SELECT live_rows, write_amplification, compaction_due FROM sepal_storage";
    assert_eq!(lines(&context, storage), ["5|2.5|false"]);
}

#[test]
fn locks_of_the_environment_are_shown() {
    let context = context();
    assert_eq!(
        lines(
            &context,
            "SELECT locktype, relation, classid, objid, objsubid, pid, mode, granted FROM pg_locks"
        ),
        [
            "relation|20001||||7|ExclusiveLock|true",
            "tuple|20001||||7|ExclusiveLock|false",
            "advisory||1|2|1|7|ExclusiveLock|true"
        ]
    );
    assert_eq!(lines(&context, "SELECT pg_blocking_pids(7), pg_blocking_pids(8)"), ["[4242]|[]"]);
}

#[test]
fn outer_joins_groups_and_sets_follow_sql() {
    let context = context();
    let left = "SELECT c.relname, count(i.indexrelid) FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid \
                AND i.indisunique WHERE c.relkind = 'r' GROUP BY c.relname ORDER BY c.relname DESC";
    assert_eq!(lines(&context, left), ["items|2", "Notes|1"]);
    let right = "SELECT n.nspname, c.relname FROM pg_class c RIGHT JOIN pg_namespace n ON n.oid = c.relnamespace \
                 AND c.relkind = 'r' ORDER BY 1, 2 NULLS FIRST";
    assert_eq!(
        lines(&context, right),
        ["information_schema|", "pg_catalog|", "public|Notes", "public|items"]
    );
    let union = "SELECT relkind, NULL AS n FROM pg_class UNION SELECT 'x', 5 ORDER BY 1";
    assert_eq!(lines(&context, union), ["S|", "i|", "r|", "x|5"]);
    let recursive = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) \
                     SELECT sum(n), current_database() FROM t";
    assert_eq!(lines(&context, recursive), ["10|default"]);
    let distinct =
        "SELECT DISTINCT ON (relkind) relkind, relname FROM pg_class ORDER BY relkind, relname DESC";
    assert_eq!(lines(&context, distinct)[2], "r|items");
    let nulls =
        "SELECT NULL = ANY (ARRAY[1]), 1 = ANY ('{1,2}'::int[]), 3 <> ALL (ARRAY[1, 2]), current_user";
    assert_eq!(lines(&context, nulls), ["|true|true|acme"]);
}

#[test]
fn endless_recursion_ends_with_an_error() {
    let sql = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT 1 FROM t) SELECT count(*), version() FROM t";
    let error = run(&context(), sql, &[]).unwrap_err();
    assert_eq!(error.state(), SqlState::ProgramLimitExceeded);
}

#[test]
fn queries_of_user_tables_are_declined_and_wrong_ones_fail() {
    let context = context();
    for sql in [
        "SELECT id FROM items",
        "SELECT 1",
        "SELECT relname FROM pg_class JOIN items ON true",
        "SELECT now()",
    ] {
        assert!(prepare(&parse(sql), &[], &context).is_none(), "{sql}");
    }
    let state = |sql: &str| run(&context, sql, &[]).unwrap_err().state();
    assert_eq!(state("SELECT nothing FROM pg_class"), SqlState::UndefinedColumn);
    assert_eq!(state("SELECT oid FROM pg_class, pg_type"), SqlState::AmbiguousColumn);
    assert_eq!(state("SELECT format_type() FROM pg_class"), SqlState::UndefinedFunction);
    assert_eq!(state("SELECT (SELECT oid FROM pg_type) FROM pg_class"), SqlState::CardinalityViolation);
    assert_eq!(state("SELECT relname FROM pg_class WHERE oid = 'x'"), SqlState::InvalidTextRepresentation);
}

#[test]
fn parameters_take_the_type_of_their_use() {
    let context = context();
    let types = |sql: &str| {
        let query = prepare(&parse(sql), &[], &context).unwrap().unwrap();
        query.parameters().iter().map(SqlType::display_name).collect::<Vec<_>>()
    };
    assert_eq!(types("SELECT 1 FROM pg_type WHERE oid = $1 AND typname = $2"), ["oid", "name"]);
    assert_eq!(
        types("SELECT 1 FROM pg_type WHERE oid = ANY ($1) OR typname LIKE $2 LIMIT $3"),
        ["oid[]", "text", "bigint"]
    );
    assert_eq!(types("SELECT to_regtype($1), $2::int4"), ["text", "integer"]);
    let declared =
        prepare(&parse("SELECT relname FROM pg_class WHERE oid = $1"), &[Some(SqlType::Int4)], &context);
    let query = declared.unwrap().unwrap();
    assert_eq!(query.parameters(), [SqlType::Int4]);
    let batch = query.run(&[parameter(&SqlType::Int4, "20001")], &context).unwrap();
    assert_eq!(rendered(&batch), ["items"]);
}

#[test]
fn what_goes_out_is_shown_without_secrets() {
    let context = context();
    assert_eq!(
        lines(&context, "SELECT name, version, allowed_hosts[2], created_at IS NULL FROM sepal_secrets"),
        ["hook|3|*.b.com|true"]
    );
    assert_eq!(lines(&context, "SELECT id FROM sepal_sink_errors('orders') ORDER BY at DESC"), ["3", "1"]);
    assert_eq!(lines(&context, "SELECT e.code FROM sepal_sink_errors('notes') e"), ["rejected"]);
    assert_eq!(lines(&context, "SELECT id FROM sepal_sink_errors(NULL)"), Vec::<String>::new());
    let since = "SELECT id FROM sepal_dead_letters WHERE at > '2023-11-14 22:13:20.000002+00'";
    assert_eq!(lines(&context, since), ["3"]);
    assert_eq!(rendered(&run(&context, "SELECT id FROM sepal_sink_errors($1)", &["notes"]).unwrap()), ["2"]);
}

#[test]
fn dead_letters_are_replayed() {
    let context = context();
    assert_eq!(lines(&context, "SELECT sepal_dlq_replay('orders')"), ["7"]);
    let since = "SELECT sepal_dlq_replay('orders', since => '2023-11-14 22:13:20+00')";
    assert_eq!(lines(&context, since), ["1700000000000000"]);
    let typed = "SELECT sepal_dlq_replay('orders', timestamptz '2023-11-14 22:13:20+00')";
    assert_eq!(lines(&context, typed), ["1700000000000000"]);
    assert_eq!(lines(&context, "SELECT sepal_dlq_replay(NULL) IS NULL"), ["true"]);
    let error = run(&context, "SELECT sepal_dlq_replay('orders', since => 'soon')", &[]).unwrap_err();
    assert_eq!(error.state(), SqlState::InvalidDatetimeFormat);
    // `now()` is not the evaluator's.
    let later = parse("SELECT sepal_dlq_replay('orders', since => now())");
    assert!(prepare(&later, &[], &context).is_none());
}

#[test]
fn snapshots_and_history_are_shown() {
    let context = context();
    assert_eq!(
        lines(&context, "SELECT name, at::text, lsn, comment, rows FROM sepal_snapshots"),
        ["nightly|2023-11-14 22:13:20+00|9|before the move|12"]
    );
    assert_eq!(lines(&context, "SELECT oldest_lsn, versions, keep_minutes FROM sepal_history"), ["4|2|60"]);
}
