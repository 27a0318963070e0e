//! The limits that users can meet, in one place. Crates add their private ones beside their own code.

/// Most dimensions a `vector` may have (pgvector `VECTOR_MAX_DIM`).
pub const MAX_DIMENSIONS: usize = 16_000;
/// Most columns of a table (Postgres' own limit is 1,600; Parquet's encrypted ordinals end at 32,767).
pub const MAX_COLUMNS: usize = 1_600;
/// Longest identifier in bytes; longer ones are truncated with a notice, as Postgres does (NAMEDATALEN - 1).
pub const MAX_IDENTIFIER_BYTES: usize = 63;
/// First id handed to a table or index: below it lie the catalog's and our types' fixed oids.
pub const FIRST_OBJECT_ID: u32 = 20_000;
/// Fixed oids of our types, the same for every tenant and for ever (namespace `public`).
pub const VECTOR_OID: u32 = 16_385;
/// Fixed oid of `vector[]`.
pub const VECTOR_ARRAY_OID: u32 = 16_386;
/// Oid of the schema `public` (Postgres' own fixed number).
pub const PUBLIC_NAMESPACE_OID: u32 = 2_200;

const _: () = assert!(VECTOR_ARRAY_OID < FIRST_OBJECT_ID);
const _: () = assert!(MAX_DIMENSIONS <= u16::MAX as usize);
