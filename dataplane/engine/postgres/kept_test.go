package postgres

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/sql"
)

// What names keep is bounded, whatever they keep.
func TestKept(t *testing.T) {
	w := newHouse(t, func(c *Config) { c.Limits.Kept = 1 << 20 }).wire(t)
	large := bytes.Repeat([]byte("x"), 400<<10)
	with := func(portal string) pgproto3.FrontendMessage {
		return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: "s", Parameters: [][]byte{large}}
	}
	if got := w.say(1, parse("s", "select length($1::text)"), sync_); got != "1 Z:I" {
		t.Fatal(got)
	}
	for range 2 { // with the transaction go the portals
		if got := w.say(3, q("begin"), with("a"), with("b"), with("c"), sync_, q("rollback")); got != "C:BEGIN Z:T 2 2 E:53400 Z:E C:ROLLBACK Z:I" {
			t.Fatal(got)
		}
	}
	if got := w.say(2, q("begin"), with("a"), with("b"), &pgproto3.Close{ObjectType: 'P', Name: "a"}, sync_); got != "C:BEGIN Z:T 2 2 3 Z:T" {
		t.Fatal(got)
	}
	if got := w.say(1, with("c"), execute("c", 0), sync_); got != "2 D:409600 C:SELECT 1 Z:T" {
		t.Fatal(got)
	}
}

// Of a statement more is kept than its text: what is known of each of its columns, say.
func TestKeptOfColumns(t *testing.T) {
	w := newHouse(t, func(c *Config) { c.Limits.Kept = 1 << 20 }).wire(t)
	wide := "select 1" + strings.Repeat(",1", 1600)
	last := ""
	for i := range 20 {
		last = w.say(1, parse(fmt.Sprintf("s%d", i), wide), sync_)
	}
	if last != "E:53400 Z:I" {
		t.Errorf("the 20th of %d columns: %s", 1601, last)
	}
	if got := w.say(1, q("deallocate all")) + " " + w.say(1, parse("s", wide), sync_); got != "C:DEALLOCATE ALL Z:I 1 Z:I" {
		t.Error(got)
	}
}

// TestFreeNamesChangeNothing: a pipeline of texts that free all names keeps each name once.
func TestFreeNamesChangeNothing(t *testing.T) {
	for _, command := range []sql.Statement{{Verb: sql.Deallocate, Command: "DEALLOCATE"}, {Verb: sql.Set, Command: "DISCARD ALL"}} {
		c := &conn{statements: names[prepared]{}, portals: names[portal]{}}
		for i := range 10 {
			c.statements[fmt.Sprint("s", i)] = named[prepared]{value: &prepared{}}
			c.portals[fmt.Sprint("p", i)] = named[portal]{value: &portal{}}
		}
		st := &statement{facts: &sql.Facts{Complete: true, Statements: []sql.Statement{command}}}
		changes := 0
		for i := range 5 {
			e := &entry{segment: uint64(i + 1)}
			if err := c.objects(e, st); err != nil {
				t.Fatal(err)
			}
			changes += len(e.changes)
		}
		for name, v := range c.statements {
			if v.value != nil {
				t.Errorf("%s: %s is not free", command.Command, name)
			}
		}
		if changes > 20 {
			t.Errorf("%s: %d changes of 20 names", command.Command, changes)
		}
	}
}

// TestTextsUnderWayAreBounded: what is known of texts is kept until the target has answered, and
// so no more is sent while that is much.
func TestTextsUnderWayAreBounded(t *testing.T) {
	for name, messages := range map[string]func(text string) []byte{
		"queries":  func(text string) []byte { return message('Q', text+"\x00") },
		"pipeline": func(text string) []byte { return message('P', "\x00"+text+"\x00\x00\x00") },
	} {
		c := hotConn(t)
		c.e.limits.Underway = 1 << 20
		client := pump.Core(clientCore{c})
		long, sent, waits := strings.Repeat(" ", 100<<10), 0, false
		for ; sent < 50 && !waits; sent++ {
			in := messages(fmt.Sprint("select ", sent, long))
			for len(in) > 0 && !waits {
				n, next, err := client.Step(in)
				if err != nil {
					t.Fatal(err)
				}
				in = in[n:]
				if waits = next.Watch != nil; !waits && next.Park != nil {
					if err := next.Park(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if !waits || c.q.size > 1<<20+len(long)+1<<10 {
			t.Errorf("%s: after %d of 100 KiB there are %d bytes under way", name, sent, c.q.size)
		}
		for c.q.n > 0 {
			c.q.put(c.q.pop())
		}
		if c.q.size != 0 {
			t.Errorf("%s: an empty queue counts %d bytes", name, c.q.size)
		}
	}
}
