//! The manifest's bytes, and what refuses to open.

use sepal_types::{
    CheckDef, ColumnDef, ColumnId, Constraints, EnumDef, EnumType, FileId, ForeignKeyDef, Generated,
    IndexClauses, IndexDef, IndexKey, KeySource, Lsn, ReferenceAction, RowId, SequenceDef, SqlType, TableDef,
    TableId, TenantId, UniqueDef,
};

use super::{
    BlobEntry, DeletedEntry, IndexEntry, Manifest, NamedEntry, NamedFile, Rekey, SegmentEntry, TableEntry,
    commit,
    commit::{MAX_FILE_BYTES, check_size},
    encode, newest,
};
use crate::{
    StoreError,
    disk::Disk,
    fixtures::{TENANT, hex, items, keys, tenant_key},
    paths::{DataKind, Paths},
};

fn manifest() -> Manifest {
    let blob = |byte| BlobEntry { file: FileId([byte; 16]), bytes: 80, key: vec![byte; 2] };
    let segment = SegmentEntry {
        file: FileId([1; 16]),
        rows: 3,
        first_row: RowId(1),
        last_row: RowId(9),
        bytes: 1000,
        plain_bytes: 2000,
        key: vec![0xab, 0x0c],
        deleted: Some(DeletedEntry { rows: 1, blob: blob(2) }),
        indexes: vec![IndexEntry { index: TableId(20_002), blob: blob(3) }],
        sealed_for: Some(TableId(20_007)),
        variable_bytes: Some(300),
    };
    let mut def = items(20_000, "items");
    def.columns.truncate(1);
    def.indexes.clear();
    Manifest {
        number: 5,
        previous: "00ff".into(),
        lsn: Lsn(12),
        wal_from: 4,
        next_object: 20_003,
        tables: vec![TableEntry { def, next_row: RowId(10), segments: vec![segment] }],
        sequences: vec![(TableId(20_000), ColumnId(1), 7)],
        time_us: 1_795_354_461_123_456,
        snapshots: vec![NamedEntry {
            environment: "default".into(),
            name: "before".into(),
            manifest: 3,
            lsn: Lsn(9),
            time_us: 1_795_354_461_000_000,
            created_us: 1_795_354_461_000_001,
            by: "ada".into(),
            comment: None,
            rows: 2,
        }],
        cloned: vec![NamedFile { kind: DataKind::Segment, file: FileId([4; 16]), bytes: 90 }],
        ..Manifest::default()
    }
}

/// What version 1 had of it.
fn first_manifest() -> Manifest {
    let mut manifest = Manifest { time_us: 0, snapshots: vec![], cloned: vec![], ..manifest() };
    manifest.tables[0].segments[0].sealed_for = None;
    manifest.tables[0].segments[0].variable_bytes = None;
    manifest
}

/// What a manifest without that says of its segment's text, where the table has these columns.
fn inferred(columns: &[usize]) -> Option<u64> {
    let mut manifest = first_manifest();
    let all = items(20_000, "items").columns;
    manifest.tables[0].def.columns = columns.iter().map(|column| all[*column].clone()).collect();
    let bytes = encode::encode(TENANT, &tenant_key(), &manifest).unwrap();
    encode::decode(TENANT, &keys(), 5, &bytes).unwrap().tables[0].segments[0].variable_bytes
}

#[test]
fn segments_from_before_have_no_text_where_their_table_has_none() {
    let (number, text, vector) = (0, 1, 2);
    assert_eq!(inferred(&[number, vector]), Some(0));
    assert_eq!(inferred(&[number, text, vector]), None, "all may be");
    assert_eq!(first_manifest().tables[0].segments[0].variable_bytes(), 2000);
}

