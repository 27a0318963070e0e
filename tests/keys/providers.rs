//! Root keys under a passphrase, in a PKCS#11 token, with a transit engine: made, served, started again, refused.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::Server;

use super::{
    CONFIGURATION, private_file, rows, run, said, sepal,
    transit::{TOKEN, Transit},
    write_row,
};

const WORDS: &str = "correct horse battery staple";

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_opens_the_directory_and_can_be_changed() {
    let place = TempDir::new().expect("a temporary directory");
    let data = place.path().join("data").display().to_string();
    let secret = place.path().join("passphrase");
    let file = private_file(&secret, "password1234567");
    let init = ["init", "--data", &data, "--root-key", "passphrase", "--root-secret-file", &file];
    let weak = sepal(&init, &[]);
    assert_eq!(weak.status.code(), Some(CONFIGURATION), "{}", said(&weak));
    assert!(said(&weak).contains("guessed first"), "{}", said(&weak));
    private_file(&secret, WORDS);
    let made = sepal(&init, &[]);
    assert!(made.status.success(), "{}", said(&made));
    let seal = fs::read_to_string(PathBuf::from(&data).join("root.seal")).expect("root.seal");
    assert!(seal.contains("\"memory_kib\":65536") && !seal.contains("horse"), "{seal}");
    assert!(!PathBuf::from(&data).join("root.key").exists());

    let mut server = Server::start_in(place, &["--root-secret-file", &file]);
    let key = server.tenant("acme");
    write_row(&server, &key, 7).await;
    let rotated = server.admin(&["root", "rotate"]);
    assert_eq!(rotated["kept_in"], Value::from("passphrase"));
    server.restart();
    assert_eq!(rows(&server, &key).await, [7]);

    server.stop();
    private_file(&secret, "correct horse battery stable");
    let ended = server.try_start().expect_err("started with a wrong passphrase");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    assert!(
        ended.log.contains("the passphrase is not the one") && !ended.log.contains("stable"),
        "{}",
        ended.log
    );

    private_file(&secret, WORDS);
    let next = private_file(&server.data().join("../next"), "another five words for tomorrow");
    let data = server.data().display().to_string();
    let moved = run(
        &format!(
            "root move --data {data} --root-secret-file {file} --root-key passphrase --new-secret-file {next}"
        ),
        &[],
    );
    assert!(moved.status.success(), "{}", said(&moved));
    assert!(server.try_start().is_err(), "the old passphrase opens it still");
    private_file(&secret, "another five words for tomorrow");
    server.start_again();
    assert_eq!(rows(&server, &key).await, [7]);

    // And back to a file.
    server.stop();
    let moved = sepal(&["root", "move", "--data", &data, "--root-secret-file", &file], &[]);
    assert!(moved.status.success(), "{}", said(&moved));
    assert!(server.data().join("root.key").exists() && !server.data().join("root.seal").exists());
    server.start_again();
    assert_eq!(rows(&server, &key).await, [7]);
    let told = sepal(&["audit", "list", "--data", &data], &[]).stdout;
    assert_eq!(String::from_utf8_lossy(&told).matches("root.move").count(), 2);
    let running =
        run(&format!("root move --data {data} --root-key passphrase --new-secret-file {file}"), &[]);
    assert_eq!(running.status.code(), Some(1), "a directory that is served is not moved: {}", said(&running));
}

