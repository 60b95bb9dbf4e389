package drivers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/posterngate/postern/test/e2e/house"
)

// The texts that each driver sends.
const (
	regions   = "SELECT code, name FROM regions ORDER BY code"
	masked    = "SELECT email, card FROM customers WHERE id = $1"
	refused   = "SELECT salary FROM hr.salaries"
	endless   = "SELECT count(*) FROM generate_series(1, 1000000000)"
	allOrders = "SELECT id FROM orders ORDER BY id"
	oneOrder  = "SELECT id FROM orders WHERE id = $1"
	oneEmail  = "SELECT email FROM customers WHERE id = $1"
)

// stop is after how long a statement that never ends is cancelled.
const stop = 300 * time.Millisecond

// config is pgx's for a user such as "sales-report.warehouse".
func (s *shop) config(t *testing.T, user, ca string) *pgx.ConnConfig {
	t.Helper()
	task, resource, _ := strings.Cut(user, ".")
	conninfo := strings.NewReplacer("user="+task+".warehouse", "user="+user, "dbname=warehouse", "dbname="+resource, s.CAFile, ca).Replace(s.Conninfo(s.Nodes[0], task))
	if s.direct {
		conninfo += " sslnegotiation=direct"
	}
	c := house.Must(pgx.ParseConfig(conninfo))(t)
	c.Password = s.DataToken(t, "alice")
	return c
}

// connect connects with pgx; statements go as mode says.
func (s *shop) connect(t *testing.T, user string, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	c := s.config(t, user, s.CAFile)
	c.DefaultQueryExecMode = mode
	conn := house.Must(pgx.ConnectConfig(t.Context(), c))(t)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// pgx runs the driver in one of its ways to send statements.
func (s *shop) pgx(t *testing.T, mode pgx.QueryExecMode) facts {
	ctx := t.Context()
	got := facts{}
	if _, err := pgx.ConnectConfig(ctx, s.config(t, "sales-report.warehouse", s.PG.CAFile)); err != nil && strings.Contains(err.Error(), "certificate") {
		got["wrong-ca"] = "refused"
	}
	c := s.connect(t, "sales-report.warehouse", mode)
	got["simple"] = strings.Join(list[string](t, c, "SELECT code || '=' || name FROM regions ORDER BY code"), " ")
	n, sum := 0, 0
	for i := 1; i <= 20; i++ {
		for _, id := range list[int](t, c, oneOrder, i) {
			n, sum = n+1, sum+id
		}
	}
	got["prepared"] = fmt.Sprintf("%d rows, %d", n, sum)
	got["parameters"] = one(t, c, "SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2::text IS NULL OR status = $2)", []int32{1, 2, 3}, nil)
	for name, format := range map[string]int16{"masked.text": pgx.TextFormatCode, "masked.binary": pgx.BinaryFormatCode} {
		var email, card string
		args := []any{pgx.QueryResultFormats{format}, 900001}
		if mode == pgx.QueryExecModeSimpleProtocol {
			args = args[1:]
		}
		check(t, c.QueryRow(ctx, masked, args...).Scan(&email, &card))
		got[name] = email + " " + card
	}
	var card, country *string
	check(t, c.QueryRow(ctx, "SELECT card, country FROM customers WHERE id = $1", 900002).Scan(&card, &country))
	if card == nil && country == nil {
		got["nulls"] = "NULL NULL"
	}

	tx := house.Must(c.Begin(ctx))(t)
	_ = house.Must(tx.Exec(ctx, "DECLARE every_order CURSOR FOR "+allOrders))(t)
	streamed := 0
	for {
		some := list[int](t, c, "FETCH FORWARD 50 FROM every_order")
		if streamed += len(some); len(some) == 0 {
			break
		}
	}
	got["stream"] = fmt.Sprint(streamed)
	check(t, tx.Commit(ctx))
	var copied strings.Builder
	_ = house.Must(c.PgConn().CopyTo(ctx, &copied, "COPY ("+allOrders+") TO STDOUT"))(t)
	got["copy"] = fmt.Sprint(strings.Count(copied.String(), "\n"))

	tx = house.Must(c.Begin(ctx))(t)
	_ = one(t, c, "SELECT 1")
	_, err := c.Exec(ctx, refused)
	got.refused(err)
	_, err = c.Exec(ctx, "SELECT 1 + 1")
	got["failed-transaction"] = house.State(err)
	check(t, tx.Rollback(ctx))
	got["after-rollback"] = one(t, c, "SELECT count(*) FROM regions")
	_, err = c.Exec(ctx, "SELECT 1 / (id - id) FROM orders WHERE id = $1", 1)
	got["server-error"] = house.State(err)
	got.cancelled(t, c)
	got.batch(t, c)

	_ = one(t, c, oneEmail, 900001)
	s.show(t, "###")
	defer s.show(t, "***")
	var email string
	if err := c.QueryRow(ctx, oneEmail, 900001).Scan(&email); err != nil {
		got["changed.error"] = house.State(err)
	}
	got["changed"] = one(t, c, oneEmail, 900001)
	s.write(t, mode, got)
	return got
}

// batch sends many statements before it reads an answer.
func (f facts) batch(t *testing.T, c *pgx.Conn) {
	b, sum := &pgx.Batch{}, 0
	for i := 1; i <= 20; i++ {
		b.Queue(oneOrder, i).QueryRow(func(row pgx.Row) error {
			var id int
			err := row.Scan(&id)
			sum += id
			return err
		})
	}
	check(t, c.SendBatch(t.Context(), b).Close())
	f["pipeline"] = fmt.Sprint(sum)
	b = &pgx.Batch{}
	for _, text := range []string{"SELECT 1", refused, "SELECT 2"} {
		b.Queue(text)
	}
	f["pipeline.refused"] = house.State(c.SendBatch(t.Context(), b).Close())
}

// cancelled sends a cancel request when a context ends, and waits for the answer.
func (f facts) cancelled(t *testing.T, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(t.Context(), stop)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), endless)
		result <- err
	}()
	<-ctx.Done()
	check(t, c.PgConn().CancelRequest(t.Context()))
	f["cancelled"] = house.State(<-result)
}

