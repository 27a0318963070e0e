//! Does any sequence of bytes end more than its own connection?
//!
//! Malformed and extreme frames over TCP and TLS. After each, the process is the same one and another session,
//! open all along, still answers. Tests are named after the traps W1 to W26 of our wire notes: each was a real
//! defect of a protocol library. `protocol` has those that well-formed messages meet; W20, comparing secrets in
//! constant time, is `crypto`'s own test, and W26, no XX000, is what every file of `slt/` checks.

use std::{
    sync::{Mutex, OnceLock},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use crate::{
    survivor::Survivor,
    wire::{
        PROTOCOL, SSL_REQUEST, Wire, bind, cstring, execute, frame, kinds, only_error, parse, query, startup,
        sync,
    },
};

/// The eleven messages that once made a decoder panic or loop, as type and hex.
const CRASH_SEEDS: &[(&str, &[u8])] = &[
    ("Bind with a format count and no body", &[b'B', 0, 0, 0, 8, 0, 0, 0, 5]),
    ("Bind with a parameter length past the buffer", &[b'B', 0, 0, 0, 14, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0xe8]),
    ("Parse with a type count and no types", &[b'P', 0, 0, 0, 8, 0, 0, 0, 9]),
    ("empty Describe", &[b'D', 0, 0, 0, 4]),
    ("empty Close", &[b'C', 0, 0, 0, 4]),
    ("Execute without max-rows", &[b'E', 0, 0, 0, 5, 0]),
    ("Query of length 3", &[b'Q', 0, 0, 0, 3]),
    ("Query of length 0", &[b'Q', 0, 0, 0, 0]),
    ("Query without a NUL", &[b'Q', 0, 0, 0, 6, b'a', b'b']),
    ("empty CopyFail", &[b'f', 0, 0, 0, 4]),
    (
        "Bind whose count eats three pipelined Syncs",
        &[b'B', 0, 0, 0, 8, 0, 0, 0, 5, b'S', 0, 0, 0, 4, b'S', 0, 0, 0, 4, b'S', 0, 0, 0, 4],
    ),
];

#[test]
fn w2_crash_seeds_end_only_their_connection() {
    let mut survivor = Survivor::new();
    for (name, bytes) in CRASH_SEEDS {
        let mut wire = survivor.log_in();
        wire.send(bytes);
        let end = wire.until_closed();
        assert_eq!(end.error().state(), "08P01", "{name}: {}", end.error().describe());
        assert_eq!(end.messages.len(), 1, "{name}: nothing but the error: {}", kinds(&end.messages));
        survivor.check(name);
    }
}

#[test]
fn w2_crash_seeds_before_and_during_authentication() {
    let mut survivor = Survivor::new();
    for (name, bytes) in CRASH_SEEDS {
        let mut wire = Wire::encrypted(&survivor.login);
        wire.send(bytes);
        wire.send(&[0; 64]);
        wire.until_closed();
        let mut wire = Wire::encrypted(&survivor.login);
        wire.send(&startup(PROTOCOL, &[("user", "dev")]));
        wire.message();
        wire.send(bytes);
        let end = wire.until_closed();
        assert!(!kinds(&end.messages).contains('Z'), "{name} logged in");
    }
    survivor.check("seeds before authentication");
}

#[test]
fn w2_crash_seeds_during_copy() {
    let mut survivor = Survivor::new();
    survivor.session.query("CREATE TABLE copied (a int)");
    for (name, bytes) in CRASH_SEEDS {
        let mut wire = survivor.log_in();
        wire.send(&query("COPY copied FROM STDIN"));
        assert_eq!(wire.message().expect("CopyInResponse").kind, 'G');
        wire.send(&frame(b'd', b"1\n"));
        wire.send(bytes);
        // Some are legal inside COPY or ignored there, as Postgres ignores Sync; then the copy is ended by hand.
        wire.send(&frame(b'f', &cstring("enough")));
        wire.send(&frame(b'X', &[]));
        let end = wire.until_closed();
        assert!(end.messages.iter().any(|message| message.kind == 'E'), "{name}: {}", kinds(&end.messages));
        let rows = survivor.session.query("SELECT * FROM copied");
        assert_eq!(kinds(&rows), "T C Z", "{name}: a broken COPY has no effect");
        survivor.check(name);
    }
}

#[test]
fn w1_execute_with_the_largest_and_with_negative_max_rows() {
    let mut survivor = Survivor::new();
    for max_rows in [i32::MAX, -1, i32::MIN, 0] {
        let mut wire = survivor.log_in();
        wire.send(&parse("", "SELECT x FROM generate_series(1, 3) AS s(x)", &[]));
        wire.send(&[bind("", "", &[], &[], &[]), execute("", max_rows), sync()].concat());
        assert_eq!(kinds(&wire.until_ready()), "1 2 D D D C Z", "max_rows {max_rows}");
        survivor.check("max_rows");
    }
    assert!(survivor.server.resident_bytes() < 4 << 30, "a buffer was sized by max_rows");
}

#[test]
fn w3_counts_stay_inside_their_frame() {
    let mut survivor = Survivor::new();
    let mut wire = survivor.log_in();
    // Two parameters are announced, one is there; what follows is a query that must not run.
    let body = [&cstring("")[..], &cstring(""), &[0, 0, 0, 2, 0, 0, 0, 1, b'x']].concat();
    wire.send(
        &[
            parse("", "SELECT $1::text, $2::text", &[]),
            frame(b'B', &body),
            query("CREATE TABLE swallowed ()"),
        ]
        .concat(),
    );
    assert_eq!(wire.until_closed().error().state(), "08P01");
    let rows = survivor.session.query("SELECT 1 FROM pg_class WHERE relname = 'swallowed'");
    assert_eq!(kinds(&rows), "T C Z");
    // Bytes behind the last field are an error, not the start of the next message.
    for message in [
        frame(b'S', b"x"),
        frame(b'E', &[&cstring("")[..], &[0; 8]].concat()),
        frame(b'D', b"S\0junk"),
        frame(b'Q', b"SELECT 1\0junk\0"),
    ] {
        let mut wire = survivor.log_in();
        wire.send(&message);
        assert_eq!(wire.until_closed().error().state(), "08P01", "{message:?}");
    }
    survivor.check("trailing bytes");
}

#[test]
fn w4_impossible_lengths() {
    let mut survivor = Survivor::new();
    for kind in *b"QPBDECSHXdcfpF" {
        for length in [0_u32, 1, 2, 3, u32::MAX, 0x8000_0000] {
            let mut wire = survivor.log_in();
            wire.send(&[&[kind][..], &length.to_be_bytes()].concat());
            let end = wire.until_closed();
            assert_eq!(end.error().state(), "08P01", "{} of length {length}", char::from(kind));
        }
    }
    survivor.check("impossible lengths");
}

#[test]
fn unknown_message_types_are_violations() {
    let mut survivor = Survivor::new();
    for kind in [b'!', b'Z', b'T', b'R', 0, 255, b'v'] {
        let mut wire = survivor.log_in();
        wire.send(&frame(kind, b""));
        assert_eq!(wire.until_closed().error().state(), "08P01", "type {kind}");
    }
    survivor.check("unknown types");
}

#[test]
fn w5_large_frames_are_refused_before_authentication() {
    let mut survivor = Survivor::new();
    let before = survivor.server.resident_bytes();
    // A startup packet, then a password message, each said to be almost 1 GiB.
    for _ in 0..20 {
        let mut wire = Wire::encrypted(&survivor.login);
        wire.send(&0x3fff_ff00_u32.to_be_bytes());
        assert_eq!(wire.until_closed().error().state(), "08P01");
        let mut wire = Wire::encrypted(&survivor.login);
        wire.send(&startup(PROTOCOL, &[("user", "dev")]));
        wire.message();
        wire.send(&[&b"p"[..], &0x3fff_ff00_u32.to_be_bytes()].concat());
        assert_eq!(wire.until_closed().error().state(), "08P01");
    }
    let grown = survivor.server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    survivor.check("large frames");
}

#[test]
fn w5_an_announced_large_frame_costs_nothing_until_it_comes() {
    let mut survivor = Survivor::new();
    let before = survivor.server.resident_bytes();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut wire = survivor.log_in();
            wire.send(&[&b"Q"[..], &0x3fff_ff00_u32.to_be_bytes(), b"SELECT 1"].concat());
            wire
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let grown = survivor.server.resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "20 announced GiB took {grown} bytes");
    survivor.check("announced frames");
    drop(waiting);
    survivor.check("announced frames that never came");
}

