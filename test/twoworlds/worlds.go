// Package twoworlds runs the same inputs through a real node to two databases that differ
// in masked, filtered and unlisted data alone, and compares every byte that the client sees. Where
// the worlds cannot be told apart, nothing of those data got through, whatever anybody
// thinks of the statement. Wall-clock time is out of scope.
package twoworlds

import (
	"context"
	"crypto/tls"
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/servers"
)

//go:embed testdata
var testdata embed.FS

// A Level says how masks are kept, in the word that a Resource uses.
type Level string

// The levels that a node offers.
const (
	Result Level = "result" // L1: values are changed on the way back
	Source Level = "source" // L2: the statement that is sent reads masked values only
	Native Level = "native" // L3: the session's login can read nothing else
	// Wall is level native with nobody in front: the session's login, past the node, as a
	// thief has it. It needs Native.
	Wall Level = "wall"
)

// Short is how tables and reports name the level.
func (l Level) Short() string {
	switch l {
	case Result:
		return "L1"
	case Source:
		return "L2"
	case Native:
		return "L3"
	case Wall: // has no number
	}
	return string(l)
}

// Options change the worlds; the zero value is right for most.
type Options struct {
	Major     int     // of PostgreSQL, 15 to 18; 0 takes whatever is there
	Customers int     // rows; 2000 where 0
	Orders    int     // rows; 20000 where 0
	Levels    []Level // Result and Source where empty
	// Policy is YAML of further objects. Tasks select the worlds by the label worlds=two.
	Policy string
	// SQL runs in both worlds after the fixture.
	SQL string
	// Pooled lets sessions of a grant have their connections one after the other, which the
	// targets' logs tell (Logins). It does not go with Native.
	Pooled bool
	// WallEvery is how often the wall compares the worlds with their tasks; a second where 0.
	WallEvery time.Duration
}

// names tell the worlds apart where a name must. They have one length, and nothing else
// of them reaches a transcript.
var names = [2]string{"a", "b"}

// Worlds are two servers behind one node. They are safe for concurrent use, but inputs
// that write must not run beside others: the worlds would come apart.
type Worlds struct {
	House  *house.House
	PG     [2]*servers.PG
	Levels []Level

	super   [2]target
	thieves thieves
}

// Start brings both worlds up, each a server of its own so that even numbers that
// servers give are the same, and a house in front. They are gone at the test's end.
func Start(t testing.TB, o Options) *Worlds {
	t.Helper()
	if o.Customers == 0 {
		o.Customers = 2000
	}
	if o.Orders == 0 {
		o.Orders = 20000
	}
	if len(o.Levels) == 0 {
		o.Levels = []Level{Result, Source}
	}
	w := &Worlds{Levels: o.Levels}
	side := run.New(context.Background())
	for i := range names {
		side.Go("world "+names[i], func(context.Context) error { w.startWorld(t, i, &o); return nil })
	}
	walled := slices.Contains(o.Levels, Native)
	w.House = house.Start(t, house.Options{Bare: true, Wall: walled, WallEvery: o.WallEvery})
	if err := side.Wait(); err != nil || w.PG[0] == nil || w.PG[1] == nil {
		t.Fatalf("the worlds did not start: %v", err)
	}
	// Everything at once, so that walls are built in the same order in both worlds.
	policy, resources := read(t, "policy.yaml")+"\n---\n"+o.Policy, []string(nil)
	if o.Pooled {
		policy = strings.ReplaceAll(policy, "\n  duration:", "\n  credential: {reuse: pool}\n  duration:")
	}
	for i, world := range names {
		for _, level := range o.Levels {
			if level != Wall {
				policy += "\n---\n" + w.resource(t, i, level)
				resources = append(resources, resourceName(level, world))
			}
		}
	}
	w.House.Apply(t, "ada", policy)
	w.House.Serves(t, resources...)
	if walled {
		w.walled(t, policy)
	}
	return w
}

func resourceName(l Level, world string) string { return string(l) + "-" + world }

func read(t testing.TB, name string) string {
	t.Helper()
	return string(house.Must(testdata.ReadFile("testdata/" + name))(t))
}

// The account that nodes log in with, and that of the wall.
const account, admin, password = "app_rw", "wall_admin", "backend-secret"

func (w *Worlds) startWorld(t testing.TB, i int, o *Options) {
	pg := servers.Postgres(t, servers.PGOptions{Major: o.Major, HBA: []string{"hostssl all all " + thiefAddr + "/32 password"}, Settings: map[string]string{
		"autovacuum":           "off", // it moves rows and takes numbers when it likes
		"track_counts":         "off",
		"jit":                  "off",
		"max_parallel_workers": "0", // the order of rows is part of what is compared
		"log_connections":      map[bool]string{true: "on", false: "off"}[o.Pooled],
	}})
	pg.SQL(t, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'; CREATE ROLE dba SUPERUSER; CREATE ROLE reporting_admin;
		CREATE ROLE %s LOGIN PASSWORD '%[2]s' CREATEROLE; GRANT pg_signal_backend, pg_read_all_settings TO %[3]s`, account, password, admin))
	pg.SQL(t, "CREATE DATABASE warehouse STRATEGY file_copy")
	sizes := strings.NewReplacer("${CUSTOMERS}", strconv.Itoa(o.Customers), "${ORDERS}", strconv.Itoa(o.Orders))
	pg.SQLIn(t, "warehouse", read(t, "world-"+names[i]+".sql")+sizes.Replace(read(t, "fixture.sql"))+o.SQL)
	w.PG[i] = pg
	t.Cleanup(func() { w.super[i].close(context.Background()) })
}

// Logins are how often somebody has logged in at both targets as sessions do; it is told
// where the worlds are Pooled.
func (w *Worlds) Logins() (n int) {
	for _, pg := range w.PG {
		n += strings.Count(pg.Log(), "connection authorized: user="+account+" ")
	}
	return n
}

func (w *Worlds) resource(t testing.TB, i int, l Level) string {
	pg := w.PG[i]
	level := string(l)
	if l == Native {
		level += ", admin: {sealed: admin-" + resourceName(l, names[i]) + "}"
	}
	return strings.NewReplacer(
		"${NAME}", resourceName(l, names[i]), "${LEVEL}", level, "${ADMIN}", "admin-"+resourceName(l, names[i]), "${CREDENTIAL}", "app-"+resourceName(l, names[i]), "${PASSWORD}", password,
		"${HOST}", pg.Host, "${PORT}", strconv.Itoa(pg.Port), "${CA}", strings.ReplaceAll(string(pg.CAPEM), "\n", `\n`),
	).Replace(read(t, "resource.yaml"))
}

func (w *Worlds) tls() *tls.Config {
	cfg := w.House.TLS()
	cfg.ServerName = "127.0.0.1"
	return cfg
}
