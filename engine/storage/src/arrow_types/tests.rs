//! Every SQL type survives the way to an Arrow field and back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use sepal_types::{ColumnDef, ColumnId, EnumDef, EnumType, SqlType, TableId};

use super::{arrow_field, arrow_type, has_arrow_type, is_enum, sql_type, stored_column, stored_name};

fn column(ty: SqlType) -> ColumnDef {
    ColumnDef::new(ColumnId(1), "x", ty)
}

#[test]
fn fields_tell_their_sql_type() {
    let special = [
        SqlType::Numeric(Some((10, 2))),
        SqlType::Varchar(Some(20)),
        SqlType::Bpchar(Some(20)),
        SqlType::Vector(Some(384)),
        SqlType::HalfVec(Some(384)),
        SqlType::Bit(Some(1)),
        SqlType::Bit(Some(13)),
        SqlType::SparseVec(Some(384)),
        SqlType::Array(Box::new(SqlType::SparseVec(None))),
        SqlType::Array(Box::new(SqlType::Text)),
        SqlType::Array(Box::new(SqlType::Jsonb)),
        SqlType::Array(Box::new(SqlType::Vector(None))),
        SqlType::Array(Box::new(SqlType::HalfVec(None))),
    ];
    for ty in SqlType::simple_types().chain(special) {
        let field = arrow_field(&column(ty.clone()));
        assert_eq!(sql_type(&field), Some(ty.clone()), "{}", ty.display_name());
    }
}

#[test]
fn a_type_is_known_without_being_made() {
    let special = [
        SqlType::Numeric(Some((10, 2))),
        SqlType::Vector(Some(3)),
        SqlType::Vector(Some(384)),
        SqlType::HalfVec(Some(3)),
        SqlType::HalfVec(Some(384)),
        SqlType::Bit(Some(3)),
        SqlType::Bit(Some(13)),
        SqlType::Bit(Some(14)),
        SqlType::SparseVec(Some(3)),
        SqlType::Array(Box::new(SqlType::SparseVec(None))),
        SqlType::Array(Box::new(SqlType::Int4)),
        SqlType::Array(Box::new(SqlType::Text)),
        SqlType::Array(Box::new(SqlType::Timestamptz)),
        SqlType::Array(Box::new(SqlType::Vector(None))),
        SqlType::Array(Box::new(SqlType::HalfVec(None))),
        SqlType::Array(Box::new(SqlType::Bit(None))),
    ];
    let all: Vec<SqlType> = SqlType::simple_types().chain(special).collect();
    for one in &all {
        for other in &all {
            let (held, wanted) = (arrow_type(one), arrow_type(other));
            assert_eq!(has_arrow_type(&held, other), held == wanted, "{held} as {}", other.display_name());
        }
    }
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("+01:00".into()));
    assert!(!has_arrow_type(&zone, &SqlType::Timestamptz));
    let nullable = Field::new("vector_element", DataType::Float32, true);
    let nullable = DataType::FixedSizeList(Arc::new(nullable), 3);
    assert!(!has_arrow_type(&nullable, &SqlType::Vector(Some(3))));
}

#[test]
fn an_enum_is_its_place_and_says_which_one_it_is() {
    let def = EnumDef {
        id: TableId(20_000),
        array: TableId(20_001),
        schema: "public".into(),
        name: "mood".into(),
        labels: vec![],
    };
    let labels = ["sad".to_owned(), "happy".to_owned()];
    let ty = SqlType::Enum(EnumType::from(def.with_labels(&labels, &|| TableId(20_002)).unwrap()));
    for ty in [SqlType::Array(Box::new(ty.clone())), ty] {
        let field = arrow_field(&column(ty.clone()));
        assert_eq!(sql_type(&field), Some(ty.clone()));
        assert!(has_arrow_type(field.data_type(), &ty));
        assert_eq!(sql_type(&field.with_metadata([].into())), None);
    }
    assert!(is_enum(&DataType::FixedSizeBinary(8)) && !is_enum(&DataType::FixedSizeBinary(16)));
}

#[test]
fn metadata_appears_only_where_the_arrow_type_is_ambiguous() {
    assert!(arrow_field(&column(SqlType::Int8)).metadata().is_empty());
    assert!(arrow_field(&column(SqlType::Vector(Some(3)))).metadata().is_empty());
    assert!(arrow_field(&column(SqlType::HalfVec(Some(3)))).metadata().is_empty());
    assert_eq!(arrow_field(&column(SqlType::Oid)).metadata()["sepal.type"], "oid");
    assert_eq!(arrow_field(&column(SqlType::Numeric(None))).metadata()["sepal.type"], "numeric");
    assert!(arrow_field(&column(SqlType::SparseVec(None))).metadata().is_empty());
    assert_eq!(arrow_field(&column(SqlType::SparseVec(Some(5)))).metadata()["sepal.type"], "sparsevec(5)");
}

#[test]
fn stored_names_read_back() {
    assert_eq!(stored_name(ColumnId(12)), "c12");
    assert_eq!(stored_column("c12"), Some(ColumnId(12)));
    assert_eq!(stored_column("row_id"), None);
}
