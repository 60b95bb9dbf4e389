// node-postgres. Packages come from NODE_PATH.
const fs = require('node:fs')
const readline = require('node:readline')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')

const env = process.env
const fact = (name, value) => console.log(`${name}\t${value}`)
const tls = (ca) => ({ ca: fs.readFileSync(ca) }) // host, port, user, database and password are read from PG*
const one = { name: 'one-email', text: 'SELECT email FROM customers WHERE id = $1', values: [900001] }

async function failure(promise) {
  try {
    await promise
  } catch (e) {
    return e
  }
  return { code: 'no error' }
}

async function report(lines) {
  const stranger = new Client({ ssl: tls(env.WRONG_CA) })
  const e = await failure(stranger.connect())
  fact('wrong-ca', /certificate/.test(e.message) ? 'refused' : e)

  const c = new Client({ ssl: tls(env.PGSSLROOTCERT) })
  await c.connect()
  const regions = await c.query('SELECT code, name FROM regions ORDER BY code')
  fact('simple', regions.rows.map((r) => `${r.code}=${r.name}`).join(' '))
  const several = await c.query('SELECT 1 AS a; SELECT 2 AS b')
  fact('simple.several', several.map((r) => Object.entries(r.rows[0])).join(' '))

  let n = 0
  let sum = 0
  for (let i = 1; i <= 20; i++) {
    const r = await c.query({ name: 'order', text: 'SELECT id FROM orders WHERE id = $1', values: [i] })
    n += r.rowCount
    sum += r.rows[0].id
  }
  fact('prepared', `${n} rows, ${sum}`)
  const count = await c.query('SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2::text IS NULL OR status = $2)', [[1, 2, 3], null])
  fact('parameters', count.rows[0].count)

  const masked = { text: 'SELECT email, card FROM customers WHERE id = 900001', rowMode: 'array' }
  fact('masked.text', (await c.query(masked)).rows[0].join(' '))
  fact('masked.binary', (await c.query({ ...masked, text: masked.text.replace('900001', '$1'), values: [900001], binary: true })).rows[0].join(' '))
  const nulls = await c.query('SELECT card, country FROM customers WHERE id = 900002')
  fact('nulls', `${nulls.rows[0].card} ${nulls.rows[0].country}`)

  const cursor = c.query(new Cursor('SELECT id FROM orders ORDER BY id'))
  let streamed = 0
  for (let rows; (rows = await cursor.read(50)).length > 0; ) streamed += rows.length
  await cursor.close()
  fact('stream', streamed)

  await c.query('BEGIN')
  await c.query('SELECT 1')
  const no = await failure(c.query('SELECT salary FROM hr.salaries'))
  for (const [name, value] of Object.entries({ state: no.code, message: no.message, detail: no.detail, hint: no.hint })) fact(`refused.${name}`, value)
  fact('failed-transaction', (await failure(c.query('SELECT $1::int', [1]))).code)
  await c.query('ROLLBACK')
  fact('after-rollback', (await c.query('SELECT count(*) FROM regions')).rows[0].count)
  fact('server-error', (await failure(c.query('SELECT 1 / (id - id) FROM orders WHERE id = $1', [1]))).code)

  await c.query(one)
  fact('change-policy', '')
  await lines.next()
  // A named statement is parsed once a connection; the driver leaves a stale one to the program.
  const stale = await failure(c.query(one))
  fact('changed.error', `${stale.code} ${stale.message}`)
  fact('changed', (await c.query({ ...one, name: 'one-email-again' })).rows[0].email)
  await c.end()
}

async function shop() {
  const pool = new Pool({ ssl: tls(env.PGSSLROOTCERT), user: env.SHOP_USER, database: 'shop', max: 2 })
  const want = {
    mood: 'glad', cents: 250, flag: true, big: String(2 ** 40), small: -7, ratio: 0.25, price: '12.50',
    at: new Date('2026-01-02T03:04:05Z'), doc: { a: [1, 2] }, key: '6f1c6a0e-0f4b-4c53-9c1e-3f8f6a3a2b11',
    raw: Buffer.from([0, 1, 255]), tags: ['a', 'b"c', null], secret: '***', salary: null,
  }
  const columns = Object.keys(want).join(', ')
  for (const [name, id] of [['types', 1], ['types.null', 2]]) {
    const { rows } = await pool.query(`SELECT ${columns} FROM things WHERE id = $1`, [id])
    const wrong = Object.entries(rows[0]).filter(([k, v]) => JSON.stringify(v) !== JSON.stringify(id === 1 || k === 'secret' ? want[k] : null))
    fact(name, JSON.stringify(wrong) === '[]' ? `${Object.keys(rows[0]).length} equal` : JSON.stringify(wrong))
  }

  const c = await pool.connect()
  const insert = async () => {
    let n = 0
    for (let i = 0; i < 10; i++) n += (await c.query('INSERT INTO notes (driver, n, body) VALUES ($1, $2, $3)', ['pg', i, `note ${i}`])).rowCount
    return n
  }
  await c.query('BEGIN')
  const inserted = await insert()
  await c.query('ROLLBACK')
  await insert()
  const updated = await c.query('UPDATE notes SET body = $1 WHERE driver = $2 AND n < 5 RETURNING n', [null, 'pg'])
  const deleted = await c.query("DELETE FROM notes WHERE driver = 'pg'")
  fact('write', `${inserted} ${updated.rows.length} ${deleted.rowCount}`)
  await c.query('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY')
  fact('isolation', (await c.query('SHOW transaction_isolation')).rows[0].transaction_isolation)
  await c.query('COMMIT')
  c.release()
  await pool.end()
}

async function main() {
  const input = readline.createInterface({ input: process.stdin })
  await report(input[Symbol.asyncIterator]())
  await shop()
  input.close()
}

main().catch((e) => {
  console.error(e)
  process.exit(1)
})
