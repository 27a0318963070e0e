//! The relations of `pg_catalog` and `information_schema`, a file for each family.
//!
//! `shape` collects them by name. Column lists are those of PostgreSQL 15 with what 17 added.

mod activity;
mod attribute;
mod class;
mod cluster;
mod constraint;
mod delivery;
mod empty;
mod history;
mod index;
mod information;
mod information_columns;
mod information_constraints;
mod named;
mod routine;
mod sequence;
mod text_search;
mod types;
mod work;

use super::shape::Relation;

pub(super) use index::access_method_name;
#[cfg(test)]
pub(super) use routine::procedures;
pub(super) use routine::{operator, procedure, procedure_named};
pub(crate) use types::{is_preferred, type_category};

/// Every family.
pub(super) const ALL: [&[Relation]; 16] = [
    activity::RELATIONS,
    attribute::RELATIONS,
    class::RELATIONS,
    cluster::RELATIONS,
    constraint::RELATIONS,
    delivery::RELATIONS,
    empty::RELATIONS,
    history::RELATIONS,
    index::RELATIONS,
    information::RELATIONS,
    named::RELATIONS,
    routine::RELATIONS,
    sequence::RELATIONS,
    text_search::RELATIONS,
    types::RELATIONS,
    work::RELATIONS,
];