/// The JSON up to where version 1 ends, with what version 2 has in a segment.
fn golden(sealed_for: &str) -> String {
    let id = |digit: &str| digit.repeat(16);
    format!(
        concat!(
            r#"{{"number":5,"previous":"00ff","lsn":12,"wal_from":4,"next_object":20003,"tables":[{{"def":"#,
            r#"{{"id":20000,"environment":"default","schema":"public","name":"items","columns":[{{"id":1,"name":"id","#,
            r#""ty":"Int8","not_null":false,"default":null,"generated":null,"missing":null}}],"next_column":4,"#,
            r#""uniques":[{{"id":20001,"name":"items_pkey","columns":[1],"primary":true}}],"indexes":[]}},"next_row":10,"#,
            r#""segments":[{{"file":"{}","rows":3,"first_row":1,"last_row":9,"bytes":1000,"plain_bytes":2000,"#,
            r#""key":"ab0c","deleted":{{"rows":1,"blob":{{"file":"{}","bytes":80,"key":"0202"}}}},"#,
            r#""indexes":[{{"index":20002,"blob":{{"file":"{}","bytes":80,"key":"0303"}}}}]{}}}]}}],"#,
            r#""sequences":[[20000,1,7]]"#
        ),
        id("01"),
        id("02"),
        id("03"),
        sealed_for,
    )
}

