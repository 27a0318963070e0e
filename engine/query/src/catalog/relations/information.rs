//! `information_schema`: the SQL standard's views of the environment's tables.
//!
//! Rows leave out what the standard has and Sepal does not (domains, routines' bodies): NULL, or
//! no row.

use sepal_types::{ColumnDef, Generated, TableDef};

use super::super::CatalogContext;
use super::super::objects::attribute_number;
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;
use super::information_columns::{Numbers, columns};
use super::information_constraints;

/// The columns of `table_privileges`, of which `role_table_grants` is a part.
const TABLE_GRANTS: &str = "grantor name, grantee name, table_catalog name, table_schema name, table_name name, \
    privilege_type varchar, is_grantable varchar(3), with_hierarchy varchar(3)";

pub(super) const RELATIONS: &[Relation] = &[
    Relation::information(
        "tables",
        13_425,
        "table_catalog name, table_schema name, table_name name, table_type varchar, \
         self_referencing_column_name name, reference_generation varchar, user_defined_type_catalog \
         name, user_defined_type_schema name, user_defined_type_name name, is_insertable_into \
         varchar(3), is_typed varchar(3), commit_action varchar",
        tables,
    ),
    Relation::information(
        "columns",
        13_295,
        "table_catalog name, table_schema name, table_name name, column_name name, ordinal_position \
         integer, column_default varchar, is_nullable varchar(3), data_type varchar, \
         character_maximum_length integer, character_octet_length integer, numeric_precision integer, \
         numeric_precision_radix integer, numeric_scale integer, datetime_precision integer, \
         interval_type varchar, interval_precision integer, character_set_catalog name, \
         character_set_schema name, character_set_name name, collation_catalog name, collation_schema \
         name, collation_name name, domain_catalog name, domain_schema name, domain_name name, \
         udt_catalog name, udt_schema name, udt_name name, scope_catalog name, scope_schema name, \
         scope_name name, maximum_cardinality integer, dtd_identifier name, is_self_referencing \
         varchar(3), is_identity varchar(3), identity_generation varchar, identity_start varchar, \
         identity_increment varchar, identity_maximum varchar, identity_minimum varchar, \
         identity_cycle varchar(3), is_generated varchar, generation_expression varchar, is_updatable \
         varchar(3)",
        columns,
    ),
    Relation::information(
        "schemata",
        13_382,
        "catalog_name name, schema_name name, schema_owner name, default_character_set_catalog name, \
         default_character_set_schema name, default_character_set_name name, sql_path varchar",
        schemata,
    ),
    Relation::information(
        "key_column_usage",
        13_329,
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, \
         table_schema name, table_name name, column_name name, ordinal_position integer, \
         position_in_unique_constraint integer",
        key_columns,
    ),
    Relation::information(
        "table_constraints",
        13_411,
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, \
         table_schema name, table_name name, constraint_type varchar, is_deferrable varchar(3), \
         initially_deferred varchar(3), enforced varchar(3), nulls_distinct varchar(3)",
        constraints,
    ),
    Relation::information(
        "constraint_column_usage",
        13_300,
        "table_catalog name, table_schema name, table_name name, column_name name, constraint_catalog \
         name, constraint_schema name, constraint_name name",
        constraint_columns,
    ),
    Relation::information(
        "constraint_table_usage",
        13_305,
        "table_catalog name, table_schema name, table_name name, constraint_catalog name, \
         constraint_schema name, constraint_name name",
        constraint_tables,
    ),
    Relation::information(
        "referential_constraints",
        13_339,
        "constraint_catalog name, constraint_schema name, constraint_name name, \
         unique_constraint_catalog name, unique_constraint_schema name, unique_constraint_name name, \
         match_option varchar, update_rule varchar, delete_rule varchar",
        information_constraints::referential_constraints,
    ),
    Relation::information(
        "check_constraints",
        13_260,
        "constraint_catalog name, constraint_schema name, constraint_name name, check_clause varchar",
        check_constraints,
    ),
    Relation::information(
        "views",
        13_483,
        "table_catalog name, table_schema name, table_name name, view_definition varchar, \
         check_option varchar, is_updatable varchar(3), is_insertable_into varchar(3), \
         is_trigger_updatable varchar(3), is_trigger_deletable varchar(3), is_trigger_insertable_into \
         varchar(3)",
        no_rows,
    ),
    Relation::information(
        "sequences",
        13_386,
        "sequence_catalog name, sequence_schema name, sequence_name name, data_type varchar, \
         numeric_precision integer, numeric_precision_radix integer, numeric_scale integer, \
         start_value varchar, minimum_value varchar, maximum_value varchar, increment varchar, \
         cycle_option varchar(3)",
        sequences,
    ),
    Relation::information(
        "character_sets",
        13_250,
        "character_set_catalog name, character_set_schema name, character_set_name name, \
         character_repertoire name, form_of_use name, default_collate_catalog name, \
         default_collate_schema name, default_collate_name name",
        character_sets,
    ),
    Relation::information(
        "collations",
        13_265,
        "collation_catalog name, collation_schema name, collation_name name, pad_attribute varchar",
        no_rows,
    ),
    Relation::information(
        "domains",
        13_320,
        "domain_catalog name, domain_schema name, domain_name name, data_type varchar, \
         character_maximum_length integer, character_octet_length integer, character_set_catalog \
         name, character_set_schema name, character_set_name name, collation_catalog name, \
         collation_schema name, collation_name name, numeric_precision integer, \
         numeric_precision_radix integer, numeric_scale integer, datetime_precision integer, \
         interval_type varchar, interval_precision integer, domain_default varchar, udt_catalog name, \
         udt_schema name, udt_name name, scope_catalog name, scope_schema name, scope_name name, \
         maximum_cardinality integer, dtd_identifier name",
        no_rows,
    ),
    Relation::information(
        "domain_constraints",
        13_310,
        "constraint_catalog name, constraint_schema name, constraint_name name, domain_catalog name, \
         domain_schema name, domain_name name, is_deferrable varchar(3), initially_deferred \
         varchar(3)",
        no_rows,
    ),
    Relation::information(
        "element_types",
        13_493,
        "object_catalog name, object_schema name, object_name name, object_type varchar, \
         collection_type_identifier name, data_type varchar, character_maximum_length integer, \
         character_octet_length integer, character_set_catalog name, character_set_schema name, \
         character_set_name name, collation_catalog name, collation_schema name, collation_name name, \
         numeric_precision integer, numeric_precision_radix integer, numeric_scale integer, \
         datetime_precision integer, interval_type varchar, interval_precision integer, \
         domain_default varchar, udt_catalog name, udt_schema name, udt_name name, scope_catalog \
         name, scope_schema name, scope_name name, maximum_cardinality integer, dtd_identifier name",
        no_rows,
    ),
    Relation::information("enabled_roles", 13_325, "role_name name", enabled_roles),
    Relation::information(
        "applicable_roles",
        13_236,
        "grantee name, role_name name, is_grantable varchar(3)",
        no_rows,
    ),
    Relation::information("information_schema_catalog_name", 13_227, "catalog_name name", catalog_name),
    Relation::information(
        "column_privileges",
        13_285,
        "grantor name, grantee name, table_catalog name, table_schema name, table_name name, \
         column_name name, privilege_type varchar, is_grantable varchar(3)",
        column_privileges,
    ),
    Relation::information("table_privileges", 13_416, TABLE_GRANTS, table_privileges),
    Relation::information("role_table_grants", 13_421, TABLE_GRANTS, table_privileges),
    Relation::information(
        "routines",
        13_377,
        "specific_catalog name, specific_schema name, specific_name name, routine_catalog name, \
         routine_schema name, routine_name name, routine_type varchar, module_catalog name, \
         module_schema name, module_name name, udt_catalog name, udt_schema name, udt_name name, \
         data_type varchar, character_maximum_length integer, character_octet_length integer, \
         character_set_catalog name, character_set_schema name, character_set_name name, \
         collation_catalog name, collation_schema name, collation_name name, numeric_precision \
         integer, numeric_precision_radix integer, numeric_scale integer, datetime_precision integer, \
         interval_type varchar, interval_precision integer, type_udt_catalog name, type_udt_schema \
         name, type_udt_name name, scope_catalog name, scope_schema name, scope_name name, \
         maximum_cardinality integer, dtd_identifier name, routine_body varchar, routine_definition \
         varchar, external_name varchar, external_language varchar, parameter_style varchar, \
         is_deterministic varchar(3), sql_data_access varchar, is_null_call varchar(3), sql_path \
         varchar, schema_level_routine varchar(3), max_dynamic_result_sets integer, \
         is_user_defined_cast varchar(3), is_implicitly_invocable varchar(3), security_type varchar, \
         to_sql_specific_catalog name, to_sql_specific_schema name, to_sql_specific_name name, \
         as_locator varchar(3), created timestamp with time zone, last_altered timestamp with time \
         zone, new_savepoint_level varchar(3), is_udt_dependent varchar(3), \
         result_cast_from_data_type varchar, result_cast_as_locator varchar(3), \
         result_cast_char_max_length integer, result_cast_char_octet_length integer, \
         result_cast_char_set_catalog name, result_cast_char_set_schema name, \
         result_cast_char_set_name name, result_cast_collation_catalog name, \
         result_cast_collation_schema name, result_cast_collation_name name, \
         result_cast_numeric_precision integer, result_cast_numeric_precision_radix integer, \
         result_cast_numeric_scale integer, result_cast_datetime_precision integer, \
         result_cast_interval_type varchar, result_cast_interval_precision integer, \
         result_cast_type_udt_catalog name, result_cast_type_udt_schema name, \
         result_cast_type_udt_name name, result_cast_scope_catalog name, result_cast_scope_schema \
         name, result_cast_scope_name name, result_cast_maximum_cardinality integer, \
         result_cast_dtd_identifier name",
        no_rows,
    ),
    Relation::information(
        "parameters",
        13_334,
        "specific_catalog name, specific_schema name, specific_name name, ordinal_position integer, \
         parameter_mode varchar, is_result varchar(3), as_locator varchar(3), parameter_name name, \
         data_type varchar, character_maximum_length integer, character_octet_length integer, \
         character_set_catalog name, character_set_schema name, character_set_name name, \
         collation_catalog name, collation_schema name, collation_name name, numeric_precision \
         integer, numeric_precision_radix integer, numeric_scale integer, datetime_precision integer, \
         interval_type varchar, interval_precision integer, udt_catalog name, udt_schema name, \
         udt_name name, scope_catalog name, scope_schema name, scope_name name, maximum_cardinality \
         integer, dtd_identifier name, parameter_default varchar",
        no_rows,
    ),
    Relation::information(
        "triggers",
        13_440,
        "trigger_catalog name, trigger_schema name, trigger_name name, event_manipulation varchar, \
         event_object_catalog name, event_object_schema name, event_object_table name, action_order \
         integer, action_condition varchar, action_statement varchar, action_orientation varchar, \
         action_timing varchar, action_reference_old_table name, action_reference_new_table name, \
         action_reference_old_row name, action_reference_new_row name, created timestamp with time \
         zone",
        no_rows,
    ),
    Relation::information(
        "user_defined_types",
        13_463,
        "user_defined_type_catalog name, user_defined_type_schema name, user_defined_type_name name, \
         user_defined_type_category varchar, is_instantiable varchar(3), is_final varchar(3), \
         ordering_form varchar, ordering_category varchar, ordering_routine_catalog name, \
         ordering_routine_schema name, ordering_routine_name name, reference_type varchar, data_type \
         varchar, character_maximum_length integer, character_octet_length integer, \
         character_set_catalog name, character_set_schema name, character_set_name name, \
         collation_catalog name, collation_schema name, collation_name name, numeric_precision \
         integer, numeric_precision_radix integer, numeric_scale integer, datetime_precision integer, \
         interval_type varchar, interval_precision integer, source_dtd_identifier name, \
         ref_dtd_identifier name",
        no_rows,
    ),
    Relation::information(
        "view_table_usage",
        13_478,
        "view_catalog name, view_schema name, view_name name, table_catalog name, table_schema name, \
         table_name name",
        no_rows,
    ),
    Relation::information(
        "foreign_tables",
        13_541,
        "foreign_table_catalog name, foreign_table_schema name, foreign_table_name name, \
         foreign_server_catalog name, foreign_server_name name",
        no_rows,
    ),
    Relation::information(
        "foreign_servers",
        13_528,
        "foreign_server_catalog name, foreign_server_name name, foreign_data_wrapper_catalog name, \
         foreign_data_wrapper_name name, foreign_server_type varchar, foreign_server_version varchar, \
         authorization_identifier name",
        no_rows,
    ),
];

