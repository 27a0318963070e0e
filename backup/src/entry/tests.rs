//! Entries as bytes: what is read is what was written, and nothing that was changed passes for one.

use proptest::prelude::*;

use super::*;

const NAME: &str = "backups/20261122T030000Z-0a1b2c3d.json";

/// Format 1, as it stays readable: made by hand from docs/format/backup.md.
const GOLDEN: &str = concat!(
    r#"{"version":1,"id":"20261122T030000Z-0a1b2c3d","line":"00112233","started_us":1795316400000000,"#,
    r#""finished_us":1795316401000000,"program":"0.1.0","recovery":"aabbccddeeff0011","#,
    r#""control":{"name":"control/20261122T030000Z-0a1b2c3d","bytes":4096,"sha256":"00"},"tenants":["#,
    r#"{"tenant":"07070707070707070707070707070707","keys":"1122334455667788","lsn":9,"time_us":1795316400500000,"#,
    r#""manifests":[{"name":"m","bytes":5,"sha256":"01"}],"files":[{"name":"f","bytes":7,"#,
    r#""sha256":"02"}],"log":[{"number":4,"file":"08080808080808080808080808080808","bytes":200,"parts":["p"]}],"#,
    r#""facts_of":"20261122T030000Z-0a1b2c3d","facts":""}],"new_bytes":4308}"#,
    "\n",
    r#"{"mac":"ffff"}"#,
    "\n",
);

#[test]
fn format_1_is_read() {
    let read = ReadEntry::decode(NAME, GOLDEN.as_bytes()).unwrap();
    let entry = read.entry;
    assert_eq!((entry.version, entry.tenants.len(), entry.failed.len()), (1, 1, 0));
    assert_eq!(entry.bytes(), 4096 + 5 + 7 + 200);
    assert_eq!(entry.objects().collect::<Vec<_>>(), ["f", "m", "p", "control/20261122T030000Z-0a1b2c3d"]);
    assert_eq!(entry.tenants[0].id().unwrap(), TenantId([7; 16]));
    assert_eq!(read.mac, "ffff");
    let line = GOLDEN.lines().next().unwrap();
    assert_eq!(serde_json::to_string(&entry).unwrap().replace(r#""failed":[],"#, ""), line);
}

/// Format 2: the same fields. A tenant that could not be read may be in it as it was before.
#[test]
fn format_2_is_read() {
    let failed =
        r#""failed":[{"tenant":"07070707070707070707070707070707","why":"(SQLSTATE 57P03)"}],"new_bytes""#;
    let golden = GOLDEN.replacen(r#""version":1"#, r#""version":2"#, 1).replacen(r#""new_bytes""#, failed, 1);
    let mut entry = ReadEntry::decode(NAME, golden.as_bytes()).unwrap().entry;
    let tenant = TenantId([7; 16]);
    assert_eq!((entry.version, entry.tenants[0].id().unwrap()), (2, tenant));
    assert_eq!(entry.failure_of(tenant).unwrap().why, "(SQLSTATE 57P03)");
    assert!(entry.failure_of(TenantId([8; 16])).is_none());
    // What an error says stays where the backup was made.
    entry.failed[0].error = "cannot read /mnt/acme/key".into();
    assert_eq!(serde_json::to_string(&entry).unwrap(), golden.lines().next().unwrap());
}

#[test]
fn what_went_wrong_with_a_tenant_is_told_by_its_kind() {
    let error = Error::new(SqlState::CannotConnectNow, "transit key \"sepal\" at https://vault.acme.example");
    let failed = FailedTenant::new(TenantId([7; 16]), &error);
    assert!(failed.why.contains("57P03") && !failed.why.contains("acme"), "{}", failed.why);
    assert!(failed.error.contains("vault.acme.example"), "{}", failed.error);
}

#[test]
fn a_newer_format_says_so() {
    let newer = GOLDEN.replacen(r#""version":1"#, r#""version":3"#, 1);
    let error = ReadEntry::decode(NAME, newer.as_bytes()).unwrap_err();
    assert_eq!(error.state(), SqlState::FeatureNotSupported);
    assert!(error.message().contains("0a1b2c3d.json has format 3"), "{error}");
}

#[test]
fn an_entry_that_was_cut_is_damaged() {
    for length in 0..GOLDEN.len() - 1 {
        let error = ReadEntry::decode(NAME, &GOLDEN.as_bytes()[..length]).unwrap_err();
        assert_eq!(error.state(), SqlState::DataCorrupted, "{length} bytes");
    }
}

/// Who can write to the repository decides what an entry says: not what is removed or read because of it.
#[test]
fn an_entry_that_names_other_places_is_damaged() {
    let refused = |name: &str, text: &str| {
        let error = ReadEntry::decode(name, text.as_bytes()).unwrap_err();
        assert_eq!(error.state(), SqlState::DataCorrupted, "{error}");
    };
    refused("backups/20261123T030000Z-0a1b2c3d.json", GOLDEN);
    let away = "../../../srv/x";
    refused(NAME, &GOLDEN.replacen(r#""id":"20261122T030000Z-0a1b2c3d""#, &format!(r#""id":"{away}""#), 1));
    refused(&names::entry(away), &GOLDEN.replace("20261122T030000Z-0a1b2c3d", away));
    refused(NAME, &GOLDEN.replacen("control/20261122T030000Z-0a1b2c3d", "../root.key", 1));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ReadEntry::decode(NAME, &bytes);
    }
}