/// Version 2. Fields may be added; none of these may change.
#[test]
fn content_is_golden() {
    let own = format!(
        concat!(
            r#","time_us":1795354461123456,"snapshots":[{{"environment":"default","name":"before","#,
            r#""manifest":3,"lsn":9,"time_us":1795354461000000,"created_us":1795354461000001,"by":"ada","comment":null,"rows":2}}],"#,
            r#""cloned":[{{"kind":"segment","file":"{}","bytes":90}}]}}"#
        ),
        "04".repeat(16)
    );
    let expected = golden(r#","sealed_for":20007,"variable_bytes":300"#) + &own;
    assert_eq!(serde_json::to_string(&manifest()).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Manifest>(&expected).unwrap(), manifest());
}

/// What CREATE INDEX says beside columns and method; a definition from before has none of it.
#[test]
fn clauses_of_indexes_are_golden() {
    let key = IndexKey { descending: true, nulls_first: true, ..IndexKey::column(ColumnId(1)) };
    let of = KeySource::Expression { name: "lower".into(), text: "lower(label)".into(), ty: SqlType::Text };
    let keys =
        vec![key, IndexKey { of, class: Some("text_pattern_ops".into()), ..IndexKey::column(ColumnId(1)) }];
    let clauses = IndexClauses {
        keys,
        include: vec![ColumnId(2)],
        predicate: Some("(id > 5)".into()),
        options: vec![("fillfactor".into(), "70".into())],
    };
    let columns = vec![ColumnId(1)];
    let index = Some(Box::new(clauses));
    let unique = UniqueDef { id: TableId(20_003), name: "u".into(), columns, primary: false, index };
    let expected = concat!(
        r#"{"id":20003,"name":"u","columns":[1],"primary":false,"index":{"keys":["#,
        r#"{"of":{"Column":1},"descending":true,"nulls_first":true},"#,
        r#"{"of":{"Expression":{"name":"lower","text":"lower(label)","ty":"Text"}},"class":"text_pattern_ops"}],"#,
        r#""include":[2],"predicate":"(id > 5)","options":[["fillfactor","70"]]}}"#
    );
    assert_eq!(serde_json::to_string(&unique).unwrap(), expected);
    assert_eq!(serde_json::from_str::<UniqueDef>(expected).unwrap(), unique);
    let before =
        r#"{"id":20002,"name":"i","columns":[1],"method":{"Scalar":{"access_method":"gin"}},"valid":true}"#;
    let index: IndexDef = serde_json::from_str(before).unwrap();
    assert_eq!(index.clauses, None);
    assert_eq!(serde_json::to_string(&index).unwrap(), before);
}

/// A sequence of its own. A program from before knows no such kind of column, and refuses the definition.
#[test]
fn sequences_are_golden() {
    let sequence = SequenceDef {
        start: 100,
        increment: 10,
        owner: Some((TableId(20_000), ColumnId(1))),
        ..SequenceDef::new(&SqlType::Int4)
    };
    let def = TableDef::of_sequence(TableId(20_005), "default", ("public".into(), "s".into()), sequence);
    let expected = concat!(
        r#"{"id":20005,"environment":"default","schema":"public","name":"s","columns":[{"id":1,"name":"last_value","#,
        r#""ty":"Int8","not_null":true,"default":null,"generated":"Sequence","missing":null,"sequence":"#,
        r#"{"ty":"Int4","start":100,"increment":10,"min":1,"max":2147483647,"owner":[20000,1]}}],"next_column":2,"#,
        r#""uniques":[],"indexes":[]}"#
    );
    assert_eq!(serde_json::to_string(&def).unwrap(), expected);
    assert_eq!(serde_json::from_str::<TableDef>(expected).unwrap(), def);
}

/// A generated column: its expression stands where others have their default. A program from before knows no such kind
/// of column, and refuses the definition.
#[test]
fn generated_columns_are_golden() {
    let column = ColumnDef {
        id: ColumnId(2),
        name: "g".into(),
        ty: SqlType::Int4,
        not_null: false,
        default: Some("\"a\" * 2".into()),
        generated: Some(Generated::Stored),
        missing: None,
        sequence: None,
    };
    let expected = concat!(
        r#"{"id":2,"name":"g","ty":"Int4","not_null":false,"default":"\"a\" * 2","generated":"Stored","#,
        r#""missing":null}"#
    );
    assert_eq!(serde_json::to_string(&column).unwrap(), expected);
    assert_eq!(serde_json::from_str::<ColumnDef>(expected).unwrap(), column);
    assert_eq!((column.expression(), column.is_counted()), (Some("\"a\" * 2"), false));
    let before =
        r#"{"id":1,"name":"a","ty":"Int4","not_null":false,"default":"5","generated":null,"missing":null}"#;
    let plain: ColumnDef = serde_json::from_str(before).unwrap();
    assert_eq!((plain.expression(), plain.is_counted()), (None, false));
    assert_eq!(serde_json::to_string(&plain).unwrap(), before);
}

/// A schema. A program from before knows no such kind of column, and refuses the definition.
#[test]
fn schemas_are_golden() {
    let def = TableDef::of_schema(TableId(20_006), "default", "vecs".into());
    let expected = concat!(
        r#"{"id":20006,"environment":"default","schema":"","name":"vecs","columns":[{"id":1,"name":"schema","#,
        r#""ty":"Bool","not_null":false,"default":null,"generated":"Schema","missing":null}],"next_column":2,"#,
        r#""uniques":[],"indexes":[]}"#
    );
    assert_eq!(serde_json::to_string(&def).unwrap(), expected);
    assert_eq!(serde_json::from_str::<TableDef>(expected).unwrap(), def);
}

/// A type, and a column of it. A program from before knows no such type of a column, and refuses the definition.
#[test]
fn enums_are_golden() {
    let def = EnumDef {
        id: TableId(20_006),
        array: TableId(20_007),
        schema: "public".into(),
        name: "mood".into(),
        labels: vec![],
    };
    let labels = ["sad".to_owned(), "it's ok".to_owned()];
    let ty = EnumType::from(def.with_labels(&labels, &|| TableId(20_008)).unwrap());
    let of_column = concat!(
        r#"{"Enum":{"id":20006,"array":20007,"schema":"public","name":"mood","labels":["#,
        r#"{"id":20008,"place":4294967296,"label":"sad"},{"id":20008,"place":8589934592,"label":"it's ok"}]}}"#
    );
    assert_eq!(serde_json::to_string(&SqlType::Enum(ty.clone())).unwrap(), of_column);
    let expected = [
        r#"{"id":20006,"environment":"default","schema":"public","name":"mood","columns":[{"id":1,"#,
        r#""name":"type","ty":"#,
        of_column,
        r#","not_null":false,"default":null,"generated":"Type","missing":null}],"next_column":2,"#,
        r#""uniques":[],"indexes":[]}"#,
    ]
    .concat();
    let made = TableDef::of_enum("default", ty);
    assert_eq!(serde_json::to_string(&made).unwrap(), expected);
    let read: TableDef = serde_json::from_str(&expected).unwrap();
    assert_eq!((read.enum_type(), read.is_table()), (made.enum_type(), false));
    assert_eq!(read, made);
}

/// CHECK and FOREIGN KEY. A definition from before has none, and one without any is as it was.
#[test]
fn constraints_are_golden() {
    let check = CheckDef {
        id: TableId(20_006),
        name: "items_id_check".into(),
        expression: "\"id\" > 0".into(),
        shown: "(id > 0)".into(),
        columns: vec![ColumnId(1)],
        not_valid: true,
    };
    let plain = ForeignKeyDef {
        id: TableId(20_007),
        name: "items_id_fkey".into(),
        columns: vec![ColumnId(1)],
        parent: TableId(20_100),
        parent_columns: vec![ColumnId(3)],
        key: TableId(20_101),
        on_delete: ReferenceAction::NoAction,
        on_update: ReferenceAction::NoAction,
        full: false,
        deferrable: false,
        initially_deferred: false,
        not_valid: false,
    };
    let full = ForeignKeyDef {
        on_delete: ReferenceAction::SetDefault,
        on_update: ReferenceAction::Cascade,
        full: true,
        deferrable: true,
        initially_deferred: true,
        not_valid: true,
        ..plain.clone()
    };
    let mut def = items(20_000, "items");
    let before = serde_json::to_string(&def).unwrap();
    assert!(!before.contains("constraints"), "{before}");
    assert_eq!(serde_json::from_str::<TableDef>(&before).unwrap(), def);
    def.constraints = Constraints { checks: vec![check], foreign_keys: vec![plain, full] };
    let expected = concat!(
        r#"{"checks":[{"id":20006,"name":"items_id_check","expression":"\"id\" > 0","shown":"(id > 0)","columns":[1],"#,
        r#""not_valid":true}],"foreign_keys":[{"id":20007,"name":"items_id_fkey","columns":[1],"parent":20100,"#,
        r#""parent_columns":[3],"key":20101},{"id":20007,"name":"items_id_fkey","columns":[1],"parent":20100,"#,
        r#""parent_columns":[3],"key":20101,"on_delete":"SetDefault","on_update":"Cascade","full":true,"#,
        r#""deferrable":true,"initially_deferred":true,"not_valid":true}]}"#
    );
    assert_eq!(serde_json::to_string(&def.constraints).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Constraints>(expected).unwrap(), def.constraints);
    let whole = serde_json::to_string(&def).unwrap();
    assert!(whole.ends_with(&format!(r#","constraints":{expected}}}"#)), "{whole}");
    assert_eq!(serde_json::from_str::<TableDef>(&whole).unwrap(), def);
}

/// What a rotation of keys adds.
#[test]
fn content_of_a_rotation_is_golden() {
    let files = vec![NamedFile { kind: DataKind::Index, file: FileId([5; 16]), bytes: 70 }];
    let rotated = Manifest {
        committed: "ab".into(),
        key_generation: 2,
        rekey: Some(Rekey { files, wal_from: 6 }),
        ..manifest()
    };
    let text = serde_json::to_string(&rotated).unwrap();
    let before = serde_json::to_string(&manifest()).unwrap();
    let expected = format!(
        concat!(
            r#"{},"committed":"ab","key_generation":2,"#,
            r#""rekey":{{"files":[{{"kind":"index","file":"{}","bytes":70}}],"wal_from":6}}}}"#
        ),
        before.strip_suffix('}').unwrap(),
        "05".repeat(16)
    );
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Manifest>(&expected).unwrap(), rotated);
    assert_eq!((manifest().committed_as("cd"), rotated.committed_as("cd")), ("cd", "ab"));
}

#[test]
fn version_1_is_read() {
    let text = golden("") + "}";
    let bytes = encode::encode_version_1(TENANT, 5, &tenant_key(), text.as_bytes());
    assert_eq!(hex(&bytes[8..10]), "0001");
    let mut expected = first_manifest();
    // Its one column is of numbers.
    expected.tables[0].segments[0].variable_bytes = Some(0);
    assert_eq!(encode::decode(TENANT, &keys(), 5, &bytes).unwrap(), expected);
    // One version does not pass for the other.
    let mut relabelled = bytes.clone();
    relabelled[9] = 2;
    assert!(encode::decode(TENANT, &keys(), 5, &relabelled).is_err());
    relabelled[9] = 4;
    let error = encode::decode(TENANT, &keys(), 5, &relabelled).unwrap_err();
    assert_eq!(error, "manifest version 4, this program reads 1 to 3");
}

#[test]
fn header_is_golden() {
    let mut manifest = Manifest { number: 258, ..manifest() };
    let header = encode::header(TENANT, &manifest);
    assert_eq!(
        hex(&header),
        concat!(
            "736570616c6d616e",
            "0002000000000000",
            "07070707070707070707070707070707",
            "0000000000000102"
        )
    );
    let bytes = encode::encode(TENANT, &tenant_key(), &manifest).unwrap();
    assert_eq!(bytes[..40], header);
    // A program that knows no constraints must not open what has some.
    manifest.tables[0].def.constraints.checks.push(CheckDef {
        id: TableId(20_006),
        name: "c".into(),
        expression: "true".into(),
        shown: "true".into(),
        columns: Vec::new(),
        not_valid: false,
    });
    let bytes = encode::encode(TENANT, &tenant_key(), &manifest).unwrap();
    assert_eq!(hex(&bytes[8..16]), "0003000000000000");
    assert_eq!(encode::decode(TENANT, &keys(), 258, &bytes).unwrap(), manifest);
}

#[test]
fn every_flipped_byte_and_every_other_place_is_refused() {
    let bytes = encode::encode(TENANT, &tenant_key(), &manifest()).unwrap();
    assert_eq!(encode::decode(TENANT, &keys(), 5, &bytes).unwrap(), manifest());
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        assert!(encode::decode(TENANT, &keys(), 5, &flipped).is_err(), "byte {position}");
    }
    assert!(encode::decode(TENANT, &keys(), 6, &bytes).is_err());
    assert!(encode::decode(TenantId([8; 16]), &keys(), 5, &bytes).is_err());
    assert!(encode::decode(TENANT, &keys(), 5, &bytes[..bytes.len() - 1]).is_err());
    assert!(encode::decode(TENANT, &sepal_crypto::Key::from_bytes([1; 32]).into(), 5, &bytes).is_err());
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("items"), "a table's name is plaintext in the file");
}

#[test]
fn the_highest_number_counts_and_must_open() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, disk) = (Paths::new(dir.path()), Disk::default());
    disk.create_directory(&paths.manifests()).unwrap();
    assert!(matches!(newest(&disk, &paths, TENANT, &keys()), Err(StoreError::Corrupt { .. })));
    for number in [5, 16] {
        commit(&disk, &paths, TENANT, &keys(), &Manifest { number, ..manifest() }).unwrap();
    }
    let (found, hash) = newest(&disk, &paths, TENANT, &keys()).unwrap();
    assert_eq!((found.number, hash.len()), (16, 64));
    std::fs::write(paths.manifest(17), b"sepalman").unwrap();
    let error = newest(&disk, &paths, TENANT, &keys()).unwrap_err();
    assert!(error.to_string().contains("0000000000000011.manifest"), "{error}");
}

