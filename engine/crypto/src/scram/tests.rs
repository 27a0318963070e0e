//! RFC 7677's exchange word for word, then every way in which a client or a man in the middle can be wrong.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;
use crate::{Key, hex, mac::hmac_parts, sha256};

const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

fn pencil() -> Verifier {
    Verifier::derive("pencil", &STANDARD.decode(SALT).unwrap(), 4096)
}

fn rfc_exchange() -> ServerExchange {
    ServerExchange::with_nonce(SCRAM_SHA_256, None, pencil(), SERVER_NONCE.into()).unwrap()
}

/// A client that knows the password, for what the RFC's vector does not cover.
fn client_final(password: &str, gs2: &str, end_point: &[u8], bare: &str, server_first: &str) -> String {
    let field = |name| server_first.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
    let (nonce, salt, iterations): (&str, &str, &str) = (field("r="), field("s="), field("i="));
    let salt = STANDARD.decode(salt).unwrap();
    let mut u = hmac_parts(password.as_bytes(), &[&salt, &[0, 0, 0, 1]]);
    let mut salted = u;
    for _ in 1..iterations.parse().unwrap() {
        u = hmac_parts(password.as_bytes(), &[&u]);
        salted.iter_mut().zip(u).for_each(|(sum, byte)| *sum ^= byte);
    }
    let client_key = hmac_parts(&salted, &[b"Client Key"]);
    let binding = STANDARD.encode([gs2.as_bytes(), end_point].concat());
    let unproved = format!("c={binding},r={nonce}");
    let signature =
        hmac_parts(&sha256(&client_key), &[format!("{bare},{server_first},{unproved}").as_bytes()]);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    format!("{unproved},p={}", STANDARD.encode(proof))
}