/// What may be granted on a table, in the standard's words.
const TABLE_PRIVILEGES: [&str; 7] =
    ["DELETE", "INSERT", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"];

fn tables(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        rows.push([
            ("table_catalog", context.environment.as_str().into()),
            ("table_schema", table.def.schema.as_str().into()),
            ("table_name", table.def.name.as_str().into()),
            ("table_type", "BASE TABLE".into()),
            ("is_insertable_into", "YES".into()),
            ("is_typed", "NO".into()),
        ]);
    }
}

fn schemata(context: &CatalogContext, rows: &mut Rows) {
    for (_, name) in context.namespaces() {
        rows.push([
            ("catalog_name", context.environment.as_str().into()),
            ("schema_name", name.into()),
            ("schema_owner", context.user.as_str().into()),
        ]);
    }
}

fn key_columns(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for unique in table.def.uniques.iter().filter(|unique| unique.is_constraint()) {
            for (place, column) in (1_i32..).zip(&unique.columns) {
                let Some(column) = table.def.column_by_id(*column) else { continue };
                rows.push([
                    ("constraint_catalog", context.environment.as_str().into()),
                    ("constraint_schema", table.def.schema.as_str().into()),
                    ("constraint_name", unique.name.as_str().into()),
                    ("table_catalog", context.environment.as_str().into()),
                    ("table_schema", table.def.schema.as_str().into()),
                    ("table_name", table.def.name.as_str().into()),
                    ("column_name", column.name.as_str().into()),
                    ("ordinal_position", place.into()),
                ]);
            }
        }
    }
    information_constraints::key_columns(context, rows);
}

