//! What SET takes, shows and undoes.

use super::*;

#[test]
fn values_are_judged_as_postgres_judges_them() {
    let mut settings = Settings::new("key");
    assert_eq!(settings.set("statement_timeout", "2000", false).unwrap(), "2s");
    assert_eq!(settings.timeout("statement_timeout"), Some(Duration::from_secs(2)));
    assert_eq!(settings.set("HNSW.ef_search", "100", false).unwrap(), "100");
    assert_eq!(settings.search().ef_search, 100);
    let refused = |settings: &mut Settings, name: &str, value: &str| {
        settings.set(name, value, false).unwrap_err().state().code()
    };
    assert_eq!(refused(&mut settings, "hnsw.ef_search", "0"), "22023");
    assert_eq!(refused(&mut settings, "hnsw.nonsense", "1"), "42602");
    assert_eq!(refused(&mut settings, "nonsense", "1"), "42704");
    assert_eq!(refused(&mut settings, "server_version", "1"), "22023");
    assert_eq!(settings.set("myapp.user", "x", false).unwrap(), "x");
}

#[test]
fn the_order_of_a_date_is_not_passed_over() {
    let mut settings = Settings::new("key");
    for value in ["ISO", "iso, mdy", "MDY", "ISO, US", "default", "ISO,NonEuropean"] {
        assert_eq!(settings.set("datestyle", value, false).as_deref(), Ok("ISO, MDY"), "{value}");
    }
    for value in ["ISO, DMY", "dmy", "ISO, YMD", "iso, european", "German", "SQL, MDY", "ISO MDY"] {
        let error = settings.set("DateStyle", value, false).unwrap_err();
        assert_eq!(error.state().code(), "22023", "{value}");
        assert!(error.hint().is_some(), "{value}");
    }
}

#[test]
fn a_time_zone_goes_with_its_transaction() {
    let mut settings = Settings::new("key");
    assert!(settings.zone().is_utc());
    assert_eq!(settings.set("timezone", "europe/berlin", false).unwrap(), "Europe/Berlin");
    let berlin = settings.zone();
    assert!(!berlin.is_utc());
    settings.begin();
    assert_eq!(settings.set("TimeZone", "-8", true).unwrap(), "<-08>+08");
    assert_eq!(settings.zone().offset(0), -8 * 3600);
    settings.end(true);
    assert_eq!((settings.zone(), settings.get("TimeZone").as_deref()), (berlin, Some("Europe/Berlin")));
    let error = settings.set("TimeZone", "Mars/Base", false).unwrap_err();
    assert_eq!(error.state().code(), "22023");
    assert_eq!(error.message(), "invalid value for parameter \"TimeZone\": \"Mars/Base\"");
    assert!(settings.take_changes().contains(&("TimeZone".to_owned(), "Europe/Berlin".to_owned())));
    settings.reset("TimeZone", false).unwrap();
    assert!(settings.zone().is_utc());
}

#[test]
fn a_recall_is_a_share() {
    let mut settings = Settings::new("key");
    assert_eq!((settings.get(TARGET_RECALL).as_deref(), settings.search().target_recall), (Some("0"), None));
    for (value, shown) in [("0.950", "0.95"), ("1", "1"), (" 95e-2 ", "0.95"), ("1e-9", "0.000000001")] {
        assert_eq!(settings.set("sepal.TARGET_recall", value, false).unwrap(), shown);
        let share = settings.search().target_recall.map(Recall::share);
        assert_eq!(share, shown.parse().ok());
    }
    for off in ["off", "", "0", "-0", "0.0", "OFF"] {
        assert_eq!(settings.set(TARGET_RECALL, off, false).unwrap(), "0", "{off}");
        assert_eq!(settings.search().target_recall, None);
    }
    for wrong in ["1.01", "-0.5", "95", "on", "95%", "NaN", "inf"] {
        let error = settings.set(TARGET_RECALL, wrong, false).unwrap_err();
        assert_eq!(error.state().code(), "22023", "{wrong}");
    }
    assert_eq!(settings.set("sepal.target_recal", "0.9", false).unwrap_err().state().code(), "42602");
    let row = settings.rows().into_iter().find(|row| row.name == TARGET_RECALL).unwrap();
    assert_eq!((row.vartype.as_str(), row.max_val.as_deref()), ("real", Some("1")));
}

