//! Does the conversation go as Postgres' does?
//!
//! Well-formed messages in every order that drivers use: portals, names, pipelines, cancel, several statements in
//! one message, settings. Tests are named after the traps W1 to W26 of our wire notes, as in `frames`.

use std::{thread, time::Duration};

use crate::{
    server::{Login, Server},
    survivor::Survivor,
    wire::{
        Message, PROTOCOL, Wire, about, bind, cancel_request, execute, flush, kinds, only_error, parse,
        query, startup, sync,
    },
};

#[test]
fn w1_max_rows_suspends_a_portal() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.send(&parse("", "SELECT x FROM generate_series(1, 5) AS s(x)", &[]));
    wire.send(
        &[bind("p", "", &[], &[], &[]), execute("p", 2), execute("p", 2), execute("p", 2), sync()].concat(),
    );
    assert_eq!(kinds(&wire.until_ready()), "1 2 D D s D D s D C Z");
}

#[test]
fn w8_extended_rows_are_streamed_not_collected() {
    let mut survivor = Survivor::new();
    let before = survivor.server.resident_bytes();
    let mut wire = survivor.log_in();
    // 2 GiB of rows. A server that collects them before sending shows it in its memory.
    let sql = "SELECT repeat('x', 1000) AS x FROM generate_series(1, 2000000) AS s(n)";
    wire.send(&[parse("", sql, &[]), bind("", "", &[], &[], &[]), execute("", 0), sync()].concat());
    for _ in 0..1000 {
        assert!(wire.message().is_some());
    }
    thread::sleep(Duration::from_secs(2));
    let grown = survivor.server.resident_bytes().saturating_sub(before);
    assert!(grown < 512 << 20, "an unread result took {grown} bytes");
    survivor.check("a result nobody reads");
}

#[test]
fn w9_cancel_stops_rows_that_are_being_sent() {
    let mut survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let sql = "SELECT a.x FROM generate_series(1, 100000) AS a(x), generate_series(1, 100000) AS b(x)";
    wire.send(&query(sql));
    for _ in 0..100 {
        assert!(wire.message().is_some());
    }
    cancel(&survivor.login, wire.process, wire.secret);
    let messages = wire.until_ready();
    assert_eq!(only_error(&messages).state(), "57014");
    assert_eq!(kinds(&wire.query("SELECT 1")), "T D C Z");
    // A wrong secret cancels nothing.
    wire.send(&query(
        "SELECT count(*) FROM generate_series(1, 1000) AS a(x), generate_series(1, 1000) AS b(x)",
    ));
    cancel(&survivor.login, wire.process, wire.secret ^ 1);
    assert_eq!(kinds(&wire.until_ready()), "T D C Z");
    survivor.check("cancel");
}

#[test]
fn w9_statement_timeout_covers_the_rows() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.query("SET statement_timeout = 300");
    let messages = wire.query(
        "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 1000000) AS b(x)",
    );
    assert_eq!(only_error(&messages).state(), "57014");
    wire.query("SET statement_timeout = 0");
    assert_eq!(kinds(&wire.query("SELECT 1")), "T D C Z");
}

#[test]
fn w10_statements_of_one_message_run_and_answer_one_by_one() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let messages = wire.query("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3");
    assert_eq!(kinds(&messages), "T D C T D C E Z");
    assert_eq!(only_error(&messages).state(), "22012");
    // The second statement sees what the first did, and the first's rows are those from before the second.
    wire.query("CREATE TABLE w10 (a int)");
    let messages =
        wire.query("INSERT INTO w10 VALUES (1); SELECT * FROM w10; DROP TABLE w10; SELECT 1 AS one");
    assert_eq!(kinds(&messages), "C T D C C T D C Z");
    assert_eq!(kinds(&wire.query("")), "I Z");
    assert_eq!(kinds(&wire.query(" ; ; -- nothing\n")), "I Z");
}

#[test]
fn w12_nothing_is_sent_before_flush_or_sync() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.send(&[parse("", "SELECT 1", &[]), bind("", "", &[], &[], &[]), about(b'D', b'P', "")].concat());
    assert!(wire.is_silent_for(Duration::from_millis(300)), "an answer nobody asked for costs a packet each");
    wire.send(&flush());
    let answers: Vec<Message> = (0..3).map(|_| wire.message().expect("an answer")).collect();
    assert_eq!(kinds(&answers), "1 2 T");
    wire.send(&sync());
    assert_eq!(kinds(&wire.until_ready()), "Z");
}

