//! The line protocol's shape, which scripts may rely on, and the socket's file.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

#[test]
fn requests_and_replies_have_a_fixed_shape() {
    let request: Request =
        serde_json::from_str(r#"{"command":"key-create","tenant":"a","write":false,"label":""}"#).unwrap();
    let expected = Request::KeyCreate {
        tenant: "a".into(),
        environment: None,
        write: false,
        label: String::new(),
        expires_at: None,
    };
    assert_eq!(request, expected);
    assert_eq!(serde_json::to_string(&Request::TenantList).unwrap(), r#"{"command":"tenant-list"}"#);
    assert_eq!(serde_json::to_string(&Reply::Ok(Answer::Done)).unwrap(), r#"{"ok":"done"}"#);
    let refusal = Refusal { message: "m".into(), code: "42704".into(), hint: None };
    assert_eq!(
        serde_json::to_string(&Reply::Error(refusal)).unwrap(),
        r#"{"error":{"message":"m","code":"42704","hint":null}}"#
    );
    assert!(serde_json::from_str::<Request>(r#"{"command":"format-disk"}"#).is_err());
}

#[test]
fn a_new_key_does_not_show_its_token_in_logs() {
    let new = NewKey {
        key: Key {
            id: "abc".into(),
            tenant: "a".into(),
            environment: None,
            read: true,
            write: true,
            label: String::new(),
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        },
        token: Zeroizing::new("sepal_live_secret".into()),
        environment_made: false,
        endpoint: Endpoint { host: "localhost".into(), port: 1, tls: true, authority: None },
    };
    assert!(!format!("{new:?}").contains("sepal_live_secret"));
    // Over the socket it goes, and comes out the same.
    let sent = serde_json::to_string(&new).unwrap();
    assert!(sent.contains(r#""token":"sepal_live_secret""#), "{sent}");
    assert_eq!(serde_json::from_str::<NewKey>(&sent).unwrap(), new);
}

#[tokio::test]
async fn the_socket_is_private_replaces_a_leftover_and_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a socket address may be.
    let data = dir.path().join("d".repeat(120));
    fs::create_dir(&data).unwrap();
    fs::write(data.join(socket::NAME), b"left by a killed server").unwrap();
    let bound = server::AdminSocket::bind(&data).unwrap();
    let path = data.join(socket::NAME);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let short = socket::SocketDir::open(&data).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(short.join(socket::NAME)).is_ok());
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_secrets_value_crosses_the_socket_and_no_log() {
    let request = Request::Secret {
        tenant: "acme".into(),
        environment: "prod".into(),
        action: SecretAction::Set {
            name: "DB_PASSWORD".into(),
            source: SecretSource::Value(SecretBytes(Zeroizing::new(b"hunter2\xff".to_vec()))),
            allowed_hosts: None,
        },
    };
    assert!(!format!("{request:?}").contains("hunter2"));
    let sent = serde_json::to_string(&request).unwrap();
    assert_eq!(
        sent,
        concat!(
            r#"{"command":"secret","tenant":"acme","environment":"prod","action":{"set":"#,
            r#"{"name":"DB_PASSWORD","source":{"value":"aHVudGVyMv8="},"allowed_hosts":null}}}"#
        )
    );
    assert_eq!(serde_json::from_str::<Request>(&sent).unwrap(), request);
    let wrong = serde_json::from_str::<Request>(&sent.replace("aHVudGVyMv8=", "hunter2!")).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
    let list = r#"{"command":"secret","tenant":"a","environment":"e","action":"list"}"#;
    assert!(serde_json::from_str::<Request>(list).is_ok());
}