/// Killed between the making of root.seal and of control.db, with half of the latter left.
#[test]
fn an_init_that_was_interrupted_is_repeated() {
    let place = TempDir::new().expect("a temporary directory");
    let data = place.path().join("data");
    let text = data.display().to_string();
    let file = private_file(&place.path().join("passphrase"), WORDS);
    let init = ["init", "--data", &text, "--root-key", "passphrase", "--root-secret-file", &file];
    assert!(sepal(&init, &[]).status.success());
    let seal = fs::read(data.join("root.seal")).expect("root.seal");
    for left in ["control.db", "control.db-journal"] {
        let _ = fs::remove_file(data.join(left));
    }
    fs::write(data.join("control.unfinished"), "half").expect("write");
    let other = sepal(&["init", "--data", &text], &[]);
    assert_eq!(other.status.code(), Some(CONFIGURATION), "{}", said(&other));
    assert!(said(&other).contains("for passphrase: repeat it with the same flags"), "{}", said(&other));
    let again = sepal(&init, &[]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(data.join("control.db").exists());
    assert_eq!(fs::read(data.join("root.seal")).expect("root.seal"), seal, "the root key is the same");
}

/// SoftHSM with a token of its own.
struct SoftHsm {
    place: TempDir,
    module: String,
    pin_file: String,
}

impl SoftHsm {
    const PIN: &'static str = "483920";

    fn new() -> Self {
        let module = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]
            .into_iter()
            .find(|path| PathBuf::from(path).exists())
            .expect("SoftHSM: run ./setup test")
            .to_owned();
        let place = TempDir::new().expect("a temporary directory");
        let tokens = place.path().join("tokens");
        fs::create_dir(&tokens).expect("a directory");
        fs::write(
            place.path().join("softhsm2.conf"),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                tokens.display()
            ),
        )
        .expect("write");
        let pin_file = private_file(&place.path().join("pin"), Self::PIN);
        let hsm = Self { place, module, pin_file };
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                "sepal-test",
                "--pin",
                Self::PIN,
                "--so-pin",
                "837465",
            ])
            .env("SOFTHSM2_CONF", hsm.configuration())
            .stdin(Stdio::null())
            .output()
            .expect("softhsm2-util: run ./setup test");
        assert!(made.status.success(), "{}", said(&made));
        hsm
    }

    fn configuration(&self) -> String {
        self.place.path().join("softhsm2.conf").display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pkcs11_token_opens_the_directory() {
    let hsm = SoftHsm::new();
    let configuration = hsm.configuration();
    let variables = [("SOFTHSM2_CONF", configuration.as_str())];
    let place = TempDir::new().expect("a temporary directory");
    let data = place.path().join("data").display().to_string();
    let init = |token: &str| {
        let line = format!(
            "init --data {data} --root-key pkcs11 --pkcs11-module {} --pkcs11-token {token} \
             --pkcs11-key root-wrapping --root-secret-file {}",
            hsm.module, hsm.pin_file
        );
        run(&line, &variables)
    };
    let missing = init("no-such-token");
    assert_eq!(missing.status.code(), Some(CONFIGURATION), "{}", said(&missing));
    assert!(
        said(&missing).contains("\"sepal-test\""),
        "the tokens that are there are named: {}",
        said(&missing)
    );
    let made = init("sepal-test");
    assert!(made.status.success(), "{}", said(&made));

    let mut server = Server::start_in_with(place, &["--root-secret-file", &hsm.pin_file], &variables);
    let key = server.tenant("acme");
    write_row(&server, &key, 7).await;
    assert_eq!(server.admin(&["root", "rotate"])["under_old"], Value::from(0));
    server.restart();
    assert_eq!(rows(&server, &key).await, [7]);

    // A tenant's own key in the same token, which the server has open already.
    let own = format!(
        "tenant byok set acme --provider pkcs11 --pkcs11-module {} --pkcs11-token sepal-test \
         --pkcs11-key root-wrapping --secret-file {}",
        hsm.module, hsm.pin_file
    );
    server.admin(&own.split_whitespace().collect::<Vec<_>>());
    server.restart();
    assert_eq!(rows(&server, &key).await, [7]);

    server.stop();
    private_file(&PathBuf::from(&hsm.pin_file), "000000");
    let ended = server.try_start().expect_err("started with a wrong PIN");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    assert!(ended.log.contains("the PIN is wrong") && !ended.log.contains("000000"), "{}", ended.log);
    private_file(&PathBuf::from(&hsm.pin_file), SoftHsm::PIN);
    server.start_again();
    assert_eq!(rows(&server, &key).await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transit_engine_opens_the_directory() {
    let transit = Transit::start();
    let url = transit.http.url("");
    let place = TempDir::new().expect("a temporary directory");
    let data = place.path().join("data").display().to_string();
    let secret = place.path().join("token");
    let file = private_file(&secret, &format!("{TOKEN}\n"));
    let made = sepal(
        &[
            "init",
            "--data",
            &data,
            "--root-key",
            "transit",
            "--transit-url",
            &url,
            "--transit-key",
            "root",
            "--root-secret-file",
            &file,
        ],
        &[],
    );
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(transit.wrapped(), 1);

    let mut server = Server::start_in(place, &["--root-secret-file", &file]);
    let key = server.tenant("acme");
    write_row(&server, &key, 7).await;
    server.admin(&["root", "rotate"]);
    assert_eq!(transit.wrapped(), 2);
    server.restart();
    assert_eq!(rows(&server, &key).await, [7]);
    server.stop();
    transit.set_sealed(true);
    let ended = server.try_start().expect_err("started while Vault is sealed");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    assert!(ended.log.contains("Vault is sealed") && !ended.log.contains(TOKEN), "{}", ended.log);
    transit.set_sealed(false);
    private_file(&secret, "hvs.expired");
    let ended = server.try_start().expect_err("started with an expired token");
    assert!(ended.log.contains("permission denied") && !ended.log.contains("hvs.expired"), "{}", ended.log);
    private_file(&secret, TOKEN);
    server.start_again();
    assert_eq!(rows(&server, &key).await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_transit_engine_that_refuses_closes_that_tenant_alone() {
    let transit = Transit::start();
    let mut server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    write_row(&server, &acme, 7).await;
    write_row(&server, &other, 8).await;
    let place = TempDir::new().expect("a temporary directory");
    let token = private_file(&place.path().join("token"), TOKEN);
    let url = transit.http.url("");
    let set = [
        "tenant",
        "byok",
        "set",
        "acme",
        "--provider",
        "transit",
        "--transit-url",
        &url,
        "--secret-file",
        &token,
    ];
    server.admin(&set);
    transit.set_revoked(true);
    assert_eq!(rows(&server, &acme).await, [7], "what is open stays open");
    server.restart();
    let refused = server.login_with(&acme).connect().await.map(drop).expect_err("opened though refused");
    let refused = refused.as_db_error().expect("the server's words").clone();
    assert_eq!(refused.code().code(), "58000", "{refused}");
    assert!(refused.message().contains("the tenant's own provider"), "{refused}");
    assert!(server.log().contains("permission denied"), "the operator is told why");
    assert_eq!(rows(&server, &other).await, [8]);
    transit.set_revoked(false);
    assert_eq!(rows(&server, &acme).await, [7]);

    server.stop();
    assert_checked_and_repaired(&server, &transit);
}

/// `check` and `repair` ask a tenant's provider as a server does, and tell one that refuses from damage.
fn assert_checked_and_repaired(server: &Server, transit: &Transit) {
    let repair = ["repair", "--tenant", "acme", "--dry-run"];
    let checked = server.admin(&["check"]);
    assert!(checked["summary"]["rows"].as_i64().is_some_and(|rows| rows >= 2), "{checked}");
    assert_eq!(server.admin(&repair)["losses"], serde_json::json!([]));
    transit.set_revoked(true);
    let refused = server.try_admin(&["check"]);
    let report: Value = serde_json::from_slice(&refused.stdout).expect("JSON on stdout");
    assert_eq!((refused.status.code(), &report["summary"]["errors"]), (Some(1), &Value::from(1)), "{report}");
    let told = report["problems"].as_array().expect("problems").iter().find(|one| one["severity"] == "error");
    let text = |name: &str| told.and_then(|problem| problem[name].as_str()).unwrap_or_default();
    assert!(text("what").contains("permission denied"), "{report}");
    assert!(text("consequence").contains("nothing of the tenant was checked"), "{report}");
    let refused = server.try_admin(&repair);
    assert!(!refused.status.success() && said(&refused).contains("permission denied"), "{}", said(&refused));
    transit.set_revoked(false);
}
