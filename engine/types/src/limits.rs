//! The limits that users can meet, in one place. Crates add their private ones beside their own code.

/// Most dimensions a `vector` or `halfvec` may have (pgvector `VECTOR_MAX_DIM`, `HALFVEC_MAX_DIM`).
pub const MAX_DIMENSIONS: usize = 16_000;
/// Most dimensions of a `sparsevec` (pgvector `SPARSEVEC_MAX_DIM`).
pub const MAX_SPARSE_DIMENSIONS: u32 = 1_000_000_000;
/// Most elements of a `sparsevec` that are not zero (pgvector `SPARSEVEC_MAX_NNZ`).
pub const MAX_SPARSE_ELEMENTS: usize = 16_000;
/// Most bits of a bit string (Postgres' `MaxAttrSize` in bits).
pub const MAX_BITS: u32 = 83_886_080;
/// Most bits of a column's: every row has room for all of them, a NULL too.
pub const MAX_COLUMN_BITS: u32 = 1 << 20;
/// Most characters of a `character(n)` or `varchar(n)` (Postgres' `MaxAttrSize`).
pub const MAX_CHARACTERS: u32 = 10_485_760;
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
/// Fixed oid of `halfvec`.
pub const HALFVEC_OID: u32 = 16_387;
/// Fixed oid of `halfvec[]`.
pub const HALFVEC_ARRAY_OID: u32 = 16_388;
/// Fixed oid of `sparsevec`.
pub const SPARSEVEC_OID: u32 = 16_395;
/// Fixed oid of `sparsevec[]`.
pub const SPARSEVEC_ARRAY_OID: u32 = 16_396;
/// Oid of the schema `public` (Postgres' own fixed number).
pub const PUBLIC_NAMESPACE_OID: u32 = 2_200;
/// Most pipelines that a tenant may define, in all its environments together (54000), as the next four: each runs all
/// the time and holds a part of the server's memory, whether or not anybody uses it.
pub const MAX_PIPELINES: usize = 64;
/// Most sinks of a tenant.
pub const MAX_SINKS: usize = 64;
/// Most secret resolvers of a tenant.
pub const MAX_RESOLVERS: usize = 64;
/// Most plugins of a tenant: up to 32 MiB each, and what they are compiled to.
pub const MAX_PLUGINS: usize = 64;
/// Most trust keys of a tenant: a signature is tried with each.
pub const MAX_TRUST_KEYS: usize = 64;
/// Most that `batch_bytes` of one pipeline may be.
pub const MAX_BATCH_BYTES: u32 = 64 << 20;
/// Most that `batch_bytes` of all of a tenant's pipelines may be together: a pipeline has a few batches at hand at
/// once, the one that is sent and those that are made meanwhile.
pub const MAX_TENANT_BATCH_BYTES: u64 = 256 << 20;

const _: () = assert!(HALFVEC_ARRAY_OID < FIRST_OBJECT_ID);
const _: () = assert!(SPARSEVEC_ARRAY_OID < FIRST_OBJECT_ID);
// Places of elements below and above zero do not meet.
const _: () = assert!(2 * (MAX_SPARSE_DIMENSIONS as u64) < 1 << 31);
const _: () = assert!(MAX_DIMENSIONS <= u16::MAX as usize);
// Every pipeline that a tenant may have can have batches of a useful size.
const _: () = assert!(MAX_TENANT_BATCH_BYTES / MAX_PIPELINES as u64 >= 1 << 20);
const _: () = assert!(MAX_BATCH_BYTES as u64 <= MAX_TENANT_BATCH_BYTES);