#[test]
fn w13_portals_end_with_their_transaction() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.send(
        &[parse("s", "SELECT 1", &[]), bind("p", "s", &[], &[], &[]), sync(), execute("p", 0), sync()]
            .concat(),
    );
    assert_eq!(kinds(&wire.until_ready()), "1 2 Z");
    assert_eq!(only_error(&wire.until_ready()).state(), "34000");
    // Inside a transaction they live on, and end with it.
    wire.query("BEGIN");
    wire.send(&[bind("p", "s", &[], &[], &[]), sync()].concat());
    assert_eq!(kinds(&wire.until_ready()), "2 Z");
    wire.send(&[execute("p", 0), sync()].concat());
    assert_eq!(kinds(&wire.until_ready()), "D C Z");
    wire.query("COMMIT");
    wire.send(&[execute("p", 0), sync()].concat());
    assert_eq!(only_error(&wire.until_ready()).state(), "34000");
}

#[test]
fn w14_names_are_taken_once() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.send(&[parse("s", "SELECT 1", &[]), sync(), parse("s", "SELECT 2", &[]), sync()].concat());
    assert_eq!(kinds(&wire.until_ready()), "1 Z");
    assert_eq!(only_error(&wire.until_ready()).state(), "42P05");
    wire.query("BEGIN");
    wire.send(&[bind("p", "s", &[], &[], &[]), bind("p", "s", &[], &[], &[]), sync()].concat());
    assert_eq!(only_error(&wire.until_ready()).state(), "42P03");
    wire.query("ROLLBACK");
    // The unnamed ones are replaced silently; closing what does not exist is no error.
    wire.send(
        &[parse("", "SELECT 1", &[]), parse("", "SELECT 2", &[]), about(b'C', b'S', "nope"), sync()].concat(),
    );
    assert_eq!(kinds(&wire.until_ready()), "1 1 3 Z");
}

#[test]
fn w16_a_clients_type_oid_is_honoured() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let oid = text_of_first_row(&wire.query("SELECT 'vector'::regtype::oid::text"));
    let oid: u32 = oid.parse().expect("an oid");
    wire.send(&[parse("", "SELECT $1", &[oid]), about(b'D', b'S', ""), sync()].concat());
    let messages = wire.until_ready();
    assert_eq!(kinds(&messages), "1 t T Z");
    assert_eq!(&messages[1].body[2..6], &oid.to_be_bytes());
    // And inferred where the client says nothing.
    wire.send(
        &[parse("", "SELECT $1 <-> '[1,2]'::vector LIMIT $2", &[]), about(b'D', b'S', ""), sync()].concat(),
    );
    let messages = wire.until_ready();
    assert_eq!(&messages[1].body[2..6], &oid.to_be_bytes());
    assert_eq!(&messages[1].body[6..10], &20_u32.to_be_bytes(), "LIMIT takes int8");
}

#[test]
fn w17_missing_statements_and_portals_have_their_own_states() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    for (message, state) in [
        (execute("nope", 0), "34000"),
        (about(b'D', b'P', "nope"), "34000"),
        (about(b'D', b'S', "nope"), "26000"),
        (bind("", "nope", &[], &[], &[]), "26000"),
    ] {
        wire.send(&[message, sync()].concat());
        assert_eq!(only_error(&wire.until_ready()).state(), state);
    }
}

#[test]
fn w18_a_failing_copy_out_ends_with_an_error_only() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let messages =
        wire.query("COPY (SELECT 1 / (5000 - x) FROM generate_series(1, 10000) AS s(x)) TO STDOUT");
    assert_eq!(only_error(&messages).state(), "22012");
    let kinds = kinds(&messages);
    assert!(kinds.ends_with("E Z"), "{kinds}");
    assert!(
        !kinds.contains('f') && !kinds.contains('c'),
        "CopyFail and CopyDone are not said after an error"
    );
}

