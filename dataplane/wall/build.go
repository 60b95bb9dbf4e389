package wall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// loginGroup has every login that walls make as its member, and no privilege: for
// pg_hba.conf to name, which no SQL can change.
const loginGroup = "postern_login"

// inTx runs fn in a transaction of its own, one wall of the server at a time. They wait for
// each other where the role of all logins is commented on, which sessions may not do; an
// advisory lock any of them could keep. To take away a comment that is not there writes nothing.
func inTx(ctx context.Context, conn *pgx.Conn, fn func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := ensureRole(ctx, tx, loginGroup); err != nil {
			return err
		}
		if err := exec(ctx, tx, "COMMENT ON ROLE "+loginGroup+" IS NULL"); err != nil {
			return fmt.Errorf("wait for other walls: %w", err)
		}
		return fn(tx)
	})
}

// build makes the target what a task asks for, in one transaction: it may be asked again
// and again, and changes only what differs. old are schemas of the task that its sessions
// may still use; spare says whether a filtered view stays, told whether a login may read it.
func build(ctx context.Context, conn *pgx.Conn, w policy.Wall, old map[string]bool, spare func(view string, read bool) bool) error {
	err := inTx(ctx, conn, func(tx pgx.Tx) error {
		for _, role := range []string{w.Owner, w.Role} {
			if err := ensureRole(ctx, tx, role); err != nil {
				return err
			}
		}
		t, err := readTables(ctx, tx, w)
		if err != nil {
			return err
		}
		var views []view
		for _, one := range w.Views {
			if one.Filtered {
				continue
			}
			v, err := viewOf(one.Rule, t)
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		want, err := taskGrants(ctx, tx, w, t)
		if err != nil {
			return err
		}
		owns, err := ownerGrants(w, t)
		if err != nil {
			return err
		}
		nothing := func(string) bool { return false }
		if err := settle(ctx, tx, w.Owner, w.Owner, owns, nothing); err != nil {
			return err
		}
		if err := ensureViews(ctx, tx, w, views, spare); err != nil {
			return err
		}
		return settle(ctx, tx, w.Role, w.Owner, want, func(schema string) bool { return old[schema] })
	})
	if err != nil {
		return fmt.Errorf("build the wall of task %s: %w", w.Task, err)
	}
	return nil
}

// ensureRole makes a role that cannot log in and is a member of nothing.
func ensureRole(ctx context.Context, tx pgx.Tx, role string) error {
	var odd bool
	look := func() error {
		return tx.QueryRow(ctx, `SELECT rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
			FROM pg_roles WHERE rolname = $1`, role).Scan(&odd)
	}
	err := look()
	if errors.Is(err, pgx.ErrNoRows) {
		if err := makeRole(ctx, tx, role); err != nil {
			return err
		}
		err = look()
	}
	switch {
	case err != nil:
		return fmt.Errorf("look at role %s: %w", role, err)
	case odd:
		return fmt.Errorf("role %s has attributes that somebody else gave it; drop it, and it is made anew", role)
	}
	if err := own(ctx, tx, role); err != nil {
		return err
	}
	groups, err := takeGroups(ctx, tx, role)
	if err == nil && len(groups) > 0 {
		err = fmt.Errorf("role %s is a member of %s: whoever granted that has to revoke it", role, strings.Join(groups, ", "))
	}
	return err
}

// takeGroups takes from a role all that it is a member of, and returns what is left: since PostgreSQL 16
// only what the wall itself would have granted can be taken.
func takeGroups(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	groups, err := groupsOf(ctx, tx, role)
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	for _, g := range groups {
		if err := exec(ctx, tx, "REVOKE "+g+" FROM "+sql.Quote(role)); err != nil {
			return nil, err
		}
	}
	return groupsOf(ctx, tx, role)
}

// makeRole makes a role, or finds that somebody else has just made it: before there is a first
// role, walls of one server have nothing to wait for each other at.
func makeRole(ctx context.Context, tx pgx.Tx, role string) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return exec(ctx, tx, "CREATE ROLE "+sql.Quote(role)+" NOLOGIN") })
	if hasCode(err, "42710") || hasCode(err, "23505") { // duplicate object, unique violation
		return nil
	}
	return err
}

// lockNotAvailable says that somebody has something locked for longer than lock_timeout.
const lockNotAvailable = "55P03"

// hasCode reports whether an error is one of the target's, with this SQLSTATE.
func hasCode(err error, code string) bool {
	pg := new(pgconn.PgError)
	return errors.As(err, &pg) && pg.Code == code
}

