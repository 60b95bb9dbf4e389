package postgres

import "testing"

// TestCatalogIsComparedBeforeItIsRead changes the target in every way that the catalogue
// would show, and in ways that it would not.
func TestCatalogIsComparedBeforeItIsRead(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `
		DROP SCHEMA IF EXISTS cat, cat2 CASCADE; CREATE SCHEMA cat;
		CREATE TABLE cat.t (id int, a text, b text); CREATE TABLE cat.child (id int, a text, b text);
		CREATE FUNCTION cat.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION cat.trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA IF EXISTS cat, cat2 CASCADE`) })
	h := newHouse(t)
	_ = h.connect(t, "")
	s := h.door.Last()
	key := catalogKey(s.Terms())
	get := func() *catalog {
		t.Helper()
		h.engine.catalogs.expire(key)
		c, err := h.engine.catalogs.get(testContext(t), key, s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := get()
	for _, change := range []string{
		`CREATE TABLE cat.new (id int)`, `ALTER TABLE cat.t RENAME a TO c; ALTER TABLE cat.t RENAME b TO a`, `ALTER TABLE cat.t ADD d int`,
		`ALTER TABLE cat.t DROP d`, `ALTER TABLE cat.t ALTER c TYPE varchar(7)`, `ALTER TABLE cat.child RENAME b TO d; ALTER TABLE cat.child RENAME a TO b; ALTER TABLE cat.child RENAME d TO c; ALTER TABLE cat.child RENAME b TO a`,
		`ALTER TABLE cat.child ALTER c TYPE varchar(7), ALTER a TYPE text; ALTER TABLE cat.child INHERIT cat.t`, `ALTER TABLE cat.child NO INHERIT cat.t`,
		`ALTER FUNCTION cat.f() VOLATILE SECURITY DEFINER`, `CREATE TRIGGER tr BEFORE INSERT ON cat.t FOR EACH ROW EXECUTE FUNCTION cat.trig()`,
		`DROP TRIGGER tr ON cat.t`, `CREATE RULE ru AS ON INSERT TO cat.t DO ALSO SELECT 1`, `CREATE TYPE cat.mood AS ENUM ('x')`, `CREATE DOMAIN cat.dom AS int`,
		`CREATE OPERATOR cat.@@@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)`, `CREATE VIEW cat.v AS SELECT id FROM cat.t`, `ALTER SCHEMA cat RENAME TO cat2`, `DROP TABLE cat2.new`,
	} {
		shared.pg.SQL(t, change)
		after := get()
		if after == before || after.Version == before.Version {
			t.Errorf("%s was not noticed", change)
		}
		before = after
	}
	shared.pg.SQL(t, `ANALYZE cat2.t`) // forgets that there was a child
	before = get()
	for _, nothing := range []string{
		`INSERT INTO cat2.t SELECT i FROM generate_series(1, 1000) i`, `ANALYZE cat2.t`, `VACUUM cat2.t`, `SELECT 1`, `CREATE TEMP TABLE x AS SELECT 1 AS a; CREATE TEMP VIEW y AS SELECT 1`,
	} {
		_ = h.connect(t, "") // a session of its own, so that what was sent is of it alone
		s = h.door.Last()
		shared.pg.SQL(t, nothing)
		if after := get(); after != before {
			t.Errorf("%s made another catalogue", nothing)
		}
		if !s.Sent(askState) || s.Sent(askColumns) {
			t.Errorf("%s: the whole catalogue was read", nothing)
		}
	}
}
