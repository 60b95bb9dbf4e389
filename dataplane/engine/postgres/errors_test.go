package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
)

// The target quotes whole rows in the details of what fails, with columns that the task
// need not list. The names of constraint and table stay, for programs.
func TestDetailsOfChangesAreWithheld(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `
		DROP TABLE IF EXISTS sales.accounts;
		CREATE TABLE sales.accounts (id int PRIMARY KEY, note text NOT NULL, secret text, UNIQUE (note, secret) DEFERRABLE INITIALLY DEFERRED);
		INSERT INTO sales.accounts VALUES (1, 'a', 'hidden1'), (2, 'b', 'hidden1');
		GRANT ALL ON sales.accounts TO app`)
	h := newHouse(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		c := h.connect(t, "")
		ctx := testContext(t)
		fails := func(code string, err error) {
			t.Helper()
			pe := wantCode(t, err, code)
			if pe.Detail != "" || pe.TableName != "accounts" || pe.Message == "" || code == "23505" && pe.ConstraintName == "" {
				t.Errorf("%+v", pe)
			}
		}
		_, err := c.Exec(ctx, "update accounts set note = null where id = 1", mode)
		fails("23502", err)
		_, err = c.Exec(ctx, "insert into accounts values (1, 'x')", mode)
		fails("23505", err)
		_, err = c.Exec(ctx, "update accounts set note = 'b' where id = 1", mode)
		fails("23505", err)
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = tx.Exec(ctx, "update accounts set note = 'b' where id = 1", mode); err != nil {
			t.Fatal(err)
		}
		fails("23505", tx.Commit(ctx))
	}
	for _, last := range []string{"commit", "set constraints all immediate"} { // before the target has said that a transaction is open
		c := h.connect(t, "").PgConn()
		p := c.StartPipeline(testContext(t))
		for _, text := range []string{"begin", "update accounts set note = 'b' where id = 1", last} {
			p.SendQueryParams(text, nil, nil, nil, nil)
		}
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 3 {
			var r any
			if r, err = p.GetResults(); err != nil {
				break
			}
			if _, err = r.(*pgconn.ResultReader).Close(); err != nil {
				break
			}
		}
		if pe := wantCode(t, err, "23505"); pe.Detail != "" {
			t.Errorf("%s tells %q", last, pe.Detail)
		}
		_ = p.Close()
	}
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelNone}
		}
	})
	c, err := pgconn.Connect(testContext(t), h.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	_, err = c.Exec(testContext(t), "insert into accounts values (1, 'x')").ReadAll()
	if pe := wantCode(t, err, "23505"); pe.Detail == "" {
		t.Errorf("everything is allowed, and the detail is withheld: %+v", pe)
	}
}

// What an error may carry, by how the values in it are kept.
func TestScrub(t *testing.T) {
	body := []byte("SERROR\x00VERROR\x00C22P02\x00Mbad value \"secret\"\x00Dsecret\x00Hsecret\x00P7\x00tsecret\x00csecret\x00nsecret\x00Wsecret\x00Fint.c\x00\x00")
	for _, c := range []struct {
		name string
		with scrub
		want string
	}{
		{"nothing is masked", scrub{position: true}, "SERROR\x00VERROR\x00C22P02\x00Mbad value \"secret\"\x00Dsecret\x00Hsecret\x00P7\x00tsecret\x00csecret\x00nsecret\x00\x00"},
		{"rows change", scrub{rows: true}, "SERROR\x00VERROR\x00C22P02\x00Mbad value \"secret\"\x00Hsecret\x00tsecret\x00csecret\x00nsecret\x00\x00"},
		{"masked at the source", scrub{quotes: true}, "SERROR\x00VERROR\x00C22P02\x00Mbad value \"secret\"\x00\x00"},
		{"masked in the result", scrub{quotes: true, generic: true}, "SERROR\x00VERROR\x00C22P02\x00M" + withheld + "\x00\x00"},
	} {
		if got := string(c.with.append(nil, 'E', body)[headerLen:]); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
