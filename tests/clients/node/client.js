// node-postgres, which speaks text, with pgvector's type parser: types, search, prepared, COPY, pool, errors.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { Readable, Writable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const pg = require('pg')
const pgvector = require('pgvector/pg')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const ok = (what) => console.log('ok', what)

// node-postgres reads PGSSLROOTCERT only through a connection string, so it is told here.
const authority = process.env.PGSSLROOTCERT
const config = authority ? { ssl: { ca: fs.readFileSync(authority), servername: 'localhost' } } : { ssl: false }

async function fails (sqlstate, client, text, values) {
  try {
    await client.query(text, values)
  } catch (error) {
    assert.equal(error.code, sqlstate, `${text}: ${error.code} ${error.message}`)
    return error
  }
  assert.fail(`${text}: no error`)
}

async function types (client) {
  await client.query("SET TIME ZONE 'UTC'")
  await client.query(`CREATE TABLE js_types (i4 int, i8 bigint, f8 double precision, n numeric(10,2), t text, b boolean,
    y bytea, u uuid, d date, tz timestamptz, j jsonb)`)
  const moment = new Date('2024-02-29T12:00:00.123Z')
  const values = [-5, '9223372036854775807', 0.1, '12.34', "täxt 'q' \\", true, Buffer.from([0, 255, 39]),
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-02-29', moment, { a: [1, null] }]
  await client.query('INSERT INTO js_types VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)', values)
  const { rows: [row], fields } = await client.query('SELECT *, d::text AS day FROM js_types')
  assert.equal(row.i4, -5)
  assert.equal(row.i8, '9223372036854775807')
  assert.equal(row.f8, 0.1)
  assert.equal(row.n, '12.34')
  assert.equal(row.t, "täxt 'q' \\")
  assert.equal(row.b, true)
  assert.deepEqual(row.y, Buffer.from([0, 255, 39]))
  assert.equal(row.u, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')
  assert.equal(row.day, '2024-02-29')
  assert.equal(row.tz.getTime(), moment.getTime())
  assert.deepEqual(row.j, { a: [1, null] })
  assert.equal(fields.find((field) => field.name === 'i8').dataTypeID, 20)
  await client.query('INSERT INTO js_types (i4, t) VALUES ($1, $2)', [null, null])
  const nulls = await client.query('SELECT * FROM js_types WHERE i4 IS NULL')
  assert.equal(nulls.rows[0].t, null)
  // Numbers that fit are numbers: a count of int8 is a string, a literal of int4 is not.
  const literal = await client.query('SELECT 1 AS one, count(*) FROM js_types')
  assert.deepEqual(literal.rows, [{ one: 1, count: '2' }])
  ok('types')
}

async function vectors (client) {
  await client.query('CREATE TABLE js_items (id bigserial PRIMARY KEY, embedding vector(3))')
  for (const vector of [[1, 1, 1], [2, 2, 2], [1, 1, 2]]) {
    await client.query('INSERT INTO js_items (embedding) VALUES ($1)', [pgvector.toSql(vector)])
  }
  const query = { text: 'SELECT id, embedding, embedding <-> $1 AS d FROM js_items ORDER BY embedding <-> $1 LIMIT $2' }
  for (const name of [undefined, 'nearest', 'nearest', 'nearest']) {
    const { rows } = await client.query({ ...query, name, values: [pgvector.toSql([1, 1, 1.2]), 2] })
    assert.deepEqual(rows.map((row) => row.id), ['1', '3'])
    assert.deepEqual(rows[0].embedding, [1, 1, 1])
    assert.ok(Math.abs(rows[0].d - 0.2) < 1e-6)
  }
  await client.query('CREATE INDEX ON js_items USING hnsw (embedding vector_cosine_ops)')
  const { rows } = await client.query('SELECT id FROM js_items ORDER BY embedding <=> $1 LIMIT 1', [pgvector.toSql([1, 1, 2.1])])
  assert.equal(rows[0].id, '3')
  ok('registerTypes, insert, search, index')
}

async function copies (client) {
  await client.query('CREATE TABLE js_copy (id int, note text, embedding vector(2))')
  const lines = Array.from({ length: 1000 }, (_, n) => `${n}\tnote ${n}\t[${n},1]\n`)
  await pipeline(Readable.from(lines), client.query(copyFrom('COPY js_copy FROM STDIN')))
  let out = ''
  const sink = new Writable({ write (chunk, _, next) { out += chunk; next() } })
  await pipeline(client.query(copyTo('COPY (SELECT * FROM js_copy ORDER BY id) TO STDOUT')), sink)
  assert.equal(out, lines.join(''))
  await assert.rejects(pipeline(Readable.from(['1\tx\t[1]\n']), client.query(copyFrom('COPY js_copy FROM STDIN'))),
    (error) => error.code === '22000')
  const { rows } = await client.query('SELECT count(*) FROM js_copy')
  assert.equal(rows[0].count, '1000')
  ok('COPY both ways')
}

async function statements (client) {
  const results = await client.query('SELECT 1 AS a; SELECT 2 AS b')
  assert.deepEqual(results.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }])
  const empty = await client.query('')
  assert.equal(empty.rowCount, null)
  const insert = await client.query('INSERT INTO js_items (embedding) VALUES ($1), ($2) RETURNING id', ['[5,5,5]', '[6,6,6]'])
  assert.deepEqual([insert.command, insert.rowCount, insert.rows.length], ['INSERT', 2, 2])
  const update = await client.query('UPDATE js_items SET embedding = $1 WHERE id > $2', ['[7,7,7]', 3])
  assert.deepEqual([update.command, update.rowCount], ['UPDATE', 2])
  const array = await client.query({ text: 'SELECT 1, 1, $1::int[]', values: [[1, 2]], rowMode: 'array' })
  assert.deepEqual(array.rows, [[1, 1, [1, 2]]])
  const any = await client.query('SELECT count(*) FROM js_items WHERE id = ANY($1)', [[1, 2, 99]])
  assert.equal(any.rows[0].count, '2')
  // Queued without waiting, answered in order.
  const many = await Promise.all(Array.from({ length: 50 }, (_, n) => client.query('SELECT $1::int AS n', [n])))
  assert.deepEqual(many.map((result) => result.rows[0].n), Array.from({ length: 50 }, (_, n) => n))
  ok('several statements, command tags, arrays, queue')
}