#[test]
fn memory_is_read_and_shown_as_postgres_does() {
    let mut settings = Settings::new("key");
    assert_eq!(settings.maintenance_bytes(), 4 << 30);
    for (value, shown, bytes) in [
        ("65536", "64MB", 64 << 20),
        ("8GB", "8GB", 8 << 30),
        (" 1.5 GB ", "1536MB", 3 << 29),
        ("64kB", "64kB", 64 << 10),
        ("1048577 kB", "1048577kB", 1_048_577 << 10),
        ("134217728B", "128MB", 128 << 20),
        ("1TB", "1TB", 1 << 40),
    ] {
        assert_eq!(settings.set("maintenance_work_MEM", value, false).unwrap(), shown);
        assert_eq!(settings.maintenance_bytes(), bytes, "{value}");
    }
    for wrong in ["", "much", "-1", "64mb", "1 2", "12PB", "NaN", "1.2.3"] {
        let error = settings.set("maintenance_work_mem", wrong, false).unwrap_err();
        assert_eq!(error.state().code(), "22023", "{wrong}");
        assert!(error.hint().is_some_and(|hint| hint.contains("\"MB\"")), "{wrong}");
    }
    for outside in ["63", "0", "3000000MB", "9999999999999TB"] {
        let error = settings.set("maintenance_work_mem", outside, false).unwrap_err();
        assert!(error.message().contains("(64 kB .. 2147483647 kB)"), "{outside}: {}", error.message());
    }
    let row = row(&settings, "maintenance_work_mem");
    assert_eq!((row.vartype.as_str(), row.unit.as_deref()), ("integer", Some("kB")));
    assert_eq!((row.min_val.as_deref(), row.max_val.as_deref()), (Some("64"), Some("2147483647")));
}

fn row(settings: &Settings, name: &str) -> SettingRow {
    settings.rows().into_iter().find(|row| row.name == name).unwrap()
}

#[test]
fn numbers_with_a_unit_are_numbers_in_pg_settings() {
    let mut settings = Settings::new("key");
    let of = |settings: &Settings, name: &str| {
        let SettingRow { setting, shown, boot_val, reset_val, .. } = row(settings, name);
        assert_eq!((&shown, &boot_val), (&settings.get(name), &reset_val));
        [setting, shown.unwrap(), boot_val.unwrap()]
    };
    assert_eq!(of(&settings, "maintenance_work_mem"), ["4194304", "4GB", "4194304"]);
    settings.set("maintenance_work_mem", "1.5GB", false).unwrap();
    assert_eq!(of(&settings, "maintenance_work_mem"), ["1572864", "1536MB", "4194304"]);
    assert_eq!(of(&settings, "deadlock_timeout"), ["1000", "1s", "1000"]);
    settings.set("statement_timeout", "2min", false).unwrap();
    assert_eq!(of(&settings, "statement_timeout"), ["120000", "2min", "0"]);
    assert_eq!(of(&settings, "hnsw.ef_search"), ["40", "40", "40"]);
    for row in settings.rows().into_iter().filter(|row| row.unit.is_some()) {
        assert!(row.setting.parse::<i64>().is_ok(), "{}: {}", row.name, row.setting);
    }
}

/// Pools say RESET ALL or DISCARD ALL of a connection that comes back: its next user means what it connected with.
#[test]
fn a_reset_goes_back_to_what_the_client_connected_with() {
    const NAMES: [&str; 4] = ["search_path", "hnsw.ef_search", "myapp.user", "application_name"];
    let set = |settings: &mut Settings, values: [&str; 4]| {
        for (name, value) in NAMES.iter().zip(values) {
            settings.set(name, value, false).unwrap();
        }
    };
    let shown = |settings: &Settings| NAMES.map(|name| settings.get(name).unwrap());
    let mut settings = Settings::new("key");
    set(&mut settings, ["a", "200", "x", "pool"]);
    settings.connected();
    assert_eq!(settings.take_changes(), Vec::new());
    let first = shown(&settings);
    set(&mut settings, ["b", "7", "y", "other"]);
    settings.reset_all();
    assert_eq!(shown(&settings), first);
    assert_eq!(settings.search().ef_search, 200);
    assert_eq!(settings.take_changes(), [("application_name".to_owned(), "pool".to_owned())]);

    settings.begin();
    settings.set("search_path", "c", true).unwrap();
    settings.reset("search_path", true).unwrap();
    assert_eq!(shown(&settings), first);
    settings.end(false);
    assert_eq!(shown(&settings), first);
    let ef_search = row(&settings, "hnsw.ef_search");
    assert_eq!((ef_search.boot_val.as_deref(), ef_search.reset_val.as_deref()), (Some("40"), Some("200")));
    settings.set("statement_timeout", "1s", false).unwrap();
    settings.reset_all();
    assert_eq!(settings.statement_timeout(), None, "what it did not connect with has its default");
}