fn constraints(context: &CatalogContext, rows: &mut Rows) {
    let mut push = |table: &TableDef, name: &str, kind: &str, distinct: Value| {
        rows.push([
            ("constraint_catalog", context.environment.as_str().into()),
            ("constraint_schema", table.schema.as_str().into()),
            ("constraint_name", name.into()),
            ("table_catalog", context.environment.as_str().into()),
            ("table_schema", table.schema.as_str().into()),
            ("table_name", table.name.as_str().into()),
            ("constraint_type", kind.into()),
            ("is_deferrable", "NO".into()),
            ("initially_deferred", "NO".into()),
            ("enforced", "YES".into()),
            ("nulls_distinct", distinct),
        ]);
    };
    for table in context.tables() {
        for unique in table.def.uniques.iter().filter(|unique| unique.is_constraint()) {
            if unique.primary {
                push(&table.def, &unique.name, "PRIMARY KEY", Value::Null);
            } else {
                push(&table.def, &unique.name, "UNIQUE", "YES".into());
            }
        }
        for column in table.def.columns.iter().filter(|column| column.not_null) {
            push(&table.def, &not_null_name(context, &table.def, column), "CHECK", Value::Null);
        }
    }
    information_constraints::table_constraints(context, rows);
}

/// Postgres 17 makes these names up for the view alone, from oids.
fn not_null_name(context: &CatalogContext, table: &TableDef, column: &ColumnDef) -> String {
    let number = attribute_number(table, column.id);
    format!("{}_{}_{number}_not_null", context.namespace_of(&table.schema), table.id)
}