// groupsOf are the roles that a role is a member of, as PostgreSQL writes them.
func groupsOf(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT m.roleid::regrole::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = $1`, role)
	if err != nil {
		return nil, fmt.Errorf("look at role %s: %w", role, err)
	}
	groups, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look at role %s: %w", role, err)
	}
	return groups, nil
}

// own lets an admin who is no superuser act for a role that it has made.
func own(ctx context.Context, tx pgx.Tx, role string) error {
	var mine bool
	if err := tx.QueryRow(ctx, "SELECT pg_has_role(current_user, $1::name, 'USAGE')", role).Scan(&mine); err != nil {
		return fmt.Errorf("look at role %s: %w", role, err)
	}
	if mine {
		return nil
	}
	return exec(ctx, tx, "GRANT "+sql.Quote(role)+" TO CURRENT_USER")
}

// ensureViews makes the schema and its views as the task's owner, and drops what is not
// one of them.
func ensureViews(ctx context.Context, tx pgx.Tx, w policy.Wall, views []view, spare func(view string, read bool) bool) error {
	if len(w.Views) == 0 {
		return nil
	}
	var owner string
	err := tx.QueryRow(ctx, "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = $1", w.Schema).Scan(&owner)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if err := exec(ctx, tx, "CREATE SCHEMA "+sql.Quote(w.Schema)+" AUTHORIZATION "+sql.Quote(w.Owner)); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("look at schema %s: %w", w.Schema, err)
	case owner != w.Owner:
		return fmt.Errorf("schema %s belongs to %s and not to %s; drop it, and it is made anew", w.Schema, owner, w.Owner)
	}
	have, err := readViews(ctx, tx, w)
	if err != nil {
		return err
	}
	var statements []string
	quoted := func(name string) string { return sql.Quote(w.Schema) + "." + sql.Quote(name) }
	for _, name := range sortedKeys(have) {
		used := policy.Filtered(name) && have[name].hash != "" && spare(w.Schema+"."+name, have[name].granted)
		if !used && !slices.ContainsFunc(views, func(v view) bool { return v.name == name && have[name].hash == v.hash() }) {
			statements = append(statements, "DROP VIEW "+quoted(name))
		}
	}
	var made []view
	for _, v := range views {
		if have[v.name].hash != v.hash() {
			statements = append(statements, v.text)
			made = append(made, v)
		}
	}
	return remake(ctx, tx, w, statements, made)
}

// remake runs statements as the owner, and marks the views that they have made.
func remake(ctx context.Context, tx pgx.Tx, w policy.Wall, statements []string, made []view) error {
	if len(statements) == 0 {
		return nil
	}
	statements = append([]string{"SET LOCAL ROLE " + sql.Quote(w.Owner)}, append(statements, "RESET ROLE")...)
	if err := exec(ctx, tx, statements...); err != nil {
		return err
	}
	for _, v := range made {
		if err := mark(ctx, tx, w, v); err != nil {
			return err
		}
	}
	return nil
}

// show makes the views of one subject's rows, and lets the subject's login read them.
func show(ctx context.Context, tx pgx.Tx, w policy.Wall, rules []*postern.TableRule, login string) error {
	if len(rules) == 0 {
		return nil
	}
	t, err := readTables(ctx, tx, w)
	if err != nil {
		return err
	}
	have, err := readViews(ctx, tx, w)
	if err != nil {
		return err
	}
	var statements []string
	var made []view
	for _, rule := range rules {
		v, err := viewOf(rule, t)
		if err != nil {
			return err
		}
		quoted := sql.Quote(w.Schema) + "." + sql.Quote(v.name)
		if old, there := have[v.name]; old.hash != v.hash() {
			if there {
				statements = append(statements, "DROP VIEW "+quoted)
			}
			statements = append(statements, v.text)
			made = append(made, v)
		}
		statements = append(statements, "GRANT SELECT ON TABLE "+quoted+" TO "+sql.Quote(login))
	}
	return remake(ctx, tx, w, statements, made)
}

// marked is how a view as the target shows it is summed up: whoever changes it changes
// this too.
const marked = `md5(pg_get_viewdef(c.oid) || coalesce(c.reloptions::text, '') || pg_get_userbyid(c.relowner))`

// mark notes beside a view what it was made from and what the target made of it.
func mark(ctx context.Context, tx pgx.Tx, w policy.Wall, v view) error {
	var sum string
	err := tx.QueryRow(ctx, `SELECT `+marked+` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`, w.Schema, v.name).Scan(&sum)
	if err != nil {
		return fmt.Errorf("look at view %s: %w", v.name, err)
	}
	return exec(ctx, tx, "SET LOCAL ROLE "+sql.Quote(w.Owner),
		"COMMENT ON VIEW "+sql.Quote(w.Schema)+"."+sql.Quote(v.name)+" IS 'postern "+v.hash()+" "+sum+"'", "RESET ROLE")
}

// A standing view is one that a wall's schema has.
type standing struct {
	hash    string // of the text that it was made from; empty where somebody has changed it since
	granted bool   // somebody but its owner may read it
}

// readViews are the views of a wall's schema, by name.
func readViews(ctx context.Context, tx pgx.Tx, w policy.Wall) (map[string]standing, error) {
	rows, err := tx.Query(ctx, `SELECT c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), ''), `+marked+`,
			EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'v'`, w.Schema)
	if err != nil {
		return nil, fmt.Errorf("look at schema %s: %w", w.Schema, err)
	}
	out := map[string]standing{}
	var name, comment, sum string
	var granted bool
	_, err = pgx.ForEachRow(rows, []any{&name, &comment, &sum, &granted}, func() error {
		v := standing{granted: granted}
		if fields := strings.Fields(comment); len(fields) == 3 && fields[0] == "postern" && fields[2] == sum {
			v.hash = fields[1]
		}
		out[name] = v
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at schema %s: %w", w.Schema, err)
	}
	return out, nil
}
