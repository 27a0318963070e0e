//! What parses and into what, what is refused in which words, and that no secret is ever said back.

use proptest::prelude::*;
use sepal_types::{Error, SqlState};

use super::{super::parse_statements, super::statement::StatementKind, *};

fn parsed(sql: &str) -> Delivery {
    let mut statements = parse_statements(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    match statements.pop().map(|statement| statement.kind) {
        Some(StatementKind::Delivery(statement)) => *statement,
        other => panic!("{sql}: {other:?}"),
    }
}

fn refused(sql: &str) -> Error {
    parse_statements(sql).expect_err(sql)
}

fn literal(value: &Value) -> &str {
    match value {
        Value::Literal(text) => text,
        Value::Parameter(_) => "$",
    }
}

fn secret(name: &str, version: Option<u64>) -> OptionValue {
    OptionValue::Secret(Reference { name: name.to_owned(), version })
}

#[test]
fn secrets() {
    let Delivery::CreateSecret { name, if_not_exists: true, source: SecretSource::Value(value), with } =
        parsed(
            "create secret if not exists Hook-Token as 'it''s' with (refresh = '5m', allowed_hosts 'a.example.com')",
        )
    else {
        panic!("a secret with a value")
    };
    assert_eq!((name.as_str(), literal(&value)), ("hook-token", "it's"));
    assert_eq!(with["refresh"], OptionValue::Text("5m".into()));
    assert_eq!(with["allowed_hosts"], OptionValue::Text("a.example.com".into()));
    let Delivery::CreateSecret { name, source: SecretSource::Resolver { resolver, request }, .. } =
        parsed("CREATE SECRET \"3-b\" FROM vault (path 'hooks/acme', field = 'token')")
    else {
        panic!("a secret of a resolver")
    };
    assert_eq!((name.as_str(), resolver.as_str(), request.len()), ("3-b", "vault", 2));
    let statement = parsed("ALTER SECRET a AS $$new$$ SET (refresh = '1h')");
    assert!(matches!(&statement, Delivery::AlterSecret { source: Some(_), with, .. } if with.len() == 1));
    assert!(!format!("{statement:?}").contains("new"), "{statement:?}");
    assert!(matches!(
        parsed("ALTER SECRET a WITH (refresh '1h')"),
        Delivery::AlterSecret { source: None, .. }
    ));
    assert_eq!(parsed("CREATE SECRET a AS $7").parameters(), 7);
    assert_eq!(parsed("CREATE CERTIFICATE c AS $1 KEY $2").parameters(), 2);
    assert_eq!(parsed("ALTER CERTIFICATE c AS 'pem' KEY $1").parameters(), 1);
    assert_eq!(parsed("ALTER SECRET a AS 'x'").parameters(), 0);
}

#[test]
fn words_of_the_grammar_are_names_too() {
    let named = |sql: &str| match parsed(sql) {
        Delivery::CreateSecret { name, .. } => ("secret", name),
        Delivery::CreateResolver { name, .. } => ("resolver", name),
        Delivery::CreatePlugin { name, .. } => ("plugin", name),
        Delivery::CreateTrustKey { name, .. } => ("key", name),
        Delivery::Drop { kind, name, .. } => (kind.noun(), name),
        other => panic!("{other:?}"),
    };
    let cases = [
        ("CREATE SECRET resolver AS $1", "secret", "resolver"),
        ("CREATE SECRET resolver FROM vault", "secret", "resolver"),
        ("CREATE SECRET RESOLVER vault USING PLUGIN vault", "resolver", "vault"),
        ("CREATE SECRET RESOLVER \"as\" USING PLUGIN vault", "resolver", "as"),
        ("CREATE PLUGIN trust FROM $1", "plugin", "trust"),
        ("CREATE PLUGIN TRUST KEY k AS 'ed25519:aa'", "key", "k"),
        ("DROP SECRET resolver", "secret", "resolver"),
        ("DROP SECRET resolver CASCADE", "secret", "resolver"),
        ("DROP SECRET RESOLVER IF EXISTS r RESTRICT", "secret resolver", "r"),
        ("DROP PLUGIN TRUST KEY IF EXISTS k", "plugin trust key", "k"),
        ("DROP PIPELINE IF EXISTS \"Out\" CASCADE", "pipeline", "Out"),
        ("DROP CERTIFICATE a-b", "certificate", "a-b"),
        ("DROP SINK s", "sink", "s"),
    ];
    for (sql, kind, name) in cases {
        assert_eq!(named(sql), (kind, name.to_owned()), "{sql}");
    }
}

#[test]
fn plugins_and_sinks() {
    assert_eq!(parsed("CREATE OR REPLACE PLUGIN webhook FROM $1 SIGNATURE $2").parameters(), 2);
    let update = parsed("ALTER PLUGIN webhook UPDATE TO '1.5.0' FROM $1");
    assert!(
        matches!(&update, Delivery::UpdatePlugin { version: Some(v), signature: None, .. } if v == "1.5.0")
    );
    let Delivery::CreateSink { name, connector, options, allow_hosts } = parsed(
        "CREATE SINK Acme USING PLUGIN webhook VERSION '1.4'
         OPTIONS (url 'https://hooks.example.com/in', token SECRET[hook_token], \"maxRetries\" = 3, gzip true,
                  shift -1.5, vector 'v', ca CERT[root])
         ALLOW HOSTS ('https://hooks.example.com:443', 'b')",
    ) else {
        panic!("a sink")
    };
    assert_eq!(name, "acme");
    assert_eq!(connector, Connector::Plugin { name: "webhook".into(), version: Some("1.4".into()) });
    assert_eq!(allow_hosts, ["https://hooks.example.com:443", "b"]);
    assert_eq!(options["token"], secret("hook_token", None));
    assert_eq!(options["maxRetries"], OptionValue::Number(3.0));
    assert_eq!(options["gzip"], OptionValue::Flag(true));
    assert_eq!(options["shift"], OptionValue::Number(-1.5));
    assert_eq!(options["vector"], OptionValue::Text("v".into()));
    assert_eq!(options["ca"], OptionValue::Certificate(Reference { name: "root".into(), version: None }));
    let Delivery::CreateSink { connector, options, .. } = parsed("CREATE SINK s USING postgres OPTIONS ()")
    else {
        panic!("a sink")
    };
    assert_eq!((connector, options.len()), (Connector::Native("postgres".into()), 0));
    let altered = parsed("ALTER SINK s ALLOW HOSTS ()");
    assert!(
        matches!(&altered, Delivery::AlterSink { options: None, allow_hosts: Some(h), .. } if h.is_empty())
    );
    assert!(matches!(parsed("VALIDATE SINK s"), Delivery::ValidateSink { .. }));
}

#[test]
fn references_are_whole_values_of_just_one_form() {
    let option = |value: &str| format!("CREATE SINK s USING x OPTIONS (token {value})");
    let token = |value: &str| match parsed(&option(value)) {
        Delivery::CreateSink { mut options, .. } => options.remove("token").unwrap(),
        other => panic!("{other:?}"),
    };
    for (value, name, version) in [
        ("SECRET[a]", "a", None),
        ("secret[A-1b@3]", "a-1b", Some(3)),
        ("SECRET[a-@3]", "a-", Some(3)),
        ("SECRET[3com]", "3com", None),
        ("SECRET[\"a--b\"@12]", "a--b", Some(12)),
        ("= SECRET[\"Big\"]", "Big", None),
    ] {
        assert_eq!(token(value), secret(name, version), "{value}");
    }
    // Inside another text it is a text.
    assert_eq!(token("'Bearer SECRET[a]'"), OptionValue::Text("Bearer SECRET[a]".into()));
    assert_eq!(token("'a-SECRET[x]'"), OptionValue::Text("a-SECRET[x]".into()));
    for value in [
        "SECRET [a]",
        "SECRET[ a]",
        "SECRET[a ]",
        "SECRET[a @3]",
        "SECRET[]",
        "SECRET[a@]",
        "SECRET[a@0]",
        "SECRET[a@+1]",
        "SECRET[a@1@2]",
        "SECRET[a]b",
        "SECRET[a--b]",
        "SECRET[а]",
        "ЅECRET[a]",
        "SECRET［a］",
        "SECRET[a/**/]",
        "SECRET['a']",
        "SECRET[\"a b\"]",
        "SECRET[_a]",
        "SECRET[a",
        "SECRET",
        "CERT[a@1]",
        "\"SECRET\"[a]",
        "'SECRET[a]'",
        "' secret[a@3] '",
        "E'CERT[a]'",
        "$$SECRET [a]$$",
        "(SECRET[a])",
        "$1",
    ] {
        let error = refused(&option(value));
        let states = [SqlState::SyntaxError, SqlState::FeatureNotSupported];
        assert!(states.contains(&error.state()), "{value}: {error}");
    }
    let long = format!("SECRET[{}]", "a".repeat(64));
    assert_eq!(refused(&option(&long)).state(), SqlState::SyntaxError);
    let hint = |value: &str| refused(&option(value)).hint().map(ToOwned::to_owned).unwrap_or_default();
    assert!(hint("'SECRET[a]'").contains("without quotes"), "{}", hint("'SECRET[a]'"));
    assert!(hint("SECRET[а]").contains("ASCII"), "{}", hint("SECRET[а]"));
}

#[test]
fn pipelines() {
    let Delivery::CreatePipeline(pipeline) = parsed(
        "CREATE PIPELINE orders_out AS SELECT id, (SELECT 'into sink') AS \"T\" FROM orders WHERE total>-1 -- all
         INTO SINK acme KEY (id, \"B\") FORMAT NDJSON ENVELOPE UPSERT
         WITH (snapshot = true, batch_rows = 500, linger = '1s')",
    ) else {
        panic!("a pipeline")
    };
    assert_eq!(pipeline.query_text, "SELECT id, (SELECT 'into sink') AS \"T\" FROM orders WHERE total>-1");
    assert_eq!(
        pipeline.query.to_string(),
        "SELECT id, (SELECT 'into sink') AS \"T\" FROM orders WHERE total > -1"
    );
    assert_eq!((pipeline.name.as_str(), pipeline.sink.as_str()), ("orders_out", "acme"));
    assert_eq!(pipeline.key, ["id", "B"]);
    assert_eq!((pipeline.format, pipeline.envelope), (Some(Format::Ndjson), Some(Envelope::Upsert)));
    assert_eq!(pipeline.with["snapshot"], OptionValue::Flag(true));
    let change = |sql: &str| match parsed(sql) {
        Delivery::AlterPipeline { change, .. } => change,
        other => panic!("{other:?}"),
    };
    assert_eq!(change("ALTER PIPELINE p PAUSE"), PipelineChange::Pause);
    assert_eq!(change("ALTER PIPELINE p RESET"), PipelineChange::Reset);
    assert_eq!(change("ALTER PIPELINE p RESUME"), PipelineChange::Resume { from: None });
    assert_eq!(
        change("ALTER PIPELINE p RESUME FROM POSITION '5.1'"),
        PipelineChange::Resume { from: Some("5.1".into()) }
    );
    assert!(matches!(change("ALTER PIPELINE p SET (linger = '2s')"), PipelineChange::Set(_)));
    let deep = format!("CREATE PIPELINE p AS SELECT {}1 FROM t INTO SINK s", "1 + ".repeat(300));
    assert_eq!(refused(&deep).state(), SqlState::StatementTooComplex);
}

#[test]
fn grants_and_views() {
    let Delivery::Grant { kind: ObjectKind::Secret, name, to } =
        parsed("GRANT USAGE ON SECRET a-b TO 3kX9aaaaaaaa")
    else {
        panic!("a grant")
    };
    assert_eq!((name.as_str(), to), ("a-b", Grantee::Key("3kX9aaaaaaaa".into())));
    let Delivery::Revoke { kind: ObjectKind::Plugin, from: Grantee::Public, .. } =
        parsed("REVOKE USAGE ON PLUGIN webhook FROM PUBLIC")
    else {
        panic!("a revoke")
    };
    for view in [
        "SECRETS",
        "certificates",
        "SECRET RESOLVERS",
        "PLUGINS",
        "SINKS",
        "PIPELINES",
        "PLUGIN CAPABILITIES",
    ] {
        let Delivery::Show(query) = parsed(&format!("SHOW {view}")) else { panic!("{view}") };
        assert!(query.to_string().starts_with("SELECT * FROM pg_catalog.sepal_"), "{query}");
    }
    for other in ["GRANT USAGE ON SCHEMA public TO x", "SHOW plugins.limit", "SHOW timezone"] {
        let kind = parse_statements(other).unwrap().pop().unwrap().kind;
        assert!(matches!(kind, StatementKind::Sql(_)), "{other}");
    }
}

#[test]
fn errors_are_those_of_postgres() {
    let cases = [
        ("CREATE SECRET", "syntax error at end of input", 14),
        ("CREATE SECRET a", "syntax error at end of input", 16),
        ("CREATE SECRET a IS $1", "syntax error at or near \"IS\"", 17),
        ("CREATE OR REPLACE SECRET a AS $1", "syntax error at or near \"SECRET\"", 19),
        ("CREATE SINK s USING x OPTIONS (a 'b',)", "syntax error at or near \")\"", 38),
        ("CREATE SINK s USING x OPTIONS (a 'b') OPTIONS ()", "syntax error at or near \"OPTIONS\"", 39),
        ("ALTER SINK s", "syntax error at end of input", 13),
        ("ALTER PIPELINE p STOP", "syntax error at or near \"STOP\"", 18),
        ("CREATE PIPELINE p AS SELECT 1 INTO t", "syntax error at end of input", 37),
        ("CREATE PIPELINE p AS SELECT a + INTO SINK s", "syntax error at or near \"INTO\"", 33),
        ("CREATE PIPELINE p AS INTO SINK s", "syntax error at or near \"INTO\"", 22),
        ("CREATE PIPELINE p AS DELETE FROM t INTO SINK s", "syntax error at or near \"DELETE\"", 22),
        ("SELECT 1; DROP SINK s t", "syntax error at or near \"t\"", 23),
        ("DROP SINK \"\"", "zero-length delimited identifier at or near \"\"\"\"", 11),
    ];
    for (sql, message, position) in cases {
        let error = refused(sql);
        assert_eq!((error.message(), error.position()), (message, Some(position)), "{sql}");
    }
    assert_eq!(refused("CREATE SECRET a AS $0").state(), SqlState::UndefinedParameter);
    let twice = "CREATE SINK s USING x OPTIONS (a 'b', A 'c')";
    assert_eq!(refused(twice).state(), SqlState::DuplicateObject);
}

#[test]
fn no_error_says_a_secret_back() {
    for sql in [
        "CREATE SECRET a AS hunter2",
        "CREATE SECRET a 'hunter2'",
        "CREATE SECRET 'hunter2'",
        "CREATE SECRET a AS 'x'hunter2''",
        "CREATE SECRET a AS 'x' hunter2",
        "CREATE SECRET a AS 'hunter2",
        "CREATE SECRET a AS E'hunter2",
        "CREATE SECRET a AS $$hunter2",
        "CREATE SECRET a AS 'x' 'hunter2'",
        "CREATE SECRET a AS B'hunter2'",
        "CREATE SECRET a AS \"hunter2\"",
        "CREATE SECRET a AS 'hunter2' WIHT (refresh '1h')",
        "ALTER CERTIFICATE a AS 'pem' KEY hunter2",
        "CREATE SINK s USING x OPTIONS (password 'it's hunter2')",
        "CREATE SINK s USING x OPTIONS 'hunter2'",
        "CREATE SINK s USING x ALLOW HOSTS ('a' 'hunter2')",
        "SELECT 'open; CREATE SECRET a AS 'hunter2'",
    ] {
        let error = refused(sql);
        assert!(!format!("{error:?}").contains("hunter2"), "{sql}: {error:?}");
    }
}

#[test]
fn text_is_redacted() {
    let cases = [
        ("CREATE SECRET a AS 'hunter2'", "CREATE SECRET a AS '<redacted>'"),
        ("create /* x */ secret a as $t$hunter2$t$ ;", "create /* x */ secret a as '<redacted>' ;"),
        ("CREATE SECRET a AS $1 WITH (refresh = $2)", "CREATE SECRET a AS $1 WITH (refresh = $2)"),
        (
            "SELECT 'é'; ALTER CERTIFICATE c AS 'x' KEY E'y'; SELECT 'b'",
            "SELECT 'é'; ALTER CERTIFICATE c AS '<redacted>' KEY '<redacted>'; SELECT 'b'",
        ),
        ("CREATE PLUGIN TRUST KEY k AS 'ed25519:aa'", "CREATE PLUGIN TRUST KEY k AS '<redacted>'"),
        (
            "CREATE SINK s USING x OPTIONS (a 'b', key SECRET[c], d 'e') ALLOW HOSTS ('f')",
            "CREATE SINK s USING x OPTIONS (a '<redacted>', key SECRET[c], d '<redacted>') ALLOW HOSTS ('f')",
        ),
        ("CREATE SECRET a AS hunter2 or so; SELECT 1", "CREATE SECRET a AS '<redacted>'; SELECT 1"),
        ("CREATE SECRET a AS 'x'hunter2'y' z", "CREATE SECRET a AS '<redacted>'"),
        ("CREATE SECRET a-b AS 'hunter2", "CREATE SECRET a-b '<redacted>'"),
        ("CREATE SECRET 'hunter2", "CREATE SECRET '<redacted>'"),
        (
            "ALTER USER u WITH PASSWORD 'hunter2' CREATEDB; SELECT 'a'",
            "ALTER USER u WITH PASSWORD '<redacted>'; SELECT 'a'",
        ),
        (
            "CREATE ROLE r LOGIN ENCRYPTED PASSWORD hunter2",
            "CREATE ROLE r LOGIN ENCRYPTED PASSWORD '<redacted>'",
        ),
        ("CREATE TABLE t (user text DEFAULT 'b')", "CREATE TABLE t (user text DEFAULT 'b')"),
        ("CREATE TABLE sinks (a text DEFAULT 'b')", "CREATE TABLE sinks (a text DEFAULT 'b')"),
        ("INSERT INTO t VALUES ('secret')", "INSERT INTO t VALUES ('secret')"),
    ];
    for (sql, expected) in cases {
        assert_eq!(redact(sql), expected);
    }
    assert_eq!(mask("CREATE SECRET a AS 'é\nb' WITH ()"), "CREATE SECRET a AS **\n** WITH ()");
}

#[test]
fn a_kept_statement_holds_no_secret() {
    let statements = parse_statements("SELECT 1; CREATE SECRET a AS 'hunter2'").unwrap();
    for statement in &statements {
        assert!(!statement.sql.contains("hunter2"));
        assert!(!format!("{statement:?}").contains("hunter2"), "{statement:?}");
    }
    assert_eq!(statements[1].position_of("a"), Some(25));
    for sql in [
        "ALTER ROLE r PASSWORD 'hunter2'",
        "ALTER USER u PASSWORD 'hunter2'",
        "CREATE ROLE r PASSWORD 'hunter2'",
    ] {
        for statement in parse_statements(sql).unwrap_or_default() {
            assert!(!statement.sql.contains("hunter2"), "{sql}");
        }
    }
}

#[test]
fn what_the_pages_show_parses() {
    let pages = [
        include_str!("../../../../../docs/pipelines.md"),
        include_str!("../../../../../docs/secrets.md"),
        include_str!("../../../../../README.md"),
    ];
    let mut shown = 0;
    for page in pages {
        let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("sepal_") || block.contains("SECRET")) {
            // psql's own commands are not SQL.
            let sql = block.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n");
            let statements = parse_statements(&sql).unwrap_or_else(|error| panic!("{error}:\n{block}"));
            shown += statements.len();
        }
    }
    assert!(shown > 20, "{shown} statements were found");
}

/// A name that needs no quotes.
fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_]{0,8}"
}

