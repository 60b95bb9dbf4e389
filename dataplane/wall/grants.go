package wall

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/sql"
)

// A grant is one privilege of a role on one object, or on one column of it.
type grant struct {
	kind         string // database, schema, table, sequence or function
	schema, name string // of a function with its arguments, as PostgreSQL writes it
	column       string
	privilege    string
}

// grants is a set.
type grants map[grant]bool

func (g grants) add(one grant) { g[one] = true }

// readGrants are the privileges that a role has by itself, but for those on what it owns.
func readGrants(ctx context.Context, tx pgx.Tx, role string) (grants, error) {
	rows, err := tx.Query(ctx, `
		WITH r AS (SELECT oid FROM pg_roles WHERE rolname = $1)
		SELECT 'database', '', d.datname::text, '', a.privilege_type FROM r, pg_database d, aclexplode(d.datacl) a
			WHERE d.datname = current_database() AND a.grantee = r.oid AND d.datdba <> r.oid
		UNION ALL SELECT 'schema', '', n.nspname::text, '', a.privilege_type FROM r, pg_namespace n, aclexplode(n.nspacl) a
			WHERE a.grantee = r.oid AND n.nspowner <> r.oid
		UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname::text, c.relname::text, '', a.privilege_type
			FROM r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a WHERE a.grantee = r.oid AND c.relowner <> r.oid
		UNION ALL SELECT 'table', n.nspname::text, c.relname::text, t.attname::text, a.privilege_type
			FROM r, pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(t.attacl) a
			WHERE a.grantee = r.oid AND c.relowner <> r.oid AND NOT t.attisdropped
		UNION ALL SELECT 'function', n.nspname::text, p.oid::regprocedure::text, '', a.privilege_type
			FROM r, pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) a WHERE a.grantee = r.oid AND p.proowner <> r.oid`, role)
	if err != nil {
		return nil, fmt.Errorf("read the privileges of %s: %w", role, err)
	}
	out := grants{}
	var g grant
	_, err = pgx.ForEachRow(rows, []any{&g.kind, &g.schema, &g.name, &g.column, &g.privilege}, func() error {
		out.add(g)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the privileges of %s: %w", role, err)
	}
	return out, nil
}

// object is what a GRANT names.
func (g grant) object() string {
	switch g.kind {
	case "database", "schema":
		return strings.ToUpper(g.kind) + " " + sql.Quote(g.name)
	case "function":
		return "FUNCTION " + g.name
	}
	return strings.ToUpper(g.kind) + " " + sql.Quote(g.schema) + "." + sql.Quote(g.name)
}

// in is the schema that the grant is about.
func (g grant) in() string {
	if g.kind == "schema" {
		return g.name
	}
	return g.schema
}

func (g grant) statement(verb, to, role string) string {
	privilege := g.privilege
	if g.column != "" {
		privilege += " (" + sql.Quote(g.column) + ")"
	}
	return verb + " " + privilege + " ON " + g.object() + " " + to + " " + sql.Quote(role)
}

// settle gives a role the privileges that it should have and takes all others. What lies
// in a schema for which leave answers true is left as it is; what lies in the schemas of
// the owner is given by the owner. It is an error where something cannot be taken, for one
// that may grant it has.
func settle(ctx context.Context, tx pgx.Tx, role, owner string, want grants, leave func(schema string) bool) error {
	have, err := readGrants(ctx, tx, role)
	if err != nil {
		return err
	}
	var statements []string
	change := func(g grant, text string) {
		if mine := strings.HasPrefix(g.in(), prefixOf(owner)); mine {
			text = "SET LOCAL ROLE " + sql.Quote(owner) + "; " + text + "; RESET ROLE"
		}
		statements = append(statements, text)
	}
	tooMuch := func(have grants) (out []grant) {
		for g := range have {
			if !want[g] && !leave(g.in()) {
				out = append(out, g)
			}
		}
		return out
	}
	take := tooMuch(have)
	for _, g := range take {
		change(g, g.statement("REVOKE", "FROM", role))
	}
	for g := range maps.Keys(want) {
		if !have[g] {
			change(g, g.statement("GRANT", "TO", role))
		}
	}
	slices.Sort(statements)
	if err := exec(ctx, tx, statements...); err != nil || len(take) == 0 {
		return err
	}
	// A REVOKE leaves, without an error, what others than the object's owner have granted.
	if have, err = readGrants(ctx, tx, role); err != nil {
		return err
	}
	if left := tooMuch(have); len(left) > 0 {
		return fmt.Errorf("role %s has %s on %s: whoever granted that has to revoke it", role, left[0].privilege, left[0].object())
	}
	return nil
}

// prefixOf is the part of a name that all names of its resource share.
func prefixOf(role string) string {
	parts := strings.SplitN(role, "_", 3)
	return strings.Join(parts[:min(len(parts), 2)], "_") + "_"
}

// exec runs statements one by one, without parameters.
func exec(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, s := range statements {
		if _, err := tx.Conn().PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", firstWords(s), err)
		}
	}
	return nil
}

// firstWords names a statement without what it says of anybody's secret.
func firstWords(s string) string {
	before, _, _ := strings.Cut(s, " PASSWORD ")
	return before
}