fn check_constraints(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in table.def.columns.iter().filter(|column| column.not_null) {
            rows.push([
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", not_null_name(context, &table.def, column).into()),
                ("check_clause", format!("{} IS NOT NULL", column.name).into()),
            ]);
        }
    }
    information_constraints::check_constraints(context, rows);
}

fn constraint_columns(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for unique in table.def.uniques.iter().filter(|unique| unique.is_constraint()) {
            for column in unique.columns.iter().filter_map(|column| table.def.column_by_id(*column)) {
                rows.push([
                    ("table_catalog", context.environment.as_str().into()),
                    ("table_schema", table.def.schema.as_str().into()),
                    ("table_name", table.def.name.as_str().into()),
                    ("column_name", column.name.as_str().into()),
                    ("constraint_catalog", context.environment.as_str().into()),
                    ("constraint_schema", table.def.schema.as_str().into()),
                    ("constraint_name", unique.name.as_str().into()),
                ]);
            }
        }
    }
    information_constraints::constraint_columns(context, rows);
}

fn constraint_tables(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for unique in table.def.uniques.iter().filter(|unique| unique.is_constraint()) {
            rows.push([
                ("table_catalog", context.environment.as_str().into()),
                ("table_schema", table.def.schema.as_str().into()),
                ("table_name", table.def.name.as_str().into()),
                ("constraint_catalog", context.environment.as_str().into()),
                ("constraint_schema", table.def.schema.as_str().into()),
                ("constraint_name", unique.name.as_str().into()),
            ]);
        }
    }
    information_constraints::constraint_tables(context, rows);
}

