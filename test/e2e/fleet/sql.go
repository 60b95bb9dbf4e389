package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Dial logs in at a node: the permission is TASK.RESOURCE, the password a token.
func (f *Fleet) Dial(ctx context.Context, n *Node, permission, token string) (*pgx.Conn, error) {
	host, port, _ := strings.Cut(n.PG, ":")
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s dbname=warehouse sslmode=verify-full sslrootcert=%s connect_timeout=10", host, port, permission, f.CA))
	if err != nil {
		return nil, err
	}
	cfg.Password = token
	return pgx.ConnectConfig(ctx, cfg)
}

// Connect is Dial that must succeed; the connection is closed with the test.
func (f *Fleet) Connect(t testing.TB, n *Node, permission, token string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := f.Dial(ctx, n, permission, token)
	if err != nil {
		t.Fatalf("connect to %s as %s: %v", n.Name, permission, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Query runs one statement in the simple protocol and returns its rows as text.
func Query(ctx context.Context, conn *pgx.Conn, sql string) ([][]string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			text := make([]string, len(row))
			for i, v := range row {
				text[i] = string(v)
			}
			rows = append(rows, text)
		}
	}
	return rows, nil
}

// Code is the SQLSTATE of an error, or "".
func Code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// Hint is what an error says to do next, or "".
func Hint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Hint
	}
	return ""
}

// CancelAt sends the cancel request of a session to a node, in the clear as libpq up to
// 16 does, and waits until the node has taken it.
func CancelAt(n *Node, conn *pgx.Conn) error {
	nc, err := net.DialTimeout("tcp", n.PG, 5*time.Second)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	key := conn.PgConn().SecretKey()
	msg := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	msg = binary.BigEndian.AppendUint32(msg, 80877102)
	msg = binary.BigEndian.AppendUint32(msg, conn.PgConn().PID())
	if _, err := nc.Write(append(msg, key...)); err != nil {
		return err
	}
	_, _ = nc.Read(make([]byte, 1)) // closed once it was taken
	return nil
}