/// The same limit for both: what is written can be read.
#[test]
fn a_manifest_beyond_its_limit_is_neither_written_nor_read() {
    assert_eq!(check_size(MAX_FILE_BYTES), Ok(()));
    let refused = check_size(MAX_FILE_BYTES + 1).unwrap_err();
    assert_eq!(refused, StoreError::ManifestTooLarge { bytes: MAX_FILE_BYTES + 1, limit: MAX_FILE_BYTES });
    let dir = tempfile::tempdir().unwrap();
    let (disk, path) = (Disk::default(), dir.path().join("some"));
    std::fs::write(&path, [7_u8; 10]).unwrap();
    assert_eq!(disk.read(&path, 10).unwrap(), [7; 10]);
    let error = disk.read(&path, 9).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if path.ends_with(file)), "{error}");
}

/// For ever: a definition in a manifest or log that says it otherwise would not be read.
#[test]
fn vector_indexes_are_written_so() {
    use sepal_types::{BitMetric, IndexMethod, Metric, VectorIndexOptions};
    let (metric, m, ef_construction) = (Metric::Cosine, 16, 64);
    let cases = [
        (VectorIndexOptions::Flat { metric }, r#"{"Flat":{"metric":"Cosine"}}"#),
        (
            VectorIndexOptions::Hnsw { metric, m, ef_construction },
            r#"{"Hnsw":{"metric":"Cosine","m":16,"ef_construction":64}}"#,
        ),
        (VectorIndexOptions::IvfFlat { metric, lists: 7 }, r#"{"IvfFlat":{"metric":"Cosine","lists":7}}"#),
        (
            VectorIndexOptions::Graph { metric, m, ef_construction },
            r#"{"Graph":{"metric":"Cosine","m":16,"ef_construction":64}}"#,
        ),
        (
            VectorIndexOptions::Faiss { metric, factory: "IVF16,Flat".into() },
            r#"{"Faiss":{"metric":"Cosine","factory":"IVF16,Flat"}}"#,
        ),
        (
            VectorIndexOptions::Signs { metric: BitMetric::Hamming, access_method: "hnsw".into() },
            r#"{"Signs":{"metric":"Hamming","access_method":"hnsw"}}"#,
        ),
    ];
    for (options, text) in cases {
        let method = IndexMethod::Vector(options);
        let text = format!(r#"{{"Vector":{text}}}"#);
        assert_eq!(serde_json::to_string(&method).unwrap(), text);
        assert_eq!(serde_json::from_str::<IndexMethod>(&text).unwrap(), method);
    }
}

/// What indexes compare, as searches read it off their definitions: over a vector column as `halfvec`, over its signs,
/// over bit strings, and as all were before there was more than the vectors.
#[test]
fn what_indexes_compare_is_written_so() {
    use sepal_types::{BitMetric, Measure, Metric};
    let cases = [
        (
            concat!(
                r#"{"id":20002,"name":"i","columns":[2],"method":{"Vector":{"Hnsw":{"metric":"Cosine","m":16,"#,
                r#""ef_construction":64}}},"valid":true,"clauses":{"keys":[{"of":{"Expression":{"name":"v","#,
                r#""text":"(v)::halfvec(3)","ty":{"HalfVec":3}}},"class":"halfvec_cosine_ops"}]}}"#
            ),
            Measure::Halves(Metric::Cosine),
        ),
        (
            concat!(
                r#"{"id":20002,"name":"i","columns":[2],"method":{"Vector":{"Signs":{"metric":"Hamming","#,
                r#""access_method":"hnsw"}}},"valid":true,"clauses":{"keys":[{"of":{"Expression":{"#,
                r#""name":"binary_quantize","text":"(binary_quantize(v))::bit(3)","ty":{"Bit":3}}},"#,
                r#""class":"bit_hamming_ops"}]}}"#
            ),
            Measure::Signs(BitMetric::Hamming),
        ),
        (
            concat!(
                r#"{"id":20002,"name":"i","columns":[3],"method":{"Scalar":{"access_method":"hnsw"}},"#,
                r#""valid":true,"clauses":{"keys":[{"of":{"Column":3},"class":"bit_jaccard_ops"}]}}"#
            ),
            Measure::Bits(BitMetric::Jaccard),
        ),
        (
            concat!(
                r#"{"id":20002,"name":"i","columns":[2],"method":{"Vector":{"Flat":{"metric":"L2"}}},"#,
                r#""valid":true}"#
            ),
            Measure::Vectors(Metric::L2),
        ),
    ];
    for (text, measure) in cases {
        let index: IndexDef = serde_json::from_str(text).unwrap();
        assert_eq!(index.measure(), Some(measure), "{text}");
        assert_eq!(serde_json::to_string(&index).unwrap(), text);
    }
}
