//! What Postgres keeps for the whole server: databases, roles, tablespaces, schemas, extensions, collations.
//!
//! A tenant sees its own environments as databases and one role, itself.

use sepal_types::limits::PUBLIC_NAMESPACE_OID;

use super::super::CatalogContext;
use super::super::objects::{DEFAULT_TABLESPACE_OID, OWNER_OID, environment_oid};
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;

/// The columns of `pg_shadow`, of which `pg_user` is a view.
const USERS: &str = "usename name, usesysid oid, usecreatedb boolean, usesuper boolean, userepl boolean, \
    usebypassrls boolean, passwd text, valuntil timestamp with time zone, useconfig text[]";

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog("pg_namespace", 2615, "oid oid, nspname name, nspowner oid, nspacl text[]", namespaces),
    Relation::catalog(
        "pg_database",
        1262,
        "oid oid, datname name, datdba oid, encoding integer, datlocprovider char, datistemplate \
         boolean, datallowconn boolean, datconnlimit integer, datfrozenxid bigint, datminmxid bigint, \
         dattablespace oid, datcollate text, datctype text, daticulocale text, datlocale text, \
         daticurules text, datcollversion text, datacl text[]",
        databases,
    ),
    Relation::catalog(
        "pg_tablespace",
        1213,
        "oid oid, spcname name, spcowner oid, spcacl text[], spcoptions text[]",
        tablespaces,
    ),
    Relation::catalog(
        "pg_roles",
        12_020,
        "rolname name, rolsuper boolean, rolinherit boolean, rolcreaterole boolean, rolcreatedb \
         boolean, rolcanlogin boolean, rolreplication boolean, rolconnlimit integer, rolpassword \
         text, rolvaliduntil timestamp with time zone, rolbypassrls boolean, rolconfig text[], oid \
         oid",
        roles,
    ),
    Relation::catalog(
        "pg_authid",
        1260,
        "oid oid, rolname name, rolsuper boolean, rolinherit boolean, rolcreaterole boolean, \
         rolcreatedb boolean, rolcanlogin boolean, rolreplication boolean, rolbypassrls boolean, \
         rolconnlimit integer, rolpassword text, rolvaliduntil timestamp with time zone",
        authids,
    ),
    Relation::catalog("pg_user", 12_021, USERS, users),
    Relation::catalog("pg_shadow", 12_022, USERS, users),
    Relation::catalog("pg_group", 12_023, "groname name, grosysid oid, grolist oid[]", no_rows),
    Relation::catalog(
        "pg_auth_members",
        1261,
        "oid oid, roleid oid, member oid, grantor oid, admin_option boolean, inherit_option boolean, \
         set_option boolean",
        no_rows,
    ),
    Relation::catalog(
        "pg_extension",
        3079,
        "oid oid, extname name, extowner oid, extnamespace oid, extrelocatable boolean, extversion \
         text, extconfig oid[], extcondition text[]",
        extensions,
    ),
    Relation::catalog(
        "pg_available_extensions",
        12_024,
        "name name, default_version text, installed_version text, comment text",
        available,
    ),
    Relation::catalog(
        "pg_available_extension_versions",
        12_025,
        "name name, version text, installed boolean, superuser boolean, trusted boolean, relocatable \
         boolean, schema name, requires name[], comment text",
        available_versions,
    ),
    Relation::catalog(
        "pg_collation",
        3456,
        "oid oid, collname name, collnamespace oid, collowner oid, collprovider char, \
         collisdeterministic boolean, collencoding integer, collcollate text, collctype text, \
         colliculocale text, colllocale text, collicurules text, collversion text",
        collations,
    ),
];

/// The extension `vector` in `pg_extension`.
pub(super) const EXTENSION_OID: u32 = 16_384;
/// The pgvector release whose SQL surface Sepal has.
const EXTENSION_VERSION: &str = "0.8.1";
/// `UTF8` in `pg_encoding_to_char`.
const UTF8: i32 = 6;

fn namespaces(context: &CatalogContext, rows: &mut Rows) {
    for (oid, name) in context.namespaces() {
        rows.push([("oid", oid.into()), ("nspname", name.into()), ("nspowner", OWNER_OID.into())]);
    }
}

fn databases(context: &CatalogContext, rows: &mut Rows) {
    let mut names: Vec<&str> = context.environments.iter().map(String::as_str).collect();
    if !names.contains(&context.environment.as_str()) {
        names.push(&context.environment);
    }
    for name in names {
        rows.push([
            ("oid", environment_oid(name).into()),
            ("datname", name.into()),
            ("datdba", OWNER_OID.into()),
            ("encoding", UTF8.into()),
            ("datlocprovider", "c".into()),
            ("datallowconn", true.into()),
            ("datconnlimit", (-1).into()),
            ("dattablespace", DEFAULT_TABLESPACE_OID.into()),
            ("datcollate", "C".into()),
            ("datctype", "C.UTF-8".into()),
        ]);
    }
}

fn tablespaces(_: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("oid", DEFAULT_TABLESPACE_OID.into()),
        ("spcname", "pg_default".into()),
        ("spcowner", OWNER_OID.into()),
    ]);
}

fn roles(context: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("oid", OWNER_OID.into()),
        ("rolname", context.user.as_str().into()),
        ("rolinherit", true.into()),
        ("rolcanlogin", true.into()),
        ("rolconnlimit", (-1).into()),
        ("rolpassword", "********".into()),
    ]);
}

fn authids(context: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("oid", OWNER_OID.into()),
        ("rolname", context.user.as_str().into()),
        ("rolinherit", true.into()),
        ("rolcanlogin", true.into()),
        ("rolconnlimit", (-1).into()),
    ]);
}

fn users(context: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("usename", context.user.as_str().into()),
        ("usesysid", OWNER_OID.into()),
        ("passwd", "********".into()),
        ("valuntil", Value::Null),
    ]);
}

fn extensions(_: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("oid", EXTENSION_OID.into()),
        ("extname", "vector".into()),
        ("extowner", OWNER_OID.into()),
        ("extnamespace", PUBLIC_NAMESPACE_OID.into()),
        ("extrelocatable", true.into()),
        ("extversion", EXTENSION_VERSION.into()),
    ]);
}

fn available(_: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("name", "vector".into()),
        ("default_version", EXTENSION_VERSION.into()),
        ("installed_version", EXTENSION_VERSION.into()),
        ("comment", "vector data type and ivfflat and hnsw access methods".into()),
    ]);
}

fn available_versions(_: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("name", "vector".into()),
        ("version", EXTENSION_VERSION.into()),
        ("installed", true.into()),
        ("superuser", false.into()),
        ("trusted", true.into()),
        ("relocatable", true.into()),
        ("comment", "vector data type and ivfflat and hnsw access methods".into()),
    ]);
}

fn collations(_: &CatalogContext, rows: &mut Rows) {
    let collations =
        [(100_u32, "default", "d", None), (950, "C", "c", Some("C")), (951, "POSIX", "c", Some("POSIX"))];
    for (oid, name, provider, locale) in collations {
        rows.push([
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collnamespace", 11.into()),
            ("collowner", OWNER_OID.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", (-1).into()),
            ("collcollate", locale.into()),
            ("collctype", locale.into()),
        ]);
    }
}
