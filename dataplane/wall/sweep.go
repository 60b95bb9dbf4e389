package wall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// schemasOf are the schemas that were made for a resource, with their owners.
func schemasOf(ctx context.Context, conn *pgx.Conn, r postern.ResourceName) (map[string]string, error) {
	rows, err := conn.Query(ctx, `SELECT nspname::text, pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE starts_with(nspname::text, $1)`, policy.WallPrefix(r))
	if err != nil {
		return nil, fmt.Errorf("look for schemas: %w", err)
	}
	out := map[string]string{}
	var schema, owner string
	_, err = pgx.ForEachRow(rows, []any{&schema, &owner}, func() error { out[schema] = owner; return nil })
	if err != nil {
		return nil, fmt.Errorf("look for schemas: %w", err)
	}
	return out, nil
}

// sweep takes away what nobody asks for any more: logins whose time is over, schemas of
// earlier revisions but for those of old, and roles of tasks that are gone. What is in
// use is left to the next sweep.
func sweep(ctx context.Context, conn *pgx.Conn, r postern.ResourceName, walls []policy.Wall, old map[string]bool) error {
	var errs []error
	logins, err := expired(ctx, conn, r)
	errs = append(errs, err)
	for _, l := range logins {
		errs = append(errs, dropLogin(ctx, conn, l))
	}
	wanted := map[string]bool{}
	for _, w := range walls {
		wanted[w.Schema], wanted[w.Role], wanted[w.Owner] = true, true, true
	}
	schemas, err := schemasOf(ctx, conn, r)
	errs = append(errs, err)
	for _, s := range sortedKeys(schemas) {
		if !wanted[s] && !old[s] {
			// While this waits for a session that reads, nobody gets a login.
			err := inTx(ctx, conn, func(tx pgx.Tx) error {
				return exec(ctx, tx, "SET LOCAL lock_timeout = '100ms'", "DROP SCHEMA "+sql.Quote(s)+" CASCADE")
			})
			if !hasCode(err, lockNotAvailable) {
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, sweepRoles(ctx, conn, r, wanted))
	return errors.Join(errs...)
}

// sweepRoles takes the privileges of tasks that are gone at once, and drops their roles
// when no login is a member any more.
func sweepRoles(ctx context.Context, conn *pgx.Conn, r postern.ResourceName, wanted map[string]bool) error {
	rows, err := conn.Query(ctx, `SELECT r.rolname::text, EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles l ON l.oid = m.member WHERE m.roleid = r.oid AND l.rolname <> current_user)
		FROM pg_roles r WHERE starts_with(r.rolname::text, $1)`, policy.WallPrefix(r))
	if err != nil {
		return fmt.Errorf("look for roles: %w", err)
	}
	used := map[string]bool{}
	var name string
	var members bool
	if _, err = pgx.ForEachRow(rows, []any{&name, &members}, func() error { used[name] = members; return nil }); err != nil {
		return fmt.Errorf("look for roles: %w", err)
	}
	var errs []error
	for _, role := range sortedKeys(used) {
		if wanted[role] || strings.HasPrefix(role, loginPrefix(r)) {
			continue
		}
		errs = append(errs, inTx(ctx, conn, func(tx pgx.Tx) error {
			if err := own(ctx, tx, role); err != nil {
				return err
			}
			return exec(ctx, tx, "DROP OWNED BY "+sql.Quote(role)+" CASCADE")
		}))
		if !used[role] { // it stays where something in another database is its own
			errs = append(errs, inTx(ctx, conn, func(tx pgx.Tx) error { return exec(ctx, tx, "DROP ROLE "+sql.Quote(role)) }))
		}
	}
	return errors.Join(errs...)
}