#[test]
fn w6_plaintext_after_ssl_request_is_never_read_as_encrypted() {
    let mut survivor = Survivor::new();
    // CVE-2021-23214: what a man in the middle puts behind SSLRequest.
    let mut wire = Wire::dial(&survivor.login);
    wire.send(&[&SSL_REQUEST[..], &startup(PROTOCOL, &[("user", "dev")]), &query("SELECT 1")].concat());
    let mut answer = Vec::new();
    let mut byte = [0];
    while answer.len() < 4096 && wire.read_exact(&mut byte).is_ok() {
        answer.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(!answer.contains(&b'R') || text.contains("08P01"), "the server talked on: {text:?}");
    assert!(!text.contains("SELECT"), "{text:?}");
    survivor.check("plaintext after SSLRequest");
}

#[test]
fn w6_encryption_asked_for_twice() {
    let mut survivor = Survivor::new();
    let mut wire = Wire::encrypted(&survivor.login);
    wire.send(&SSL_REQUEST);
    assert_eq!(wire.until_closed().error().state(), "08P01");
    // GSS is refused with one byte, and TLS may follow.
    let mut wire = Wire::dial(&survivor.login);
    wire.send(&[0, 0, 0, 8, 4, 210, 22, 48]);
    let mut answer = [0];
    wire.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"N");
    wire.send(&SSL_REQUEST);
    wire.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"S");
    survivor.check("encryption asked for twice");
}