#[test]
fn a_rollback_undoes_and_local_ends_with_the_transaction() {
    let mut settings = Settings::new("key");
    settings.begin();
    settings.set("application_name", "a", false).unwrap();
    settings.set("hnsw.ef_search", "7", true).unwrap();
    assert_eq!(settings.search().ef_search, 7);
    settings.end(true);
    assert_eq!((settings.get("application_name").unwrap().as_str(), settings.search().ef_search), ("a", 40));
    settings.begin();
    settings.set("application_name", "b", false).unwrap();
    settings.end(false);
    assert_eq!(settings.get("application_name").unwrap(), "a");
    settings.set("default_transaction_read_only", "on", false).unwrap();
    assert!(settings.begin());
    settings.set("transaction_read_only", "off", false).unwrap();
    settings.end(true);
    assert!(settings.begin() && settings.is_on("transaction_read_only"), "each transaction anew");
    settings.end(true);
    assert!(!settings.is_on("transaction_read_only"));
}

#[test]
fn the_last_set_is_what_a_commit_leaves() {
    let mut settings = Settings::new("key");
    let probes = |settings: &Settings| settings.search().probes;
    let set = |settings: &mut Settings, value: &str, local: bool| {
        settings.set("ivfflat.probes", value, local).unwrap();
    };
    settings.begin();
    set(&mut settings, "2", true);
    set(&mut settings, "3", false);
    settings.end(true);
    assert_eq!(probes(&settings), 3, "SET after SET LOCAL");
    settings.begin();
    set(&mut settings, "4", false);
    set(&mut settings, "5", true);
    settings.reset("ivfflat.probes", true).unwrap();
    assert_eq!(probes(&settings), 1, "SET LOCAL TO DEFAULT");
    settings.end(true);
    assert_eq!(probes(&settings), 4, "SET LOCAL after SET");
}

#[test]
fn a_rollback_to_a_savepoint_undoes_what_came_after_it() {
    let mut settings = Settings::new("key");
    let path = |settings: &Settings| (settings.get("search_path").unwrap(), settings.path_edition());
    settings.set("search_path", "a", false).unwrap();
    let before = path(&settings);
    settings.begin();
    let outer = settings.mark();
    settings.set("search_path", "b", true).unwrap();
    let inner = settings.mark();
    let local = path(&settings);
    settings.set("search_path", "c", false).unwrap();
    settings.undo_since(inner);
    assert_eq!(path(&settings), local);
    settings.undo_since(outer);
    assert_eq!(path(&settings), before);
    settings.set("search_path", "d", true).unwrap();
    settings.set("search_path", "e", false).unwrap();
    settings.undo_since(inner);
    assert_eq!(settings.get("search_path").unwrap(), "d");
    settings.end(true);
    assert_eq!(path(&settings), before, "what is left was local");
}

/// What statements read without a look-up is what a look-up would find, after whatever changed it.
#[test]
fn what_is_ready_follows_each_change() {
    let check = |settings: &Settings, at: &str| assert_eq!(settings.ready, settings.read(), "{at}");
    let mut settings = Settings::new("key");
    check(&settings, "new");
    assert_eq!(settings.search(), SearchSettings::default());
    let minutes = |number: u64| Some(Duration::from_secs(60 * number));
    for (name, value) in [
        ("Statement_Timeout", "1min"),
        ("idle_in_transaction_session_timeout", "2min"),
        ("ivfflat.probes", "9"),
        ("sepal.target_recall", "0.9"),
        ("enable_indexscan", "off"),
    ] {
        settings.set(name, value, false).unwrap();
        check(&settings, name);
    }
    let timeouts =
        |settings: &Settings| (settings.statement_timeout(), settings.idle_in_transaction_timeout());
    assert_eq!(timeouts(&settings), (minutes(1), minutes(2)));
    assert_eq!((settings.search().probes, settings.search().use_indexes), (9, false));

    settings.begin();
    settings.set("statement_timeout", "3min", true).unwrap();
    settings.set("hnsw.ef_search", "77", false).unwrap();
    settings.reset("ivfflat.probes", false).unwrap();
    check(&settings, "inside");
    assert_eq!((settings.search().ef_search, settings.search().probes), (77, 1));
    assert_eq!(settings.statement_timeout(), minutes(3));
    settings.end(false);
    check(&settings, "rolled back");
    assert_eq!((settings.search().ef_search, settings.search().probes), (40, 9));
    assert_eq!(settings.statement_timeout(), minutes(1));

    settings.begin();
    settings.set("sepal.as_of", "2024-01-01", true).unwrap();
    assert_eq!(settings.as_of(), Some("2024-01-01"));
    settings.end(true);
    check(&settings, "local values are gone");
    assert_eq!(settings.as_of(), None);
    settings.set("sepal.as_of", "", false).unwrap();
    assert_eq!(settings.as_of(), None, "nothing is the present");
    settings.reset_all();
    check(&settings, "reset");
    assert_eq!((settings.search(), timeouts(&settings)), (SearchSettings::default(), (None, None)));
}