#[test]
fn rfc_7677_section_3() {
    let mut exchange = rfc_exchange();
    assert_eq!(
        exchange.client_first(CLIENT_FIRST).unwrap(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    assert_eq!(
        exchange.client_final(CLIENT_FINAL.as_bytes()).unwrap(),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

/// Any change of client-final is refused: in its nonce, its binding or its proof.
#[test]
fn every_changed_character_of_client_final_is_refused() {
    for position in 0..CLIENT_FINAL.len() {
        let mut message = CLIENT_FINAL.as_bytes().to_vec();
        message[position] = if message[position] == b'A' { b'B' } else { b'A' };
        let mut exchange = rfc_exchange();
        exchange.client_first(CLIENT_FIRST).unwrap();
        assert!(exchange.client_final(&message).is_err(), "character {position}");
    }
}

#[test]
fn wrong_password_and_mock_user_get_the_same_answer() {
    let mock = Verifier::mock(&Key::from_bytes([1; 32]), "nobody");
    for verifier in [pencil(), mock] {
        let mut exchange = ServerExchange::new(SCRAM_SHA_256, None, verifier).unwrap();
        let server_first = exchange.client_first(CLIENT_FIRST).unwrap();
        let answer = client_final("pencill", "n,,", b"", "n=user,r=rOprNGfwEbeRWgbNEkqO", &server_first);
        let error = exchange.client_final(answer.as_bytes()).unwrap_err();
        assert_eq!(error, ScramError::WrongProof);
        let error = error.to_error("u1");
        assert_eq!(error.state().code(), "28P01");
        assert_eq!(error.message(), "password authentication failed for user \"u1\"");
    }
}

#[test]
fn mock_is_the_same_every_time_and_differs_by_user_and_key() {
    let key = Key::from_bytes([1; 32]);
    let mock = Verifier::mock(&key, "nobody");
    assert_eq!(mock.serialize(), Verifier::mock(&key, "nobody").serialize());
    assert_ne!(mock.salt, Verifier::mock(&key, "nobody2").salt);
    assert_ne!(mock.salt, Verifier::mock(&Key::from_bytes([2; 32]), "nobody").salt);
    // It must look like a real one: same iterations, same salt length as control gives to real keys.
    assert_eq!((mock.salt.len(), mock.iterations), (16, 4096));
}

#[test]
fn plus_binds_to_the_certificate() {
    let bare = "n=,r=abcdefgh";
    let gs2 = "p=tls-server-end-point,,";
    for (seen_by_client, expected) in [(b"hash-of-certificate", true), (b"hash-of-another-one", false)] {
        let mut exchange =
            ServerExchange::new(SCRAM_SHA_256_PLUS, Some(b"hash-of-certificate"), pencil()).unwrap();
        let server_first = exchange.client_first(format!("{gs2}{bare}").as_bytes()).unwrap();
        let answer = client_final("pencil", gs2, seen_by_client, bare, &server_first);
        let result = exchange.client_final(answer.as_bytes());
        match expected {
            true => assert!(result.unwrap().starts_with("v=")),
            false => assert_eq!(result, Err(ScramError::BindingMismatch)),
        }
    }
}

#[test]
fn flags_and_mechanisms_must_agree() {
    let end_point: Option<&[u8]> = Some(b"hash");
    let first = |mechanism, end_point, message: &str| {
        ServerExchange::new(mechanism, end_point, pencil()).unwrap().client_first(message.as_bytes())
    };
    assert!(first(SCRAM_SHA_256, None, "n,,n=,r=abc").is_ok());
    assert!(first(SCRAM_SHA_256, None, "y,,n=,r=abc").is_ok(), "no TLS: the client is right");
    assert!(first(SCRAM_SHA_256, end_point, "n,,n=,r=abc").is_ok(), "a client without support");
    let refused = [
        (SCRAM_SHA_256, "y,,n=,r=abc"),
        (SCRAM_SHA_256, "p=tls-server-end-point,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "n,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "y,,n=,r=abc"),
        (SCRAM_SHA_256_PLUS, "p=tls-unique,,n=,r=abc"),
    ];
    for (mechanism, message) in refused {
        let error = first(mechanism, end_point, message).unwrap_err();
        assert!(matches!(error, ScramError::BindingNegotiation(_)), "{mechanism} {message}: {error}");
        assert_eq!(error.to_error("u").state().code(), "28000");
    }
    let unknown = ServerExchange::new(SCRAM_SHA_256_PLUS, None, pencil()).unwrap_err();
    assert_eq!(unknown, ScramError::UnknownMechanism, "PLUS was not offered");
    assert!(ServerExchange::new("SCRAM-SHA-1", end_point, pencil()).is_err());
}

#[test]
fn malformed_messages_are_refused_not_panicked_on() {
    let client_first: [&[u8]; 13] = [
        b"",
        b",",
        b",,",
        b"n",
        b"n,",
        b"n,,",
        b"n,a=admin,n=,r=abc",
        b"x,,n=,r=abc",
        b"n,,m=ext,n=,r=abc",
        b"n,,n=user",
        b"n,,n=user,r=",
        b"n,,n=user,r=a b",
        b"\xff,,n=,r=abc",
    ];
    for message in client_first {
        let error = rfc_exchange().client_first(message).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{}: {error}", hex(message));
        assert_eq!(error.to_error("u").state().code(), "08P01");
    }
    assert!(rfc_exchange().client_first(&[b'n'; 5000]).is_err());
    assert!(rfc_exchange().client_first(b"n,,n=\0,r=abc").is_err());
    let client_last =
        ["", "c=biws", "p=", ",p=", "c=biws,p=AAAA", "r=x,c=biws,p=", "c=biws,r=x", "c=biws,r=x,p=!"];
    for message in client_last {
        let mut exchange = rfc_exchange();
        exchange.client_first(CLIENT_FIRST).unwrap();
        assert!(exchange.client_final(message.as_bytes()).is_err(), "{message}");
    }
}

#[test]
fn steps_out_of_order_are_refused() {
    assert!(rfc_exchange().client_final(CLIENT_FINAL.as_bytes()).is_err());
    let mut exchange = rfc_exchange();
    exchange.client_first(CLIENT_FIRST).unwrap();
    assert!(exchange.client_first(CLIENT_FIRST).is_err());
    assert!(exchange.client_final(CLIENT_FINAL.as_bytes()).is_err(), "a failed exchange stays failed");
    let mut exchange = rfc_exchange();
    exchange.client_first(CLIENT_FIRST).unwrap();
    exchange.client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert!(exchange.client_final(CLIENT_FINAL.as_bytes()).is_err(), "a proof counts once");
}

/// The keys were computed with Python's `hashlib.pbkdf2_hmac` and `hmac`.
#[test]
fn verifier_text_is_postgres() {
    let text = pencil().serialize();
    assert_eq!(
        text,
        concat!(
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:",
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        )
    );
    assert_eq!(Verifier::parse(&text).unwrap().serialize(), text);
    for broken in [
        "",
        "md5abc",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$4096:AAAA",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$x:AAAA$AAAA:AAAA",
        &text[..text.len() - 4],
    ] {
        assert!(Verifier::parse(broken).is_none(), "{broken}");
    }
    assert!(!format!("{:?}", pencil()).contains("key"));
}

#[test]
fn end_point_uses_the_signatures_hash() {
    assert_eq!(tls_server_end_point(b"abc", "1.2.840.113549.1.1.11").unwrap(), sha256(b"abc"));
    assert_eq!(
        tls_server_end_point(b"abc", "1.2.840.113549.1.1.5").unwrap(),
        sha256(b"abc"),
        "SHA-1 is replaced"
    );
    assert_eq!(tls_server_end_point(b"abc", "1.2.840.10045.4.3.3").unwrap().len(), 48);
    assert_eq!(tls_server_end_point(b"abc", "1.2.840.10045.4.3.4").unwrap().len(), 64);
    assert_eq!(tls_server_end_point(b"abc", "1.3.101.112"), None, "Ed25519 has no end-point hash");
}