fn secret_name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_-]{0,8}".prop_filter("two dashes begin a comment", |name| !name.contains("--"))
}

fn quoted() -> impl Strategy<Value = String> {
    "[ -~é\n]{0,12}".prop_map(|text| format!("'{}'", text.replace('\'', "''")))
}

fn given() -> impl Strategy<Value = String> {
    prop_oneof![quoted(), (1..=u16::MAX).prop_map(|number| format!("${number}"))]
}

fn settings() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        quoted(),
        any::<i32>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        secret_name().prop_map(|name| format!("SECRET[{name}]")),
        (secret_name(), 1..99_u8).prop_map(|(name, version)| format!("secret[{name}@{version}]")),
        secret_name().prop_map(|name| format!("CERT[\"{name}\"]")),
    ];
    let option = (name(), prop::bool::ANY, value);
    prop::collection::btree_map(name(), option, 0..4).prop_map(|options| {
        let one = |(name, (_, equals, value)): (String, (String, bool, String))| {
            format!("{name} {} {value}", if equals { "=" } else { "" })
        };
        format!("({})", options.into_iter().map(one).collect::<Vec<_>>().join(", "))
    })
}

/// A statement that parses.
fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        (secret_name(), given(), settings())
            .prop_map(|(name, value, with)| format!("CREATE SECRET {name} AS {value} WITH {with}")),
        (secret_name(), name(), settings())
            .prop_map(|(name, resolver, request)| format!("create secret {name} FROM {resolver} {request}")),
        (secret_name(), given(), given())
            .prop_map(|(name, pem, key)| format!("ALTER CERTIFICATE {name} AS {pem} KEY {key}")),
        (name(), name(), settings(), quoted()).prop_map(|(name, plugin, options, host)| format!(
            "CREATE SINK {name} USING PLUGIN {plugin} OPTIONS {options} ALLOW HOSTS ({host})"
        )),
        (name(), name(), settings()).prop_map(|(name, plugin, options)| format!(
            "CREATE SECRET RESOLVER \"{name}\" USING PLUGIN {plugin} OPTIONS {options}"
        )),
        (name(), given(), given()).prop_map(|(name, component, signature)| format!(
            "CREATE PLUGIN \"{name}\" FROM {component} SIGNATURE {signature}"
        )),
        (name(), name(), settings()).prop_map(|(name, sink, with)| format!(
            "CREATE PIPELINE {name} AS SELECT a, 'x' AS b FROM t WHERE a > 1 INTO SINK {sink} KEY (a) \
             FORMAT ARROW WITH {with}"
        )),
        (secret_name(), name()).prop_map(|(name, key)| format!("GRANT USAGE ON SECRET {name} TO {key}")),
        secret_name().prop_map(|name| format!("DROP CERTIFICATE IF EXISTS {name} CASCADE")),
    ]
}

