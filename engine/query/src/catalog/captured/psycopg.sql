-- What psycopg 3 and its pgvector adapter send to find types.

-- name: psycopg (1)
-- parameters: 'vector'
SELECT
    typname AS name, oid, typarray AS array_oid,
    oid::regtype::text AS regtype, typdelim AS delimiter
FROM pg_type t
WHERE t.oid = to_regtype($1)
ORDER BY t.oid

-- name: psycopg (2)
-- parameters: 'items'
SELECT t.typname AS name, t.oid AS oid, t.typarray AS array_oid,
    t.oid::regtype::text AS regtype,
    r.rngsubtype AS subtype_oid
FROM pg_type t
JOIN pg_range r ON t.oid = r.rngtypid
WHERE t.oid = to_regtype($1)

-- name: psycopg (3)
-- parameters: 'items'
SELECT name, oid, array_oid, regtype, array_agg(label) AS labels
FROM (
    SELECT
        t.typname AS name, t.oid AS oid, t.typarray AS array_oid,
        t.oid::regtype::text AS regtype, e.enumlabel AS label
    FROM pg_type t
    LEFT JOIN  pg_enum e
    ON e.enumtypid = t.oid
    WHERE t.oid = to_regtype($1)
    ORDER BY e.enumsortorder
) x
GROUP BY name, oid, array_oid, regtype

-- name: psycopg (4)
-- parameters: 'items'
SELECT
    t.typname AS name, t.oid AS oid, t.typarray AS array_oid,
    t.oid::regtype::text AS regtype,
    coalesce(a.fnames, '{}') AS field_names,
    coalesce(a.ftypes, '{}') AS field_types
FROM pg_type t
LEFT JOIN (
    SELECT
        attrelid,
        array_agg(attname) AS fnames,
        array_agg(atttypid) AS ftypes
    FROM (
        SELECT a.attrelid, a.attname, a.atttypid
        FROM pg_attribute a
        JOIN pg_type t ON t.typrelid = a.attrelid
        WHERE t.oid = to_regtype($1)
        AND a.attnum > 0
        AND NOT a.attisdropped
        ORDER BY a.attnum
    ) x
    GROUP BY attrelid
) a ON a.attrelid = t.typrelid
WHERE t.oid = to_regtype($1)

-- name: psycopg (5)
select version(), current_database(), current_schema(), pg_backend_pid(), pg_is_in_recovery()

-- name: psycopg (6)
SELECT EXISTS(SELECT 1 FROM pg_extension WHERE extname = 'vector')

-- name: psycopg (7)
SELECT phase, round(100.0 * blocks_done / nullif(blocks_total, 0), 1), tuples_done FROM pg_stat_progress_create_index

-- name: psycopg (8)
SELECT pg_relation_size('items_pkey')

-- name: psycopg (9)
select pg_size_pretty(pg_total_relation_size('items')), pg_size_pretty(pg_indexes_size('items'::regclass))

-- name: psycopg (10)
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'items'

-- name: psycopg (11)
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = 'items'::regclass AND i.indisprimary

-- name: psycopg (12)
SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name

-- name: psycopg (13)
-- parameters: 'items'
SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position