func (f facts) refused(err error) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		pg = &pgconn.PgError{Code: house.State(err)}
	}
	f["refused.state"], f["refused.message"], f["refused.detail"], f["refused.hint"] = pg.Code, pg.Message, pg.Detail, pg.Hint
}

// write changes what the shop's task may change.
func (s *shop) write(t *testing.T, mode pgx.QueryExecMode, got facts) {
	ctx := t.Context()
	c := s.connect(t, "shop-keeper.shop", mode)
	b := &pgx.Batch{}
	for i := range 10 {
		b.Queue("INSERT INTO notes (driver, n, body) VALUES ($1, $2, $3)", "pgx", i, fmt.Sprint("note ", i))
	}
	tx := house.Must(c.Begin(ctx))(t)
	check(t, tx.SendBatch(ctx, b).Close())
	inserted := one(t, c, "SELECT count(*) FROM notes WHERE driver = 'pgx'")
	check(t, tx.Rollback(ctx))
	_ = house.Must(c.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"driver", "n", "body"}, pgx.CopyFromSlice(10, func(i int) ([]any, error) {
		return []any{"pgx", int32(i), nil}, nil
	})))(t)
	updated := list[int](t, c, "UPDATE notes SET body = $1 WHERE driver = $2 AND n < 5 RETURNING n", nil, "pgx")
	deleted := house.Must(pgx.CollectRows(house.Must(c.Query(ctx, "DELETE FROM notes WHERE driver = $1 RETURNING *", "pgx"))(t), pgx.RowToMap))(t)
	got["write"] = fmt.Sprintf("%s %d %d", inserted, len(updated), len(deleted))
	for _, row := range deleted {
		if len(row) != 3 || row["driver"] != "pgx" {
			t.Errorf("RETURNING * returned %v", row)
		}
	}
	tx = house.Must(c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}))(t)
	got["isolation"] = one(t, c, "SHOW transaction_isolation")
	check(t, tx.Rollback(ctx))
}

