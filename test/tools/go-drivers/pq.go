package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lib/pq"
)

// open takes everything but settings from the environment, as libpq does.
func open(settings string) *sql.DB {
	db, err := sql.Open("postgres", settings)
	check(err)
	db.SetMaxOpenConns(1)
	return db
}

func state(err error) string {
	if e := (*pq.Error)(nil); errors.As(err, &e) {
		return string(e.Code)
	}
	return fmt.Sprint(err)
}

func one(db interface {
	QueryRow(text string, args ...any) *sql.Row
}, text string, args ...any) (s string) {
	check(db.QueryRow(text, args...).Scan(&s))
	return s
}

// list is the columns of all rows, joined.
func list(rows *sql.Rows, err error) (out []string) {
	check(err)
	defer rows.Close()
	columns, err := rows.Columns()
	check(err)
	for rows.Next() {
		values, to := make([]string, len(columns)), make([]any, len(columns))
		for i := range values {
			to[i] = &values[i]
		}
		check(rows.Scan(to...))
		out = append(out, strings.Join(values, "="))
	}
	check(rows.Err())
	return out
}

func libpq() {
	if err := open("sslrootcert=" + os.Getenv("WRONG_CA")).Ping(); err != nil && strings.Contains(err.Error(), "certificate") {
		fact("wrong-ca", "refused")
	}
	for name, settings := range map[string]string{"masked.text": "", "masked.binary": "binary_parameters=yes"} {
		var email, card string
		check(open(settings).QueryRow("SELECT email, card FROM customers WHERE id = $1", 900001).Scan(&email, &card))
		fact(name, email+" "+card)
	}
	report(open(""))
	shop(open("user=" + os.Getenv("SHOP_USER") + " dbname=shop"))
}

func report(db *sql.DB) {
	fact("simple", strings.Join(list(db.Query("SELECT code, name FROM regions ORDER BY code")), " "))
	order, err := db.Prepare("SELECT id FROM orders WHERE id = $1")
	check(err)
	sum := 0
	for i := 1; i <= 20; i++ {
		var id int
		check(order.QueryRow(i).Scan(&id))
		sum += id
	}
	check(order.Close())
	fact("prepared", fmt.Sprintf("20 rows, %d", sum))
	fact("parameters", one(db, "SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2::text IS NULL OR status = $2)", pq.Array([]int{1, 2, 3}), nil))
	var card, country sql.NullString
	check(db.QueryRow("SELECT card, country FROM customers WHERE id = 900002").Scan(&card, &country))
	if !card.Valid && !country.Valid {
		fact("nulls", "NULL NULL")
	}

	tx, err := db.Begin()
	check(err)
	_, err = tx.Exec("DECLARE every_order CURSOR FOR SELECT id FROM orders ORDER BY id")
	check(err)
	streamed := 0
	for {
		some := list(tx.Query("FETCH 50 FROM every_order"))
		if streamed += len(some); len(some) == 0 {
			break
		}
	}
	fact("stream", streamed)
	check(tx.Commit())

	tx, err = db.Begin()
	check(err)
	_, err = tx.Exec("SELECT salary FROM hr.salaries")
	e := &pq.Error{}
	errors.As(err, &e)
	fact("refused.state", e.Code)
	fact("refused.message", e.Message)
	fact("refused.detail", e.Detail)
	fact("refused.hint", e.Hint)
	_, err = tx.Exec("SELECT 1")
	fact("failed-transaction", state(err))
	check(tx.Rollback())
	fact("after-rollback", one(db, "SELECT count(*) FROM regions"))
	_, err = db.Exec("SELECT 1 / (id - id) FROM orders WHERE id = $1", 1)
	fact("server-error", state(err))

	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err = db.ExecContext(ctx, "SELECT count(*) FROM generate_series(1, 1000000000)")
	fact("cancelled", state(err))

	email, err := db.Prepare("SELECT email FROM customers WHERE id = $1")
	check(err)
	var shown string
	check(email.QueryRow(900001).Scan(&shown))
	changePolicy()
	fact("changed.error", state(email.QueryRow(900001).Scan(&shown)))
	check(email.Close())
	fact("changed", one(db, "SELECT email FROM customers WHERE id = $1", 900001))
}

// insert copies ten notes, which lib/pq does as a prepared statement.
func insert(tx *sql.Tx) {
	st, err := tx.Prepare(pq.CopyIn("notes", "driver", "n", "body"))
	check(err)
	for i := range 10 {
		_, err = st.Exec("pq", i, fmt.Sprint("note ", i))
		check(err)
	}
	_, err = st.Exec()
	check(err)
	check(st.Close())
}

func shop(db *sql.DB) {
	tx, err := db.Begin()
	check(err)
	insert(tx)
	inserted := one(tx, "SELECT count(*) FROM notes WHERE driver = 'pq'")
	check(tx.Rollback())
	tx, err = db.Begin()
	check(err)
	insert(tx)
	check(tx.Commit())
	updated := list(db.Query("UPDATE notes SET body = $1 WHERE driver = $2 AND n < 5 RETURNING n", nil, "pq"))
	deleted, err := db.Exec("DELETE FROM notes WHERE driver = $1", "pq")
	check(err)
	n, err := deleted.RowsAffected()
	check(err)
	fact("write", fmt.Sprint(inserted, " ", len(updated), " ", n))
	tx, err = db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	check(err)
	fact("isolation", one(tx, "SHOW transaction_isolation"))
	check(tx.Rollback())
}
