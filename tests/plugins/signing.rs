//! Whose plugins are taken?
//!
//! Signed here with a library of the test's own, over what docs/plugins/reference.md says a signature covers.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_postgres::Client;

use super::guest;
use crate::{
    pipeline_status::{rows, run, words},
    server::Server,
};

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("every 32 bytes are a seed")
}

fn public(key: &Ed25519KeyPair) -> String {
    format!("ed25519:{}", STANDARD.encode(key.public_key().as_ref()))
}

fn sign(key: &Ed25519KeyPair, component: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA256, component);
    let message = [&b"sepal-plugin-v1\0"[..], hash.as_ref()].concat();
    key.sign(&message).as_ref().to_vec()
}

/// SQLSTATE and words of the refusal; `None` if the plugin is taken, and dropped again.
async fn told(client: &Client, component: &[u8], signature: Option<&[u8]>) -> Option<String> {
    let created = match signature {
        Some(signature) => {
            client.execute("CREATE PLUGIN p FROM $1 SIGNATURE $2", &[&component, &signature]).await
        }
        None => client.execute("CREATE PLUGIN p FROM $1", &[&component]).await,
    };
    match created {
        Ok(_) => {
            run(client, "DROP PLUGIN p").await;
            None
        }
        Err(error) => Some(words(error.as_db_error().expect("an answer"))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_keys_signature_counts() {
    let server = Server::start();
    let client = server.connect().await;
    let component = guest::pack(&guest::hostile(), &guest::manifest("1.0.0", &[]));
    let (ours, theirs) = (key(1), key(2));
    let good = sign(&ours, &component);

    // Nobody is trusted yet: the development server takes what nobody signed, and no signature that it cannot judge.
    assert_eq!(told(&client, &component, None).await, None);
    let by_nobody = told(&client, &component, Some(&good)).await.expect("a refusal");
    assert!(by_nobody.starts_with("42501"), "{by_nobody}");

    run(&client, &format!("CREATE PLUGIN TRUST KEY ours AS '{}'", public(&ours))).await;
    assert_eq!(told(&client, &component, Some(&good)).await, None);
    let as_text = STANDARD.encode(&good);
    assert_eq!(told(&client, &component, Some(as_text.as_bytes())).await, None, "base64 is taken too");

    let mut flipped = component.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut other_signature = good.clone();
    other_signature[3] ^= 1;
    let bare = key(1).sign(digest(&SHA256, &component).as_ref()).as_ref().to_vec();
    for (what, component, signature) in [
        ("a byte of the manifest changed", &flipped, &good),
        ("a byte of the signature changed", &component, &other_signature),
        ("somebody else's signature", &component, &sign(&theirs, &component)),
        ("a signature of the hash alone", &component, &bare),
    ] {
        let told =
            told(&client, component, Some(signature)).await.unwrap_or_else(|| panic!("{what} was taken"));
        assert!(told.starts_with("42501") && told.contains("signature"), "{what}: {told}");
    }
    let unsigned = told(&client, &component, None).await.expect("a refusal");
    assert!(unsigned.starts_with("42501") && unsigned.contains("not signed"), "{unsigned}");
    let short = told(&client, &component, Some(&good[..63])).await.expect("a refusal");
    assert!(short.starts_with("22023"), "{short}");
    let refused = client.batch_execute("CREATE PLUGIN TRUST KEY wrong AS 'ed25519:AAAA'").await;
    assert!(refused.is_err(), "that is no key");

    // Who signed it is shown; a key that is not trusted any more signs nothing more.
    client.execute("CREATE PLUGIN p FROM $1 SIGNATURE $2", &[&component, &good]).await.expect("a plugin");
    let shown = rows(&client, "SELECT signed_by FROM sepal_plugins WHERE name = 'p'").await;
    assert_eq!(shown[0].get(0), Some("ours"));
    run(&client, &format!("CREATE PLUGIN TRUST KEY theirs AS '{}'", public(&theirs))).await;
    run(&client, "DROP PLUGIN TRUST KEY ours").await;
    let late = client.execute("ALTER PLUGIN p UPDATE FROM $1 SIGNATURE $2", &[&component, &good]).await;
    assert!(late.is_err(), "the key is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_others_takes_no_unsigned_plugin() {
    let server = Server::start_with(&["--allow-unsigned-plugins", "false"]);
    let client = server.connect().await;
    let component = guest::pack(&guest::hostile(), &guest::manifest("1.0.0", &[]));
    let unsigned = told(&client, &component, None).await.expect("a refusal");
    assert!(unsigned.starts_with("42501") && unsigned.contains("CREATE PLUGIN TRUST KEY"), "{unsigned}");
    let ours = key(1);
    run(&client, &format!("CREATE PLUGIN TRUST KEY ours AS '{}'", public(&ours))).await;
    assert_eq!(told(&client, &component, Some(&sign(&ours, &component))).await, None);

    // Another tenant trusts whom it likes: this one's key says nothing there.
    let rival_key = server.tenant("rival");
    let rival = server.login_with(&rival_key).connect().await.expect("connect");
    let foreign = told(&rival, &component, Some(&sign(&ours, &component))).await.expect("a refusal");
    assert!(foreign.starts_with("42501"), "{foreign}");
}
