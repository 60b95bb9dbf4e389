package drivers

// jdbcFacts are what pgJDBC tells beside the common facts. Where a change of policy
// makes a statement stale that the driver has prepared at the server, the driver does as
// it does for a table that was altered: outside a transaction it prepares the statement
// again and nobody notices. Inside one, with its default autosave=never, the program gets
// 0A000 once and 25P02 until it rolls back, and then all is well; with
// autosave=conservative or always the driver heals that too.
var jdbcFacts = facts{
	"masked.binary": common["masked.binary"],
	"types":         "17 equal", "types.null": "16 NULL", "types.binary": "17 equal", "types.null.binary": "16 NULL",
	"simple-mode": "1=*** 2=***",
	"valid":       "true",

	"changed.in-transaction":        "0A000 25P02",
	"changed.after-rollback":        "###",
	"changed.autosave-conservative": "###",
	"changed.autosave-always":       "###",

	"meta.server":          "PostgreSQL true",
	"meta.schemas":         "sales",
	"meta.catalogs":        "true",
	"meta.tables":          "customers=TABLE orders=TABLE regions=TABLE",
	"meta.columns":         "id=int4=NO customer_id=int4=NO customer_email=text=NO amount=numeric=NO status=text=NO created_at=timestamptz=NO",
	"meta.primary":         "id",
	"meta.imported":        "customer_id=customers=id",
	"meta.exported":        "customers",
	"meta.indexes":         "orders_pkey orders_customer",
	"meta.row-id":          "id",
	"meta.types":           "true",
	"meta.table-types":     "true",
	"meta.functions":       "",
	"meta.procedures":      "",
	"meta.privileges":      "true",
	"meta.keywords":        "true",
	"meta.name-length":     "63",
	"meta.functions-known": "true",
	"meta.result":          "orders 0 false 12,2 text",
	"meta.parameters":      "int4 text",
	"meta.prepared":        "email text",
}