fn sequences(context: &CatalogContext, rows: &mut Rows) {
    for (table, column, sequence) in context.sequences() {
        // Identity columns' sequences are an implementation detail that the standard does not list.
        if !matches!(column.generated, Some(Generated::Serial | Generated::Sequence)) {
            continue;
        }
        rows.push([
            ("sequence_catalog", context.environment.as_str().into()),
            ("sequence_schema", table.schema.as_str().into()),
            ("sequence_name", table.sequence_name(column).into()),
            ("data_type", sequence.ty.display_name().into()),
            ("numeric_precision", Numbers::of(&sequence.ty).precision.into()),
            ("numeric_precision_radix", 2.into()),
            ("numeric_scale", 0.into()),
            ("start_value", sequence.start.to_string().into()),
            ("minimum_value", sequence.min.to_string().into()),
            ("maximum_value", sequence.max.to_string().into()),
            ("increment", sequence.increment.to_string().into()),
            ("cycle_option", "NO".into()),
        ]);
    }
}

fn character_sets(context: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", context.environment.as_str().into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C".into()),
    ]);
}

fn enabled_roles(context: &CatalogContext, rows: &mut Rows) {
    rows.push([("role_name", context.user.as_str().into())]);
}

fn catalog_name(context: &CatalogContext, rows: &mut Rows) {
    rows.push([("catalog_name", context.environment.as_str().into())]);
}

fn column_privileges(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in &table.def.columns {
            for privilege in ["INSERT", "REFERENCES", "SELECT", "UPDATE"] {
                rows.push([
                    ("grantor", context.user.as_str().into()),
                    ("grantee", context.user.as_str().into()),
                    ("table_catalog", context.environment.as_str().into()),
                    ("table_schema", table.def.schema.as_str().into()),
                    ("table_name", table.def.name.as_str().into()),
                    ("column_name", column.name.as_str().into()),
                    ("privilege_type", privilege.into()),
                    ("is_grantable", "YES".into()),
                ]);
            }
        }
    }
}

fn table_privileges(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for privilege in TABLE_PRIVILEGES {
            rows.push([
                ("grantor", context.user.as_str().into()),
                ("grantee", context.user.as_str().into()),
                ("table_catalog", context.environment.as_str().into()),
                ("table_schema", table.def.schema.as_str().into()),
                ("table_name", table.def.name.as_str().into()),
                ("privilege_type", privilege.into()),
                ("is_grantable", "YES".into()),
                ("with_hierarchy", if privilege == "SELECT" { "YES" } else { "NO" }.into()),
            ]);
        }
    }
}
