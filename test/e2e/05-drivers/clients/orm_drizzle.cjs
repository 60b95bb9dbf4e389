// Drizzle over node-postgres. Packages come from NODE_PATH.
const fs = require('node:fs')
const { Pool } = require('pg')
const { drizzle } = require('drizzle-orm/node-postgres')
const { integer, numeric, pgSchema, pgTable, primaryKey, text } = require('drizzle-orm/pg-core')
const { and, asc, count, eq, inArray, isNotNull, lt, relations, sql } = require('drizzle-orm')

const env = process.env
const fact = (name, value) => console.log(`${name}\t${value}`)
const ssl = { ca: fs.readFileSync(env.PGSSLROOTCERT) }

const customers = pgTable('customers', { id: integer().primaryKey(), name: text(), email: text(), card: text(), country: text() })
const orders = pgTable('orders', { id: integer().primaryKey(), customerId: integer('customer_id'), amount: numeric(), status: text() })
const notes = pgTable('notes', { driver: text(), n: integer(), body: text() }, (t) => [primaryKey({ columns: [t.driver, t.n] })])
const salaries = pgSchema('hr').table('salaries', { employee: text().primaryKey(), salary: integer() })
const schema = {
  customers, orders,
  customersOrders: relations(customers, ({ many }) => ({ orders: many(orders) })),
  ordersCustomer: relations(orders, ({ one }) => ({ customer: one(customers, { fields: [orders.customerId], references: [customers.id] }) })),
}

async function report() {
  const pool = new Pool({ ssl, max: 2 })
  const db = drizzle(pool, { schema })
  const some = await db.query.orders.findMany({ with: { customer: true }, where: inArray(orders.status, ['open', 'paid']), orderBy: asc(orders.id), limit: 3 })
  some.forEach((o, i) => fact(`order.${i}`, `${o.id} ${o.status} ${o.customer.email}`))
  const groups = await db.select({ country: customers.country, n: count() }).from(orders).innerJoin(customers, eq(customers.id, orders.customerId))
    .where(isNotNull(customers.country)).groupBy(customers.country).having(sql`count(*) > ${5}`).orderBy(customers.country)
  fact('countries', groups.length)
  const c = await db.query.customers.findFirst({ with: { orders: true }, where: eq(customers.id, 900001) })
  fact('masked', `${c.email} ${c.card}`)
  fact('orders', c.orders.length)
  fact('found by a masked value', await db.$count(customers, eq(customers.email, 'canary@leak.example')))
  try {
    await db.select().from(salaries)
  } catch (e) {
    fact('refused', `${e.cause.code} ${e.cause.message}`)
  }
  await pool.end()
}

async function shop() {
  const pool = new Pool({ ssl, user: env.SHOP_USER, database: 'shop', max: 2 })
  const db = drizzle(pool)
  const ours = eq(notes.driver, 'orm')
  await db.insert(notes).values(Array.from({ length: 10 }, (_, n) => ({ driver: 'orm', n, body: `note ${n}` })))
  fact('created', await db.$count(notes, ours))
  await db.insert(notes).values({ driver: 'orm', n: 3, body: 'again' }).onConflictDoUpdate({ target: [notes.driver, notes.n], set: { body: sql`excluded.body` } })
  fact('updated', (await db.update(notes).set({ body: null }).where(and(ours, lt(notes.n, 3))).returning()).length)
  fact('upserted', (await db.select().from(notes).where(and(ours, eq(notes.n, 3))))[0].body)
  const undone = new Error('undone')
  const said = await db.transaction(async (tx) => {
    await tx.delete(notes).where(ours)
    await tx.transaction((inner) => inner.insert(notes).values({ driver: 'orm', n: 99 })) // a savepoint
    throw undone
  }).catch((e) => e)
  fact('undone', said === undone)
  fact('deleted', (await db.delete(notes).where(ours)).rowCount)
  await pool.end()
}

report().then(shop).catch((e) => {
  console.error(e)
  process.exit(1)
})