#[test]
fn w19_channel_binding_is_offered_on_tls_only() {
    let mechanisms = |wire: &mut Wire, user: &str| {
        wire.send(&startup(PROTOCOL, &[("user", user), ("database", "default")]));
        let message = wire.message().expect("an authentication request");
        assert_eq!(&message.body[..4], &[0, 0, 0, 10], "SASL expected");
        let names = message.body[4..].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
    };
    let server = Server::start_with(&["--insecure-plaintext"]);
    let login = server.login();
    let user = login.user.clone();
    let encrypted = mechanisms(&mut Wire::encrypted(&login), &user);
    let plain = mechanisms(&mut Wire::dial(&login), &user);
    assert_eq!(encrypted, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    assert_eq!(plain, ["SCRAM-SHA-256"]);
    // A user that does not exist looks the same.
    assert_eq!(mechanisms(&mut Wire::encrypted(&login), "A2b4C6d8E0f2"), encrypted);
}

#[test]
fn w21_startup_options_are_settings() {
    let survivor = Survivor::new();
    let show = |wire: &mut Wire, name: &str| text_of_first_row(&wire.query(&format!("SHOW {name}")));
    let mut wire = Wire::log_in_with(
        &survivor.login,
        &[("options", "-c hnsw.ef_search=77 --application_name=opt"), ("DateStyle", "ISO, MDY")],
    );
    assert_eq!(show(&mut wire, "hnsw.ef_search"), "77");
    assert_eq!(show(&mut wire, "application_name"), "opt");
    // As a pool gives the connection to its next user.
    wire.query("SET hnsw.ef_search = 5");
    wire.query("DISCARD ALL");
    assert_eq!(show(&mut wire, "hnsw.ef_search"), "77");
    assert_eq!(show(&mut survivor.log_in(), "hnsw.ef_search"), "40", "another session keeps its own");
}

#[test]
fn a_client_may_be_in_any_time_zone() {
    let survivor = Survivor::new();
    // As pgjdbc sends the zone of its machine, and with a sign turned round where that is an offset.
    for (sent, told, noon) in [
        ("UTC", "UTC", "2024-07-01 12:00:00+00"),
        ("Etc/UTC", "Etc/UTC", "2024-07-01 12:00:00+00"),
        ("Europe/Berlin", "Europe/Berlin", "2024-07-01 14:00:00+02"),
        ("america/new_york", "America/New_York", "2024-07-01 08:00:00-04"),
        ("GMT-05:30", "GMT-05:30", "2024-07-01 17:30:00+05:30"),
    ] {
        let mut wire = Wire::log_in_with(&survivor.login, &[("TimeZone", sent)]);
        assert_eq!(wire.parameter("TimeZone"), Some(told), "{sent}");
        let answer = wire.query("SELECT timestamptz '2024-07-01 12:00+00'");
        assert_eq!(text_of_first_row(&answer), noon, "{sent}");
        // A parameter in text, which nobody has typed in the query.
        wire.send(
            &[parse("", "SELECT $1::timestamptz", &[]), bind("", "", &[], &[Some(noon.as_bytes())], &[])]
                .concat(),
        );
        wire.send(&[execute("", 0), sync()].concat());
        assert_eq!(text_of_first_row(&wire.until_ready()), noon, "{sent}");
        let messages = wire.query("SET TIME ZONE 'Asia/Tokyo'");
        let changed = messages.iter().find(|message| message.kind == 'S').expect("ParameterStatus");
        assert_eq!(changed.body, b"TimeZone\0Asia/Tokyo\0");
        wire.query("RESET TimeZone");
        assert_eq!(text_of_first_row(&wire.query("SHOW TimeZone")), told);
    }
}

#[test]
fn sessions_in_two_zones_do_not_see_each_others_answers() {
    let survivor = Survivor::new();
    let in_zone = |zone| Wire::log_in_with(&survivor.login, &[("TimeZone", zone)]);
    let (mut berlin, mut tokyo) = (in_zone("Europe/Berlin"), in_zone("Asia/Tokyo"));
    berlin.query("CREATE TABLE zoned (id int PRIMARY KEY, z timestamptz)");
    berlin.query("INSERT INTO zoned VALUES (1, '2024-07-01 12:00')");
    // Often enough for whatever keeps a text, a plan or a filter.
    for _ in 0..4 {
        for (wire, shown, noon) in
            [(&mut berlin, "2024-07-01 12:00:00+02", "1"), (&mut tokyo, "2024-07-01 19:00:00+09", "0")]
        {
            let row = wire.query("SELECT z FROM zoned WHERE id = 1");
            assert_eq!(text_of_first_row(&row), shown);
            let row = wire.query("SELECT z::text FROM zoned WHERE id = 1");
            assert_eq!(text_of_first_row(&row), shown);
            let copied = wire.query("COPY zoned TO STDOUT");
            let line = copied.iter().find(|message| message.kind == 'd').expect("a line");
            assert_eq!(&line.body[..], format!("1\t{shown}\n").as_bytes());
            let found = wire.query("SELECT count(*) FROM zoned WHERE extract(hour FROM z) = 12");
            assert_eq!(text_of_first_row(&found), noon);
            let found = wire.query("SELECT count(*) FROM zoned WHERE z = '2024-07-01 12:00'");
            assert_eq!(text_of_first_row(&found), noon);
        }
    }
}

#[test]
fn w22_parameters_are_postgres_own() {
    let survivor = Survivor::new();
    let wire = survivor.log_in();
    let version = wire.parameter("server_version").expect("server_version");
    assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "plain numbers: {version}");
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("DateStyle", "ISO, MDY"),
    ] {
        assert_eq!(wire.parameter(name), Some(value), "{name}");
    }
}

