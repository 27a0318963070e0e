//! Golden bytes, hostile bytes, random bytes. A test that closes one of the known mistakes W1 … W26 of Postgres
//! servers carries its number, as in `session/tests`.

use bytes::BytesMut;
use proptest::prelude::*;
use sepal_database::{Error, OutputColumn, SqlState, SqlType};

use super::*;

const LIMITS: FrameLimits = FrameLimits { small: 10_000, large: 0x3fff_ffff };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// Cuts and decodes like a connection does: whole frames until an error or until more bytes are needed.
fn walk(mut input: &[u8]) -> (Vec<String>, Option<Rejection>) {
    let mut seen = Vec::new();
    loop {
        match scan(input, LIMITS) {
            Ok(Progress::Need(more)) => {
                assert!(more > input.len(), "waiting must be for bytes that are not there");
                return (seen, None);
            }
            Ok(Progress::Frame { kind, total }) => {
                match decode(kind, &input[5..total]) {
                    Ok(message) => seen.push(format!("{message:?}")),
                    Err(rejection @ Rejection::Frame(_)) => return (seen, Some(rejection)),
                    Err(Rejection::Content(_)) => seen.push("content".into()),
                }
                input = &input[total..];
            }
            Err(rejection) => return (seen, Some(rejection)),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn w02_eleven_crash_seeds_are_refused_without_panic() {
    let seeds = [
        ('B', "00000008 00 00 0005"),
        ('B', "0000000e 00 00 0000 0001 000003e8"),
        ('P', "00000008 00 00 0009"),
        ('D', "00000004"),
        ('C', "00000004"),
        ('E', "00000005 00"),
        ('Q', "00000003"),
        ('Q', "00000000"),
        ('Q', "00000006 6162"),
        ('f', "00000004"),
        ('B', "00000008 00 00 0005 53 00000004 53 00000004 53 00000004"),
    ];
    for (kind, body) in seeds {
        let mut bytes = vec![kind as u8];
        bytes.extend(hex(body));
        let (seen, rejection) = walk(&bytes);
        assert!(seen.is_empty(), "{kind} {body}: {seen:?}");
        let Some(Rejection::Frame(error)) = rejection else {
            panic!("{kind} {body}: not refused");
        };
        assert_eq!(error.state(), SqlState::ProtocolViolation, "{kind} {body}");
    }
}

#[test]
fn w03_a_count_cannot_eat_the_next_message() {
    // One byte short for its single format code; the Sync behind must not complete it.
    let mut bytes = frame(b'B', &hex("00 00 0001 00"));
    bytes.extend(frame(b'S', b""));
    let (seen, rejection) = walk(&bytes);
    assert!(seen.is_empty() && matches!(rejection, Some(Rejection::Frame(_))));
    // And what is left over inside a frame is not read as the next message.
    let mut query = b"select 1\0".to_vec();
    query.extend(frame(b'X', b""));
    assert!(matches!(walk(&frame(b'Q', &query)).1, Some(Rejection::Frame(_))));
}

#[test]
fn w04_lengths_below_four_and_missing_terminators_are_refused() {
    for length in 0u32..4 {
        let mut bytes = vec![b'Q'];
        bytes.extend(length.to_be_bytes());
        assert!(scan(&bytes, LIMITS).is_err());
    }
    assert!(decode(b'Q', b"select 1").is_err());
    assert!(matches!(decode(b'Q', b"\0"), Ok(Frontend::Query(""))));
}

#[test]
fn w05_lengths_are_bounded_by_the_state() {
    let mut large = vec![b'Q'];
    large.extend(10_001u32.to_be_bytes());
    assert!(scan(&large, FrameLimits::UNAUTHENTICATED).is_err());
    assert_eq!(scan(&large, LIMITS), Ok(Progress::Need(10_002)));
    let mut sync = vec![b'S'];
    sync.extend(5u32.to_be_bytes());
    assert!(scan(&sync, LIMITS).is_err(), "a Sync carries nothing");
    let mut describe = vec![b'D'];
    describe.extend(10_001u32.to_be_bytes());
    assert!(scan(&describe, LIMITS).is_err(), "a name is never that long");
}

#[test]
fn w11_format_codes_never_index_past_their_end() {
    let body = hex("00 00 0002 0000 0001 0000 0000");
    let Ok(Frontend::Bind(bind)) = decode(b'B', &body) else { panic!("a correct Bind is decoded") };
    let formats = bind.parameter_formats;
    assert_eq!(
        (formats.get(0), formats.get(1), formats.get(99)),
        (Format::Text, Format::Binary, Format::Text)
    );
    assert!(formats.for_count(2).is_some());
    assert!(formats.for_count(5).is_none(), "2 codes for 5 columns are refused");
    assert!(decode(b'B', &hex("00 00 0001 0002 0000 0000")).is_err(), "code 2 does not exist");
}

#[test]
fn w16_unknown_type_oids_are_kept() {
    let body = [b"s\0select $1\0".as_slice(), &hex("0002 00004001 000fffff")].concat();
    let Ok(Frontend::Parse(parse)) = decode(b'P', &body) else { panic!("a correct Parse is decoded") };
    assert_eq!(parse.types.iter().collect::<Vec<_>>(), vec![16_385, 0xf_ffff]);
}

#[test]
fn w25_text_that_is_not_utf8_is_22021_and_not_fatal() {
    let Err(Rejection::Content(error)) = decode(b'Q', b"select '\xff\xfe'\0") else {
        panic!("accepted or fatal");
    };
    assert_eq!(error.state().code(), "22021");
    assert_eq!(error.message(), "invalid byte sequence for encoding \"UTF8\": 0xff 0xfe 0x27");
}

#[test]
fn bind_values_come_out_as_sent() {
    let body = hex("7000 7300 0000 0003 ffffffff 00000000 00000002 6869 0001 0001");
    let Ok(Frontend::Bind(bind)) = decode(b'B', &body) else { panic!("a correct Bind is decoded") };
    assert_eq!((bind.portal, bind.statement, bind.values.len()), ("p", "s", 3));
    assert_eq!(bind.values.iter().collect::<Vec<_>>(), vec![None, Some(&b""[..]), Some(&b"hi"[..])]);
    assert_eq!(bind.result_formats.get(7), Format::Binary, "one code serves every column");
    assert!(decode(b'B', &hex("00 00 0000 0001 fffffffe 0000")).is_err(), "-2 is no length");
}

#[test]
fn startup_packets() {
    let mut body = (3u32 << 16 | 2).to_be_bytes().to_vec();
    body.extend(b"user\0a\0database\0b\0\0");
    let parameters = vec![("user", "a"), ("database", "b")];
    assert_eq!(startup(&body), Ok(Startup::Parameters { major: 3, minor: 2, parameters }));
    body.push(0);
    assert!(startup(&body).is_err(), "a byte is left over");
    assert!(startup(&[0, 3, 0, 0, b'u']).is_err(), "no terminator");
    assert_eq!(startup(&SSL_REQUEST.to_be_bytes()), Ok(Startup::Ssl));
    assert_eq!(startup(&GSSENC_REQUEST.to_be_bytes()), Ok(Startup::GssEnc));
    let cancel = [CANCEL_REQUEST.to_be_bytes(), 7u32.to_be_bytes(), [255; 4]].concat();
    assert_eq!(startup(&cancel), Ok(Startup::Cancel { process: 7, secret: -1 }));
    assert!(startup(&cancel[..8]).is_err());
}

fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(super::write::whole_messages(&out), out.len());
    out.to_vec()
}

#[test]
fn backend_messages_have_their_golden_bytes() {
    use super::write::*;
    let golden: [(Vec<u8>, &str); 12] = [
        (written(authentication_ok), "52 00000008 00000000"),
        (written(authentication_cleartext_password), "52 00000008 00000003"),
        (written(|out| authentication_sasl(out, &["A", "B"])), "52 0000000d 0000000a 4100 4200 00"),
        (written(|out| parameter_status(out, "a", "b")), "53 00000008 6100 6200"),
        (written(|out| backend_key_data(out, 1, -1)), "4b 0000000c 00000001 ffffffff"),
        (written(|out| ready_for_query(out, b'T')), "5a 00000005 54"),
        (
            written(|out| negotiate_protocol_version(out, &["_pq_.x"])),
            "76 00000013 00030000 00000001 5f70715f2e7800",
        ),
        (
            written(|out| parameter_description(out, &[SqlType::Int4, SqlType::Vector(None)])),
            "74 0000000e 0002 00000017 00004001",
        ),
        (written(|out| command_complete(out, "INSERT 0 3")), "43 0000000f 494e53455254203020 3300"),
        (written(|out| copy_in_response(out, Format::Binary, 2)), "47 0000000b 01 0002 0001 0001"),
        (
            written(|out| {
                parse_complete(out);
                bind_complete(out);
                close_complete(out);
                no_data(out);
            }),
            "31 00000004 32 00000004 33 00000004 6e 00000004",
        ),
        (
            written(|out| {
                portal_suspended(out);
                empty_query_response(out);
                copy_done(out);
            }),
            "73 00000004 49 00000004 63 00000004",
        ),
    ];
    for (bytes, expected) in golden {
        assert_eq!(bytes, hex(expected));
    }
}

#[test]
fn row_descriptions_carry_oid_size_and_modifier() {
    let columns = [OutputColumn { name: "v".into(), ty: SqlType::Vector(Some(3)), table: 20_000, column: 2 }];
    let bytes = written(|out| super::write::row_description(out, &columns, |_| Format::Binary));
    assert_eq!(bytes, hex("54 0000001a 0001 7600 00004e20 0002 00004001 ffff 00000003 0001"));
}

#[test]
fn w23_errors_carry_both_severities_and_every_known_field() {
    let error = Error::new(SqlState::UndefinedTable, "m").with_position(7).with_hint("h").with_detail("d");
    let bytes = written(|out| error_response(out, Severity::Fatal, &error));
    assert_eq!(&bytes[5..], b"SFATAL\0VFATAL\0C42P01\0Mm\0Dd\0Hh\0P7\0\0");
    let violation = Error::new(SqlState::CheckViolation, "m").with_constraint("public", "t", "t_a_check");
    let bytes = written(|out| error_response(out, Severity::Error, &violation));
    assert_eq!(&bytes[5..], b"SERROR\0VERROR\0C23514\0Mm\0spublic\0tt\0nt_a_check\0\0");
    let bytes = written(|out| notice_response(out, "NOTICE", &Error::new(SqlState::DuplicateTable, "a\0b")));
    assert_eq!(&bytes[5..], b"SNOTICE\0VNOTICE\0C42P07\0Ma\0\0", "a NUL cannot forge a field");
}

#[test]
fn a_half_written_message_is_told_from_whole_ones() {
    let mut out = BytesMut::new();
    super::write::ready_for_query(&mut out, b'I');
    let whole = out.len();
    let _open = super::write::open_data_row(&mut out, 3);
    assert_eq!(super::write::whole_messages(&out), whole);
}

proptest! {
    #[test]
    fn w02_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        walk(&bytes);
        let _ = startup(&bytes);
    }

    #[test]
    fn w02_random_bodies_never_panic(
        kind in proptest::sample::select(b"BCDEFHPQSXcdfp".to_vec()),
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..64),
    ) {
        if let Ok(message) = decode(kind, &body) {
            match message {
                Frontend::Bind(bind) => {
                    prop_assert_eq!(bind.values.iter().count(), bind.values.len());
                    bind.result_formats.get(usize::from(u16::MAX));
                }
                Frontend::Parse(parse) => prop_assert!(parse.types.iter().count() <= body.len()),
                _ => {}
            }
        }
    }

    #[test]
    fn w03_frames_are_cut_exactly(
        bodies in proptest::collection::vec(proptest::collection::vec(1u8..128, 0..40), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.extend(frame(b'Q', &[body.as_slice(), &[0]].concat()));
        }
        prop_assert_eq!(walk(&bytes).0.len(), bodies.len());
        // Any prefix gives a prefix of the messages and waits for the rest.
        let (seen, rejection) = walk(&bytes[..cut.index(bytes.len())]);
        prop_assert!(seen.len() <= bodies.len() && rejection.is_none());
    }
}
