//! The command line parses as documented and login lines survive a shell.

use std::{path::PathBuf, process::Command as Shell};

use clap::CommandFactory;

use super::*;
use crate::{admin::Endpoint, cli::failure::Exit};

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn documented_lines_parse() {
    for line in [
        "sepal init --data d --root-key-file k",
        "sepal serve --data d --pg-listen 127.0.0.1:0 --http-listen 127.0.0.1:0",
        "sepal dev --data d --env-file e",
        "sepal demo --exit",
        "sepal demo pipeline --exit",
        "sepal demo search --data d",
        "sepal tenant create acme --json",
        "sepal tenant drop acme --yes --data d",
        "sepal tenant rotate-key acme --files --wait --data d",
        "sepal tenant key-status acme --wait --json",
        "sepal key create --tenant acme --environment staging --scope read --label app --expires 90d",
        "sepal key list --tenant acme",
        "sepal key revoke abcdef012345",
        "sepal secret set DB_PASSWORD --tenant acme --env prod --allow-host db.example.com --allow-host *.example.org",
        "sepal secret set DB_PASSWORD --tenant acme --from-env APP_SECRET_DB",
        "sepal secret set DB_PASSWORD --tenant acme --from-file db/password --json",
        "sepal secret list --tenant acme --data d",
        "sepal secret rm DB_PASSWORD --tenant acme",
        "sepal secret grant DB_PASSWORD --tenant acme --to abcdef01234A",
        "sepal secret grant my-cert --certificate --tenant acme --to public --revoke",
        "sepal secret lint --tenant acme --env prod",
        "sepal secret render --tenant acme --env prod",
        "sepal serve --secret-names vf --secret-env-source APP_SECRET_ --secret-file-root /run/secrets",
        "sepal plugin new acme/hook --lang python --kind sink --dir hook",
        "sepal backup create --repository s3://b/p?endpoint=http://127.0.0.1:9 --full --json",
        "sepal backup status --data d",
        "sepal backup list --repository /r --json",
        "sepal backup show latest --repository /r",
        "sepal backup verify latest --repository /r --recovery-key-file k --tenant acme --work /tmp",
        "sepal backup restore --repository /r --to d --shares-file a --shares-file b --until 2026-11-22T03:00:00Z",
        "sepal backup restore --repository /r --to d --recovery-key-file k --until 2026-11-22 --accept-earlier",
        "sepal backup restore --repository /r --to d --recovery-key-file k --backup x --tenant acme",
        "sepal backup prune --repository /r --keep-last 3 --keep-days 10 --dry-run",
        "sepal backup census 2026-11-22 --tenant acme",
        "sepal serve --backup-repository /r --backup-schedule hourly --backup-archive-seconds 5",
        "sepal plugin build",
        "sepal plugin check hook-0.1.0.wasm --json",
        "sepal plugin test --level L2 --thorough --host --all",
        "sepal plugin run --config c.json --secret token=@t --rows rows.ndjson --allow-private",
        "sepal plugin run --secret token=env:TOKEN --options o.json --json",
        "sepal plugin watch --server my_hook --key key",
        "sepal plugin pack",
        "sepal plugin keygen key",
        "sepal plugin sign hook-0.1.0.wasm --key key",
        "sepal check --data d --root-key-file k",
        "sepal check --tenant acme --fast --json",
        "sepal repair --tenant acme --dry-run --json",
        "sepal repair --tenant acme --yes --resurrect-deleted --data d",
        "sepal config --data d",
        "sepal version",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in [
        "sepal key create",
        "sepal demo dance",
        "sepal serve --pg-listen nowhere",
        "sepal key create --tenant a --expires 1w",
        // A value is no argument.
        "sepal secret set DB_PASSWORD hunter2 --tenant a",
        "sepal secret set DB_PASSWORD --tenant a --from-env A --from-file b",
        "sepal secret list",
        "sepal repair --yes",
        "sepal serve --secret-names other",
    ] {
        assert_eq!(Cli::try_parse_from(line.split(' ')).err().unwrap().exit_code(), 2, "{line}");
    }
}

#[test]
fn documented_lines_about_keys_parse() {
    for line in [
        "sepal init --data d --root-key passphrase --root-secret-file f",
        "sepal init --root-key pkcs11 --pkcs11-module m --pkcs11-token t --pkcs11-key k --root-secret-file -",
        "sepal init --root-key transit --transit-url https://v --transit-key k --transit-ca-file c",
        "sepal root status --data d --json",
        "sepal root rotate --data d",
        "sepal root move --root-key passphrase --new-secret-file f --data d",
        "sepal recovery create --shares 5 --threshold 3",
        "sepal recovery create --replace --json",
        "sepal recovery verify --from a --from b",
        "sepal recovery status",
        "sepal recover --data d --from shares --root-key file",
        "sepal audit list --limit 5",
        "sepal audit verify --expect 7:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "sepal audit export --after 9",
        "sepal audit certificate acme --certificate f",
        "sepal tenant drop acme --yes --certificate f",
        "sepal tenant byok set acme --provider file --key-file k",
        "sepal tenant byok set acme --provider transit --transit-url https://v --secret-file t",
        "sepal tenant byok remove acme",
        "sepal tenant byok status acme --json",
        "sepal check --data d --root-secret-file f",
        "sepal repair --tenant acme --dry-run --root-secret-file -",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in [
        "sepal init --root-key other",
        "sepal recovery create --shares 5",
        "sepal audit verify --expect 7",
        "sepal tenant byok set acme",
    ] {
        assert_eq!(Cli::try_parse_from(line.split(' ')).err().unwrap().exit_code(), 2, "{line}");
    }
}

#[test]
fn a_shell_reads_the_env_file_back() {
    let endpoint = Endpoint {
        host: "localhost".into(),
        port: 5433,
        tls: true,
        authority: Some(PathBuf::from("/a dir/it's/ca.crt")),
    };
    let login = Login { endpoint: &endpoint, user: "id", token: "sepal_live_x", database: "default" };
    let script = format!("{}\nprintf %s \"$PGSSLROOTCERT|$PGPASSWORD|$PGSSLMODE|$PGPORT\"", login.exports());
    let out = Shell::new("sh").arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "/a dir/it's/ca.crt|sepal_live_x|verify-full|5433");
    assert!(login.line().ends_with("psql -h localhost -p 5433 -U id -d default"), "{}", login.line());
    assert!(!login.line().split("psql").last().unwrap().contains("sepal_live_x"));
}

#[test]
fn asking_without_a_server_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let asked = crate::admin::client::ask(dir.path(), &crate::admin::Request::TenantList);
    let failure = Failure::from(asked.unwrap_err());
    assert_eq!(failure.exit, Exit::Failed);
    let expected = format!(
        "no server is running on {0} (no answer on {0}/admin.sock): start one with `sepal serve --data {0}`",
        dir.path().display()
    );
    assert!(failure.to_string().contains(&expected), "{failure}");
}