#[test]
fn w23_errors_carry_severity_twice_position_and_hint() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let messages = wire.query("SELECT nope FROM pg_class");
    let error = only_error(&messages);
    assert_eq!(error.field('S').as_deref(), Some("ERROR"));
    assert_eq!(error.field('V').as_deref(), Some("ERROR"));
    assert_eq!(error.field('P').as_deref(), Some("8"), "the position of `nope`");
    assert_eq!(error.field('M').as_deref(), Some("column \"nope\" does not exist"));
}

#[test]
fn w23_a_changed_setting_is_reported() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let messages = wire.query("SET application_name = 'renamed'");
    // Postgres reports before ReadyForQuery since version 14, before CommandComplete earlier: both are known.
    let told = messages.iter().find(|message| message.kind == 'S').expect("ParameterStatus");
    assert_eq!(told.body, b"application_name\0renamed\0");
}

#[test]
fn w24_an_idle_session_hears_of_the_shutdown() {
    let mut survivor = Survivor::new();
    let mut idle = survivor.log_in();
    let status = survivor.server.stop();
    assert!(status.success(), "{status}: {}", survivor.server.log());
    let end = idle.until_closed();
    assert_eq!(end.error().state(), "57P01");
    assert_eq!(end.error().field('S').as_deref(), Some("FATAL"));
}

#[test]
fn an_error_skips_the_pipeline_until_sync() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let good = || [parse("", "SELECT 1", &[]), bind("", "", &[], &[], &[]), execute("", 0)].concat();
    let bad = parse("", "SELECT nope", &[]);
    wire.send(&[good(), bad, good(), sync(), good(), sync()].concat());
    assert_eq!(kinds(&wire.until_ready()), "1 2 D C E Z");
    assert_eq!(kinds(&wire.until_ready()), "1 2 D C Z");
}

#[test]
fn an_error_is_sent_at_once() {
    // asyncpg sends Parse, Describe, Flush and decides by the answer whether to send Sync: it would wait for ever.
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    for wait in [flush(), Vec::new()] {
        wire.send(&[parse("", "SELECT nope", &[]), about(b'D', b'S', ""), wait].concat());
        assert_eq!(wire.message().expect("an error").state(), "42703");
        wire.send(&sync());
        assert_eq!(kinds(&wire.until_ready()), "Z");
    }
}

#[test]
fn a_pipeline_up_to_sync_is_one_transaction() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.query("CREATE TABLE piped (a int PRIMARY KEY)");
    let insert = |n: &str| {
        [
            parse("", &format!("INSERT INTO piped VALUES ({n})"), &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
        ]
        .concat()
    };
    wire.send(&[insert("1"), insert("2"), insert("1"), sync()].concat());
    assert_eq!(only_error(&wire.until_ready()).state(), "23505");
    assert_eq!(kinds(&wire.query("SELECT * FROM piped")), "T C Z", "the first two went with the third");
}

#[test]
fn protocol_versions() {
    let survivor = Survivor::new();
    let mut wire = Wire::encrypted(&survivor.login);
    wire.send(&startup(2 << 16, &[("user", "dev")]));
    assert_eq!(wire.until_closed().error().state(), "0A000");
    // A newer minor version is talked down, not refused.
    let mut wire = Wire::encrypted(&survivor.login);
    wire.send(&startup(PROTOCOL + 2, &[("user", "dev"), ("_pq_.future", "1")]));
    let message = wire.message().expect("NegotiateProtocolVersion");
    assert_eq!(message.kind, 'v');
    assert!(message.body.ends_with(b"_pq_.future\0"));
}

fn cancel(login: &Login, process: i32, secret: i32) {
    let mut wire = Wire::encrypted(login);
    wire.send(&cancel_request(process, secret));
    wire.until_closed();
}

/// The first column of the first row, which must be text.
fn text_of_first_row(messages: &[Message]) -> String {
    let row = messages.iter().find(|message| message.kind == 'D').expect("a row");
    let length = u32::from_be_bytes(row.body[2..6].try_into().expect("4 bytes")) as usize;
    String::from_utf8(row.body[6..6 + length].to_vec()).expect("UTF-8")
}