#[test]
fn w7_a_silent_client_is_let_go() {
    let mut survivor = Survivor::new();
    let mut silent = Wire::dial(&survivor.login);
    let mut half = Wire::encrypted(&survivor.login);
    half.send(&[0, 0]);
    for wire in [&mut silent, &mut half] {
        wire.set_read_timeout(Duration::from_secs(25));
        // Either a word of farewell or just the end.
        while wire.message().is_some() {}
    }
    survivor.check("silent clients");
}

#[test]
fn w11_format_codes_are_none_one_or_one_each() {
    let mut survivor = Survivor::new();
    let sql = "SELECT $1::int, $2::int, $3::int";
    let values: [Option<&[u8]>; 3] = [Some(b"1"), None, Some(b"3")];
    let cases: [(&[i16], &[i16], bool); 8] = [
        (&[], &[], true),
        (&[0], &[0], true),
        (&[0, 0, 0], &[0, 1, 0], true),
        (&[0, 0], &[], false),
        (&[], &[1, 1], false),
        (&[0; 4], &[], false),
        (&[2], &[], false),
        (&[], &[-1], false),
    ];
    for (formats, results, fits) in cases {
        let mut wire = survivor.log_in();
        wire.send(
            &[parse("", sql, &[]), bind("", "", formats, &values, results), execute("", 0), sync()].concat(),
        );
        if fits {
            assert_eq!(kinds(&wire.until_ready()), "1 2 D C Z", "{formats:?} {results:?}");
            continue;
        }
        let mut error = None;
        while let Some(message) = wire.message() {
            match message.kind {
                'E' => error = Some(message),
                'Z' => break,
                _ => {}
            }
        }
        let state = error.expect("an error").state();
        assert!(["08P01", "22023"].contains(&state.as_str()), "{formats:?} {results:?}: {state}");
        survivor.check("format codes");
    }
}

