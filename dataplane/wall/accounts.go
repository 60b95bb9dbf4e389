package wall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/sql"
)

// maxAccounts bounds the accounts and the sessions of one report.
const maxAccounts = 5000

// accounts looks at who may log in to a resource's server, who is logged in and, where
// since is set, who was refused since then.
func (t *target) accounts(ctx context.Context, snap *policy.Snapshot, since time.Time) (*nodev1.AccountReport, error) {
	out := &nodev1.AccountReport{}
	err := t.with(ctx, snap, func(conn *pgx.Conn, _ *typesv1.Resource) error {
		var now time.Time
		if err := conn.QueryRow(ctx, "SELECT now()").Scan(&now); err != nil {
			return fmt.Errorf("ask for the server's time: %w", err)
		}
		out.Time = timestamppb.New(now)
		var err error
		if out.Accounts, err = loginRoles(ctx, conn); err != nil {
			return err
		}
		if out.Sessions, err = sessions(ctx, conn); err != nil {
			return err
		}
		if !since.IsZero() {
			if out.Refused, err = refusedLogins(ctx, conn, since); err != nil {
				out.RefusedUnknown = problem(err)
			}
		}
		return nil
	})
	return out, err
}

func loginRoles(ctx context.Context, conn *pgx.Conn) ([]*nodev1.BackendAccount, error) {
	rows, err := conn.Query(ctx, `SELECT rolname::text, rolsuper, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END FROM pg_roles WHERE rolcanlogin ORDER BY 1 LIMIT $1`, maxAccounts)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*nodev1.BackendAccount, error) {
		a := &nodev1.BackendAccount{}
		var until *time.Time
		err := row.Scan(&a.Name, &a.Superuser, &until)
		if until != nil {
			a.ValidUntil = timestamppb.New(*until)
		}
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return all, nil
}

// sessions are the connections of clients, of all databases. Of accounts of which the
// admin is no member the server tells the name and the program alone, unless the admin
// has pg_read_all_stats.
func sessions(ctx context.Context, conn *pgx.Conn) ([]*nodev1.BackendSession, error) {
	rows, err := conn.Query(ctx, `SELECT usename::text, coalesce(datname::text, ''), coalesce(application_name, ''), coalesce(host(client_addr), ''), coalesce(client_port, 0), backend_start
		FROM pg_stat_activity WHERE usename IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid LIMIT $1`, maxAccounts)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*nodev1.BackendSession, error) {
		s := &nodev1.BackendSession{}
		var began *time.Time
		err := row.Scan(&s.Account, &s.Database, &s.Program, &s.Host, &s.Port, &began)
		if began != nil {
			s.StartTime = timestamppb.New(*began)
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return all, nil
}

// setPassword gives an account another password, of which only the verifier is seen here.
func (t *target) setPassword(ctx context.Context, snap *policy.Snapshot, account, verifier string) error {
	if !verifierForm.MatchString(verifier) {
		return errors.New("this is no SCRAM-SHA-256 verifier")
	}
	return t.with(ctx, snap, func(conn *pgx.Conn, _ *typesv1.Resource) error {
		tag, err := conn.Exec(ctx, "ALTER ROLE "+sql.Quote(account)+" PASSWORD '"+verifier+"'")
		if err != nil {
			return fmt.Errorf("change the password of %s: %w", account, err)
		}
		if tag.String() != "ALTER ROLE" {
			return fmt.Errorf("change the password of %s: the server says %q", account, tag)
		}
		return nil
	})
}
