#!/usr/bin/env bash
# psql: the backslash commands that people type first, \copy, variables and errors.
# Each command must succeed and show the words after it.
set -euo pipefail

fail() { printf 'not ok: %s\n' "$*" >&2; exit 1; }

run() { psql -X -v ON_ERROR_STOP=1 "$@" 2>&1; }

# shows 'command' word…: the command's output holds every word.
shows() {
    local command=$1 out word
    shift
    out=$(run -c "$command") || fail "$command ended with an error: $out"
    case $out in *ERROR*) fail "$command: $out" ;; esac
    for word in "$@"; do
        case $out in *"$word"*) ;; *) fail "$command does not show \"$word\": $out" ;; esac
    done
    printf 'ok %s\n' "$command"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run -q <<'SQL'
\set ON_ERROR_STOP on
SET client_min_messages TO warning;
CREATE EXTENSION IF NOT EXISTS vector;
DROP TABLE IF EXISTS ps_items, ps_made, ps_other;
CREATE TABLE ps_items (id bigserial PRIMARY KEY, kind varchar(10) NOT NULL DEFAULT 'noun', price numeric(8,2), embedding vector(3), CONSTRAINT ps_kind UNIQUE (kind, price));
CREATE TABLE ps_other ("Mixed Case" text, seen timestamptz);
CREATE TABLE ps_made (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO ps_items (kind, price, embedding) VALUES ('noun', 1.5, '[1,2,3]'), ('verb', NULL, '[4,5,6]');
CREATE INDEX ps_embedding ON ps_items USING hnsw (embedding vector_cosine_ops) WITH (m = 8);
SQL
printf 'ok set up\n'

shows '\conninfo' 'connected'
shows '\d' 'ps_items' 'ps_other' 'table'
shows '\dt' 'ps_items' 'ps_other' 'public'
shows '\dt+' 'ps_items' 'Size'
shows '\dt ps_o*' 'ps_other'
shows '\d ps_items' 'bigint' 'not null' "character varying(10)" "'noun'" 'numeric(8,2)' 'vector(3)' 'ps_items_pkey' 'PRIMARY KEY, btree (id)' 'ps_embedding' 'hnsw (embedding vector_cosine_ops)' 'ps_kind'
shows '\d+ ps_items' 'Storage' 'vector(3)'
shows '\d ps_other' 'Mixed Case' 'timestamp with time zone'
shows '\d ps_made' 'generated always as (a * 2) stored'
shows '\d ps_embedding' 'hnsw' 'embedding'
shows '\di' 'ps_embedding' 'ps_items_pkey' 'index'
shows '\di+' 'ps_embedding' 'hnsw'
shows '\l' "${PGDATABASE:-postgres}" 'UTF8'
shows '\dn' 'public'
shows '\df vector_dims' 'vector_dims' 'integer'
shows '\df l2*' 'l2_distance' 'double precision'
shows '\dx' 'vector'
shows '\du'
shows '\dT vector' 'vector'
shows '\ds'
shows '\dv'
shows '\do <->' '<->'
shows '\dA' 'hnsw'
shows '\dp ps_items' 'ps_items'

out=$(run -c '\d ps_nowhere' || true)
case $out in *'Did not find any relation named "ps_nowhere"'*) printf 'ok \\d of nothing\n' ;; *) fail "\\d ps_nowhere: $out" ;; esac

# --- \copy both ways

for n in $(seq 1 500); do printf '%d\tcopied\t%d.25\t[%d,0,1]\n' $((1000 + n)) "$n" "$n"; done >"$work/in.tsv"
out=$(run -c "\\copy ps_items from '$work/in.tsv'")
[ "$out" = 'COPY 500' ] || fail "\\copy from: $out"
out=$(run -c "\\copy (select * from ps_items where kind = 'copied' order by id) to '$work/out.tsv'")
[ "$out" = 'COPY 500' ] || fail "\\copy to: $out"
cmp "$work/in.tsv" "$work/out.tsv" || fail 'what came out is not what went in'
run -q -c "\\copy ps_items to '$work/out.csv' with (format csv, header)"
head -1 "$work/out.csv" | grep -qx 'id,kind,price,embedding' || fail "header: $(head -1 "$work/out.csv")"
run -q -c "\\copy ps_items to '$work/out.bin' with (format binary)"
run -q -c 'TRUNCATE ps_items'
run -q -c "\\copy ps_items from '$work/out.bin' with (format binary)"
[ "$(run -Atc 'SELECT count(*) FROM ps_items')" = 502 ] || fail 'binary \copy'
printf 'ok \\copy in text, csv and binary\n'

# --- output, variables, errors

[ "$(run -At -v k=3 -c 'SELECT 1 AS one' -c "SELECT id FROM ps_items ORDER BY embedding <-> '[7,0,1]' LIMIT 1")" = $'1\n1007' ] || fail 'search'
[ "$(echo 'SELECT id FROM ps_items ORDER BY embedding <-> :'"'v'"' LIMIT :k' | run -At -v k=1 -v v='[9,0,1]')" = 1009 ] || fail 'variables'
[ "$(run -At -F '|' -P null=nil -c "SELECT id, kind, price, embedding FROM ps_items WHERE id < 3 ORDER BY id")" = $'1|noun|1.50|[1,2,3]\n2|verb|nil|[4,5,6]' ] || fail 'text output'
[ "$(printf 'SELECT 1 AS a, 2 AS b \\gx\n' | run -t -A)" = $'a|1\nb|2' ] || fail '\gx'
[ "$(printf "SELECT 'SELECT ' || x FROM generate_series(1, 2) AS s(x) \\\\gexec\n" | run -At)" = $'1\n2' ] || fail '\gexec'
[ "$(printf 'BEGIN;\nINSERT INTO ps_other VALUES (1);\nROLLBACK;\nSELECT count(*) FROM ps_other;\n' | run -Atq)" = 0 ] || fail 'transaction'
out=$(run -c 'SELECT id,
  nope FROM ps_items' || true)
case $out in *'LINE 2:   nope FROM ps_items'*'^'*) ;; *) fail "the caret: $out" ;; esac
out=$(run -v VERBOSITY=verbose -c "SELECT '[1,2'::vector" || true)
case $out in *'22P02'*'invalid input syntax for type vector: "[1,2"'*) ;; *) fail "verbose: $out" ;; esac
printf 'ok output, variables, errors\n'

# Ctrl-C
set +e
out=$(timeout --signal=INT 1 psql -X -c 'SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000) b' 2>&1)
set -e
case $out in *'canceling statement due to user request'*) printf 'ok Ctrl-C\n' ;; *) fail "Ctrl-C: $out" ;; esac

run -q -c 'DROP TABLE ps_items, ps_made, ps_other'
printf 'ok %s\n' "$(psql --version)"