// databaseSQL runs the standard library's interface over pgx.
func (s *shop) databaseSQL(t *testing.T) facts {
	ctx := t.Context()
	got := facts{}
	stranger := stdlib.OpenDB(*s.config(t, "sales-report.warehouse", s.PG.CAFile))
	defer stranger.Close()
	if err := stranger.PingContext(ctx); err != nil && strings.Contains(err.Error(), "certificate") {
		got["wrong-ca"] = "refused"
	}
	db := stdlib.OpenDB(*s.config(t, "sales-report.warehouse", s.CAFile))
	defer db.Close()
	rows := house.Must(db.QueryContext(ctx, regions))(t)
	defer rows.Close()
	var pairs []string
	for rows.Next() {
		var code, name string
		check(t, rows.Scan(&code, &name))
		pairs = append(pairs, code+"="+name)
	}
	check(t, rows.Err())
	got["simple"] = strings.Join(pairs, " ")

	st := house.Must(db.PrepareContext(ctx, oneOrder))(t)
	defer st.Close()
	n, sum := 0, 0
	for i := 1; i <= 20; i++ {
		var id int
		check(t, st.QueryRowContext(ctx, i).Scan(&id))
		n, sum = n+1, sum+id
	}
	got["prepared"] = fmt.Sprintf("%d rows, %d", n, sum)
	scan := func(text string, to []any, args ...any) { check(t, db.QueryRowContext(ctx, text, args...).Scan(to...)) }
	var count, email, card string
	scan("SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2::text IS NULL OR status = $2)", []any{&count}, []int32{1, 2, 3}, nil)
	got["parameters"] = count
	scan(masked, []any{&email, &card}, 900001)
	got["masked.binary"] = email + " " + card
	var nobody, nowhere sql.NullString
	scan("SELECT card, country FROM customers WHERE id = $1", []any{&nobody, &nowhere}, 900002)
	if !nobody.Valid && !nowhere.Valid {
		got["nulls"] = "NULL NULL"
	}

	tx := house.Must(db.BeginTx(ctx, nil))(t)
	_, err := tx.ExecContext(ctx, refused)
	got.refused(err)
	_, err = tx.ExecContext(ctx, "SELECT 1")
	got["failed-transaction"] = house.State(err)
	check(t, tx.Rollback())
	scan("SELECT count(*) FROM regions", []any{&count})
	got["after-rollback"] = count
	got["server-error"] = house.State(db.QueryRowContext(ctx, "SELECT 1 / (id - id) FROM orders WHERE id = $1", 1).Scan(&count))

	emails := house.Must(db.PrepareContext(ctx, oneEmail))(t)
	defer emails.Close()
	check(t, emails.QueryRowContext(ctx, 900001).Scan(&email))
	s.show(t, "###")
	defer s.show(t, "***")
	got["changed.error"] = house.State(emails.QueryRowContext(ctx, 900001).Scan(&email))
	check(t, emails.Close()) // what the program prepared itself, it prepares again itself
	scan(oneEmail, []any{&email}, 900001)
	got["changed"] = email
	return got
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list is the one column of a result.
func list[T any](t *testing.T, c *pgx.Conn, text string, args ...any) []T {
	t.Helper()
	rows := house.Must(c.Query(t.Context(), text, args...))(t)
	return house.Must(pgx.CollectRows(rows, pgx.RowTo[T]))(t)
}

// one is the one value of a result, as text.
func one(t *testing.T, c *pgx.Conn, text string, args ...any) string {
	t.Helper()
	var v any
	check(t, c.QueryRow(t.Context(), text, args...).Scan(&v))
	return fmt.Sprint(v)
}