#[test]
fn w11_wrong_number_of_parameters() {
    let survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let wrong: [&[Option<&[u8]>]; 3] = [&[], &[Some(b"1")], &[Some(b"1"), Some(b"2"), Some(b"3")]];
    for values in wrong {
        wire.send(
            &[parse("", "SELECT $1::int + $2::int", &[]), bind("", "", &[], values, &[]), sync()].concat(),
        );
        assert_eq!(only_error(&wire.until_ready()).state(), "08P01", "{} values", values.len());
    }
}

#[test]
fn w15_statements_and_portals_are_limited() {
    let mut survivor = Survivor::new();
    let mut wire = survivor.log_in();
    let mut refused = None;
    'batches: for batch in 0..40 {
        let mut messages = Vec::new();
        for n in 0..500 {
            messages.extend(parse(&format!("s{batch}_{n}"), "SELECT 1", &[]));
        }
        wire.send(&[messages, sync()].concat());
        for message in wire.until_ready() {
            if message.kind == 'E' {
                refused = Some(message.state());
                break 'batches;
            }
        }
    }
    let state = refused.expect("20,000 prepared statements were taken without a word");
    assert!(state.starts_with("53") || state == "54000", "{state}");
    survivor.check("hoarding statements");
}

#[test]
fn w25_text_must_be_utf8() {
    let mut survivor = Survivor::new();
    let mut wire = survivor.log_in();
    wire.send(&frame(b'Q', b"SELECT '\xff\xfe'\0"));
    assert_eq!(only_error(&wire.until_ready()).state(), "22021");
    wire.send(
        &[
            parse("", "SELECT $1::text", &[]),
            bind("", "", &[], &[Some(b"\xc3\x28")], &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(only_error(&wire.until_ready()).state(), "22021");
    wire.send(
        &[
            parse("", "SELECT $1::text", &[]),
            bind("", "", &[], &[Some(b"a\0b")], &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(only_error(&wire.until_ready()).state(), "22021");
    survivor.check("invalid UTF-8");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Any frames at all. Cases share a server without TLS, so that a run of 50,000 is minutes.
    #[test]
    fn any_frames_end_only_their_connection(frames in prop::collection::vec(any_frame(), 1..6)) {
        static SURVIVOR: OnceLock<Mutex<Survivor>> = OnceLock::new();
        let survivor = SURVIVOR.get_or_init(|| Mutex::new(Survivor::plaintext()));
        let mut survivor = survivor.lock().expect("the survivor");
        let mut wire = survivor.log_in();
        wire.send(&frames.concat());
        wire.send(&frame(b'X', &[]));
        // Ends the stream for a server that waits for the rest of a frame that was said to be longer.
        drop(wire);
        prop_assert!(survivor.server.is_running(), "{}", survivor.server.log());
        prop_assert_eq!(kinds(&survivor.session.query("SELECT 1")), "T D C Z");
    }
}

/// Frames whose type, length and counts are likely to be almost right.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(b"QPBDECSHXdcfpFSSBBPP\0\xff".to_vec());
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 255, b'S', b'P', b'1']), 0..40),
        Just(b"\0SELECT 1\0\0\0".to_vec()),
        Just(b"\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"SELECT 1; SELECT $1\0".to_vec()),
        Just(b"COPY (SELECT 1) TO STDOUT\0".to_vec()),
    ];
    (kind, body, prop_oneof![8 => Just(0_i64), 1 => -6_i64..20, 1 => Just(1_i64 << 30)]).prop_map(
        |(kind, body, lie)| {
            let length = i64::try_from(body.len()).expect("a small body") + 4 + lie;
            let length = u32::try_from(length.max(0)).expect("a small length");
            [&[kind][..], &length.to_be_bytes(), &body].concat()
        },
    )
}