async function errors (client) {
  const notices = []
  client.on('notice', (notice) => notices.push(notice.message))
  await client.query('DROP TABLE IF EXISTS js_never_was')
  assert.deepEqual(notices, ['table "js_never_was" does not exist, skipping'])
  await client.query('BEGIN')
  await fails('42703', client, 'SELECT nope FROM js_items')
  await fails('25P02', client, 'SELECT 1')
  await client.query('ROLLBACK')
  await fails('22000', client, 'INSERT INTO js_items (embedding) VALUES ($1)', ['[1,2]'])
  await fails('22P02', client, 'SELECT $1::vector', ['[1,x]'])
  await fails('42P01', client, 'SELECT * FROM nowhere')
  await client.query('SET statement_timeout = 200')
  await fails('57014', client, 'SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b')
  await client.query('RESET statement_timeout')
  const error = await fails('42703', client, 'SELECT nope FROM js_items')
  assert.equal(error.position, '8')
  ok('notices, errors, timeout')
}

async function pool () {
  const connections = new pg.Pool({ ...config, max: 4 })
  const sums = await Promise.all(Array.from({ length: 40 }, (_, n) => connections.query('SELECT $1::int + 1 AS n', [n])))
  assert.deepEqual(sums.map((result) => result.rows[0].n), Array.from({ length: 40 }, (_, n) => n + 1))
  await connections.end()
  ok('pool')
}

async function clean (client) {
  for (const name of ['types', 'items', 'copy']) await client.query(`DROP TABLE IF EXISTS js_${name}`)
}

async function main () {
  const client = new pg.Client(config)
  await client.connect()
  await client.query('CREATE EXTENSION IF NOT EXISTS vector')
  await clean(client)
  await pgvector.registerTypes(client)
  for (const step of [types, vectors, copies, statements, errors]) await step(client)
  await pool()
  await clean(client)
  await client.end()
  ok('node-postgres')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
