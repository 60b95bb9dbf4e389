// What object mappers of Node.js see of a database when they describe it, and a report by each.
// Packages come from NODE_PATH.
const fs = require('node:fs')
require('reflect-metadata')
const { Op, Sequelize } = require('sequelize')
const { DataSource, EntitySchema } = require('typeorm')
const knex = require('knex')

const env = process.env
const ssl = { ca: fs.readFileSync(env.PGSSLROOTCERT) }
const show = (name, value) => console.log(name, JSON.stringify(value))

async function sequelize() {
  const db = new Sequelize(env.PGDATABASE, env.PGUSER, env.PGPASSWORD, { dialect: 'postgres', host: env.PGHOST, port: env.PGPORT, dialectOptions: { ssl }, logging: false })
  const ask = db.getQueryInterface()
  show('schemas', await ask.showAllSchemas())
  show('tables', await ask.showAllTables())
  for (const tableName of ['orders', 'customers']) {
    const table = { tableName, schema: 'sales' }
    const columns = await ask.describeTable(table)
    if (!columns.id?.primaryKey) throw new Error(`${tableName} is described as ${JSON.stringify(columns)}`)
    show(tableName, columns)
    show('indexes', await ask.showIndex(table))
    show('keys', await ask.getForeignKeyReferencesForTable(table))
  }
  const Customer = db.define('customer', { name: Sequelize.STRING, email: Sequelize.STRING }, { schema: 'sales', timestamps: false })
  show('found', await db.transaction((transaction) => Customer.findAndCountAll({ where: { id: { [Op.lt]: 9 } }, order: ['id'], limit: 2, transaction })))
  await db.close()
}

async function typeorm() {
  const customer = new EntitySchema({ name: 'customers', schema: 'sales', columns: { id: { type: Number, primary: true }, name: { type: String }, email: { type: String } } })
  const db = await new DataSource({ type: 'postgres', host: env.PGHOST, port: env.PGPORT, username: env.PGUSER, password: env.PGPASSWORD, database: env.PGDATABASE, ssl, entities: [customer] }).initialize()
  const ask = db.createQueryRunner()
  for (const table of ['sales.orders', 'sales.customers']) show(table, { ...(await ask.getTable(table)), '@instanceof': undefined })
  show('tables', (await ask.getTables()).map((t) => t.name))
  show('views', await ask.getViews())
  show('there', [await ask.hasTable('sales.orders'), await ask.hasColumn('sales.orders', 'amount')])
  show('found', await db.getRepository('customers').findAndCount({ order: { id: 'ASC' }, take: 2 }))
  await ask.release()
  await db.destroy()
}

async function byKnex() {
  const db = knex({ client: 'pg', connection: { ssl }, pool: { min: 0 } })
  show('columns', await db('orders').withSchema('sales').columnInfo())
  show('there', [await db.schema.withSchema('sales').hasTable('orders'), await db.schema.withSchema('sales').hasColumn('orders', 'amount')])
  show('found', await db.transaction((tx) => tx('sales.customers').orderBy('id').first('id', 'email'), { isolationLevel: 'repeatable read', readOnly: true }))
  await db.destroy()
}

sequelize().then(typeorm).then(byKnex).catch((e) => {
  console.error(e)
  process.exit(1)
})