const NOISE: [&str; 20] = [
    "'",
    "\"",
    "[",
    "]",
    "(",
    ")",
    ",",
    "=",
    "--",
    "/*",
    ";",
    " AS ",
    "$1",
    "$$",
    "E'",
    "SECRET[",
    "@",
    "ЅECRET",
    "\n",
    "INTO SINK",
];

proptest! {
    #[test]
    fn valid_statements_parse(sql in statement()) {
        let statements = parse_statements(&sql);
        let kinds: Vec<StatementKind> = statements
            .map_err(|error| TestCaseError::fail(format!("{error}: {sql}")))?
            .into_iter()
            .map(|statement| statement.kind)
            .collect();
        prop_assert!(matches!(kinds.as_slice(), [StatementKind::Delivery(_)]), "{}", sql);
    }

    #[test]
    fn nothing_panics(
        sql in statement(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, 0..NOISE.len()), 1..4),
    ) {
        let mut text: Vec<char> = sql.chars().collect();
        for (place, gone, noise) in changes {
            let at = place.index(text.len() + 1);
            let end = (at + gone).min(text.len());
            text.splice(at..end, NOISE[noise].chars());
        }
        let sql: String = text.into_iter().collect();
        if let Err(error) = parse_statements(&sql) {
            prop_assert!(error.position().is_none_or(|position| position as usize <= sql.chars().count() + 1));
        }
        let masked = mask(&sql);
        prop_assert_eq!(masked.chars().count(), sql.chars().count());
        prop_assert_eq!(masked.lines().count(), sql.lines().count());
        let _ = redact(&sql);
    }
}
