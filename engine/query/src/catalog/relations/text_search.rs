//! `pg_ts_config`, `pg_ts_dict`, `pg_ts_parser`, `pg_ts_template`: what full-text search has.
//!
//! Oids are those that PostgreSQL 15's initdb gives. A configuration has the dictionary of its language, whose oid is
//! the one before its own.

use super::super::CatalogContext;
use super::super::objects::OWNER_OID;
use super::super::shape::{Relation, Rows};
use crate::functions::text_search_configurations;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_ts_config",
        3_602,
        "oid oid, cfgname name, cfgnamespace oid, cfgowner oid, cfgparser oid",
        configurations,
    ),
    Relation::catalog(
        "pg_ts_dict",
        3_600,
        "oid oid, dictname name, dictnamespace oid, dictowner oid, dicttemplate oid, dictinitoption \
         text",
        dictionaries,
    ),
    Relation::catalog(
        "pg_ts_parser",
        3_601,
        "oid oid, prsname name, prsnamespace oid, prsstart regproc, prstoken regproc, prsend regproc, \
         prsheadline regproc, prslextype regproc",
        parsers,
    ),
    Relation::catalog(
        "pg_ts_template",
        3_764,
        "oid oid, tmplname name, tmplnamespace oid, tmplinit regproc, tmpllexize regproc",
        templates,
    ),
];

const CATALOG_NAMESPACE: u32 = 11;
const DEFAULT_PARSER: u32 = 3_722;
const SIMPLE_TEMPLATE: u32 = 3_727;
const SIMPLE_DICTIONARY: u32 = 3_765;
const SNOWBALL_TEMPLATE: u32 = 13_150;
/// Languages whose stop words PostgreSQL has no list of.
const WITHOUT_STOP_WORDS: [&str; 1] = ["romanian"];

fn configurations(_: &CatalogContext, rows: &mut Rows) {
    for (oid, name) in text_search_configurations() {
        rows.push([
            ("oid", oid.into()),
            ("cfgname", name.into()),
            ("cfgnamespace", CATALOG_NAMESPACE.into()),
            ("cfgowner", OWNER_OID.into()),
            ("cfgparser", DEFAULT_PARSER.into()),
        ]);
    }
}

fn dictionaries(_: &CatalogContext, rows: &mut Rows) {
    for (configuration, name) in text_search_configurations() {
        let is_simple = name == "simple";
        let dictionary = if is_simple { name.to_owned() } else { format!("{name}_stem") };
        let options = match name {
            "simple" => None,
            _ if WITHOUT_STOP_WORDS.contains(&name) => Some(format!("language = '{name}'")),
            _ => Some(format!("language = '{name}', stopwords = '{name}'")),
        };
        rows.push([
            ("oid", if is_simple { SIMPLE_DICTIONARY } else { configuration - 1 }.into()),
            ("dictname", dictionary.into()),
            ("dictnamespace", CATALOG_NAMESPACE.into()),
            ("dictowner", OWNER_OID.into()),
            ("dicttemplate", if is_simple { SIMPLE_TEMPLATE } else { SNOWBALL_TEMPLATE }.into()),
            ("dictinitoption", options.into()),
        ]);
    }
}

fn parsers(_: &CatalogContext, rows: &mut Rows) {
    rows.push([
        ("oid", DEFAULT_PARSER.into()),
        ("prsname", "default".into()),
        ("prsnamespace", CATALOG_NAMESPACE.into()),
    ]);
}

fn templates(_: &CatalogContext, rows: &mut Rows) {
    for (oid, name) in [(SIMPLE_TEMPLATE, "simple"), (SNOWBALL_TEMPLATE, "snowball")] {
        rows.push([
            ("oid", oid.into()),
            ("tmplname", name.into()),
            ("tmplnamespace", CATALOG_NAMESPACE.into()),
        ]);
    }
}
