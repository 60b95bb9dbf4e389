package wall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/sql"
)

// A grant is one privilege of a role on one object, or on one column of it.
type grant struct {
	kind         string // database, schema, table, sequence or routine
	schema, name string // of a routine with its arguments, as PostgreSQL writes it
	column       string
	privilege    string
	option       bool // the role may give it on
}

// grants is a set.
type grants map[grant]bool

func (g grants) add(one grant) { g[one] = true }

// readGrants are the privileges that a role has by itself, but for those on what it owns and on what
// is temporary, which sessions can give to whom they like.
func readGrants(ctx context.Context, tx pgx.Tx, role string) (grants, error) {
	rows, err := tx.Query(ctx, `
		WITH r AS (SELECT oid FROM pg_roles WHERE rolname = $1), n AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname !~ '^pg_temp_')
		SELECT 'database', '', d.datname::text, '', a.privilege_type, a.is_grantable FROM r, pg_database d, aclexplode(d.datacl) a
			WHERE d.datname = current_database() AND a.grantee = r.oid AND d.datdba <> r.oid
		UNION ALL SELECT 'schema', '', n.nspname::text, '', a.privilege_type, a.is_grantable FROM r, n, aclexplode(n.nspacl) a
			WHERE a.grantee = r.oid AND n.nspowner <> r.oid
		UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname::text, c.relname::text, '', a.privilege_type, a.is_grantable
			FROM r, pg_class c JOIN n ON n.oid = c.relnamespace, aclexplode(c.relacl) a WHERE a.grantee = r.oid AND c.relowner <> r.oid
		UNION ALL SELECT 'table', n.nspname::text, c.relname::text, t.attname::text, a.privilege_type, a.is_grantable
			FROM r, pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN n ON n.oid = c.relnamespace, aclexplode(t.attacl) a
			WHERE a.grantee = r.oid AND c.relowner <> r.oid AND NOT t.attisdropped
		UNION ALL SELECT 'routine', n.nspname::text, p.oid::regprocedure::text, '', a.privilege_type, a.is_grantable
			FROM r, pg_proc p JOIN n ON n.oid = p.pronamespace, aclexplode(p.proacl) a WHERE a.grantee = r.oid AND p.proowner <> r.oid`, role)
	if err != nil {
		return nil, fmt.Errorf("read the privileges of %s: %w", role, err)
	}
	out := grants{}
	var g grant
	_, err = pgx.ForEachRow(rows, []any{&g.kind, &g.schema, &g.name, &g.column, &g.privilege, &g.option}, func() error {
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
	case "routine":
		return "ROUTINE " + g.name
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

// settle takes from a role what it should not have, and then gives it what it lacks: with a privilege
// on a table those on its columns go. What lies in a schema for which leave answers true is left as it
// is; what lies in the schemas of the owner is given by the owner. It is an error where something
// cannot be taken, for one that may grant it has.
func settle(ctx context.Context, tx pgx.Tx, role, owner string, want grants, leave func(schema string) bool) error {
	have, err := readGrants(ctx, tx, role)
	if err != nil {
		return err
	}
	change := func(verb, to string, these []grant) error {
		var statements []string
		for _, g := range these {
			text := g.statement(verb, to, role)
			if verb == "REVOKE" {
				text += " CASCADE" // from those, too, to whom the role has given it
			}
			if mine := strings.HasPrefix(g.in(), prefixOf(owner)); mine {
				text = "SET LOCAL ROLE " + sql.Quote(owner) + "; " + text + "; RESET ROLE"
			}
			statements = append(statements, text)
		}
		slices.Sort(statements)
		return exec(ctx, tx, statements...)
	}
	tooMuch := func() (out []grant) {
		for g := range have {
			if !want[g] && !leave(g.in()) {
				out = append(out, g)
			}
		}
		return out
	}
	if take := tooMuch(); len(take) > 0 {
		if err := change("REVOKE", "FROM", take); err != nil {
			return err
		}
		// A REVOKE leaves, without an error, what others than the object's owner have granted.
		if have, err = readGrants(ctx, tx, role); err != nil {
			return err
		}
		if left := tooMuch(); len(left) > 0 {
			return notOurs(role, left[0].privilege, left[0].object())
		}
	}
	var give []grant
	for g := range want {
		if !have[g] {
			give = append(give, g)
		}
	}
	if err := change("GRANT", "TO", give); err != nil {
		return err
	}
	return onlyThat(ctx, tx, role)
}

// onlyThat makes sure that a role has no privilege on what no task speaks of.
// A session may give those on objects of its own to any role, and keeps nobody out by that.
func onlyThat(ctx context.Context, tx pgx.Tx, role string) error {
	var object string
	err := tx.QueryRow(ctx, `
		WITH base AS (SELECT oid FROM pg_database WHERE datname = current_database()), other AS (SELECT oid FROM pg_roles WHERE NOT starts_with(rolname::text, 'postern_'))
		SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid, base
		WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'a' AND r.rolname = $1 AND d.dbid IN (0, base.oid) AND CASE d.classid
			WHEN 'pg_database'::regclass THEN d.objid <> base.oid
			WHEN 'pg_largeobject'::regclass THEN EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = d.objid AND m.lomowner IN (SELECT oid FROM other))
			WHEN 'pg_default_acl'::regclass THEN EXISTS (SELECT FROM pg_default_acl a WHERE a.oid = d.objid AND a.defaclrole IN (SELECT oid FROM other))
			ELSE d.classid IN ('pg_language'::regclass, 'pg_foreign_data_wrapper'::regclass, 'pg_foreign_server'::regclass, to_regclass('pg_parameter_acl'), 'pg_tablespace'::regclass) END
		ORDER BY 1 LIMIT 1`, role).Scan(&object)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("read the privileges of %s: %w", role, err)
	}
	return notOurs(role, "privileges", object)
}

func notOurs(role, privilege, object string) error {
	return fmt.Errorf("role %s has %s on %s: whoever granted that has to revoke it", role, privilege, object)
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
