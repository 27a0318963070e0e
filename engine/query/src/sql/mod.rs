//! From SQL text to statements: tokens, the token post-pass, parsing, and the AST passes that make
//! DataFusion read Postgres' dialect.
//!
//! Called by `database::Session` for every statement. Nothing here plans or runs anything.

mod array_query;
mod branches;
pub mod delivery;
mod depth;
mod dialect;
mod exists;
mod hints;
pub mod history;
mod inlined;
mod json_rows;
mod lateral_lists;
mod literals;
mod maintenance;
mod matched;
mod merged_columns;
mod moment_words;
mod named;
mod names;
mod order;
mod outermost;
mod params;
mod past;
mod position;
mod quantifiers;
mod rewrite;
mod row_comparison;
mod row_locks;
mod rows;
mod schemas;
mod sequences;
pub mod shape;
mod signatures;
mod statement;
mod text_search;
mod tokens;
mod vectors;
mod whole_rows;
mod wildcard;

pub(crate) use array_query::parsed;
pub(crate) use branches::check_values;
pub use datafusion::sql::sqlparser::ast;
pub use dialect::Postgres;
pub use inlined::{Inlined, inlined_vector};
pub use maintenance::{Maintenance, NamedTable, Reindexed};
pub(crate) use matched::matched;
pub use moment_words::{is_moment, may_name_moment};
pub use named::{Count, Declare, Direction, Fetch, Named};
pub use names::{output_names, strip_marker};
pub use params::{ParameterTypes, compared};
pub use past::{Moment, moments, past_tables, reference};
pub use position::locate;
pub use quantifiers::Quantified;
pub(crate) use rewrite::written_numeric;
pub use rewrite::{ColumnTypes, prepare_expression, prepare_query};
pub(crate) use row_locks::marked_lock;
pub use schemas::SchemaStatement;
pub use sequences::{IdentityChange, SequenceChange, SequenceOption, SequenceStatement, object_of};
pub(crate) use signatures::{common_type, time_rank};
pub use statement::{Statement, StatementKind, parse_statements};
pub use tokens::tokenize;
pub use wildcard::{TableColumns, expand_wildcards};
