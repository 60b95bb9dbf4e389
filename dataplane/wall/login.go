package wall

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// verifierForm is what PostgreSQL keeps in a password's place.
var verifierForm = regexp.MustCompile(`^SCRAM-SHA-256\$[0-9]{1,7}:[A-Za-z0-9+/=]{1,64}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}$`)

// leaseForm is what the control plane calls a lease.
var leaseForm = regexp.MustCompile(`^l-([a-z0-9]{8,32})$`)

// loginName is the login of a lease.
func loginName(r postern.ResourceName, lease string) (string, error) {
	m := leaseForm.FindStringSubmatch(lease)
	if m == nil {
		return "", errors.New("the lease has no name that a login could have")
	}
	return loginPrefix(r) + m[1], nil
}

func loginPrefix(r postern.ResourceName) string { return policy.WallPrefix(r) + "l_" }

// connections of one login: the session's own, one on which its node asks the planner, and those of
// before that have not quite ended.
const connections = 4

// makeLogin makes the login of one session: a member of the task's role, for a few
// connections, until an instant. Made again it gets the new password. Rules are those of its
// subject's rows.
func makeLogin(ctx context.Context, conn *pgx.Conn, w policy.Wall, rules []*postern.TableRule, login, verifier string, until time.Time) error {
	if !verifierForm.MatchString(verifier) {
		return errors.New("this is no SCRAM-SHA-256 verifier")
	}
	err := inTx(ctx, conn, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", login).Scan(&there); err != nil {
			return err
		}
		verb, in := "CREATE", " IN ROLE "+sql.Quote(w.Role)+", "+loginGroup
		if there {
			verb, in = "ALTER", ""
		}
		err := exec(ctx, tx, fmt.Sprintf("%s ROLE %s LOGIN CONNECTION LIMIT %d VALID UNTIL '", verb, sql.Quote(login), connections)+until.UTC().Format(time.RFC3339)+"' PASSWORD '"+verifier+"'"+in)
		if err != nil {
			return err
		}
		if err := own(ctx, tx, login); err != nil {
			return err
		}
		return show(ctx, tx, w, rules, login)
	})
	if err != nil {
		return fmt.Errorf("make login %s: %w", login, err)
	}
	return nil
}

// endTime is how long dropping a login waits for its connections to end.
const endTime = 2 * time.Second

// closeTries is how often a login is closed behind sessions that came in while others ended.
const closeTries = 3

// dropLogin ends a login and whatever runs under it. One that is gone is no error. A session
// may change its own password, and so keep the row of its login locked for as long as it
// lives. So it is ended before its login is closed, and before that is left with nothing, which it
// cannot hold up.
func dropLogin(ctx context.Context, conn *pgx.Conn, login string) error {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", login).Scan(&there); err != nil {
		return fmt.Errorf("look for login %s: %w", login, err)
	}
	if !there {
		return nil
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := own(ctx, tx, login); err != nil {
			return err
		}
		_, err := takeGroups(ctx, tx, login)
		return err
	})
	if err == nil {
		err = closeLogin(ctx, conn, login)
	}
	if err != nil {
		return fmt.Errorf("close login %s: %w", login, err)
	}
	quoted := sql.Quote(login)
	if err := dropElsewhere(ctx, conn, login); err != nil {
		return fmt.Errorf("drop what login %s has made: %w", login, err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return exec(ctx, tx, "DROP OWNED BY "+quoted+" CASCADE", "DROP ROLE "+quoted) })
	if err != nil {
		return fmt.Errorf("drop login %s: %w", login, err)
	}
	return nil
}

// closeLogin ends the sessions of a login, and lets nobody in any more.
func closeLogin(ctx context.Context, conn *pgx.Conn, login string) error {
	for try := 1; ; try++ {
		if err := endSessions(ctx, conn, login); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "ALTER ROLE "+sql.Quote(login)+" NOLOGIN")
		if err == nil {
			return endSessions(ctx, conn, login)
		}
		if !hasCode(err, lockNotAvailable) || try == closeTries {
			return err
		}
	}
}

// dropElsewhere drops what a login has made in other databases of the server, which as a rule
// let everybody in: it would keep the login.
func dropElsewhere(ctx context.Context, conn *pgx.Conn, login string) error {
	rows, err := conn.Query(ctx, `SELECT DISTINCT b.datname::text FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid JOIN pg_database b ON b.oid = d.dbid
		WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname = $1 AND b.datname <> current_database()`, login)
	if err != nil {
		return err
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, database := range databases {
		cfg := conn.Config()
		cfg.Database = database
		other, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return fmt.Errorf("database %s: %w", database, err)
		}
		_, err = other.Exec(ctx, "DROP OWNED BY "+sql.Quote(login)+" CASCADE")
		_ = other.Close(ctx)
		if err != nil {
			return fmt.Errorf("database %s: %w", database, err)
		}
	}
	return nil
}

// endSessions ends the connections of a login, and waits a little until they are gone.
func endSessions(ctx context.Context, conn *pgx.Conn, login string) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var live int
		if err := conn.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", login).Scan(&live); err != nil || live == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// expired are the logins of a resource whose time is over.
func expired(ctx context.Context, conn *pgx.Conn, r postern.ResourceName) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT rolname::text FROM pg_roles WHERE starts_with(rolname::text, $1) AND (rolvaliduntil IS NULL OR rolvaliduntil < now())`, loginPrefix(r))
	if err != nil {
		return nil, fmt.Errorf("look for logins: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for logins: %w", err)
	}
	return names, nil
}
