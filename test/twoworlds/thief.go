package twoworlds

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/pkg/sql/postgres/lex"
	"github.com/posterngate/postern/test/e2e/house"
)

// thieves have the logins of sessions that are open, one for each task.
type thieves struct {
	mu   sync.Mutex
	have map[string]*theft
}

// A theft is what somebody has who took a session's password: the login, and the names of
// the views that stand for tables.
type theft struct {
	login, password [2]string
	schema          [2]string
	views           map[string]string // by table: "sales.orders"; of one whose rows are filtered there is more in the name
}

// walled waits until what every task is at the targets stands in both worlds.
func (w *Worlds) walled(t testing.TB, policy string) {
	t.Helper()
	tasks := 0
	for _, o := range w.House.Objects(t, policy) {
		if spec := o.GetTask().GetSpec(); spec != nil && !spec.GetPermit()[0].GetUnrestricted() {
			tasks++
		}
	}
	last := ""
	house.Eventually(t, func() string { return fmt.Sprintf("the walls of %d tasks stand: %s", tasks, last) }, func() bool {
		rows, err := w.Targets(t.Context(), `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'postern\_%\_t\_%'`)
		last = fmt.Sprint(rows, err)
		want := fmt.Sprint(tasks)
		return err == nil && rows[0][0][0] == want && rows[1][0][0] == want
	})
}

// past opens a client that logs in at the targets as a session's login.
func (w *Worlds) past(ctx context.Context, t testing.TB, c Client) (*Pair, Outcome, error) {
	t.Helper()
	th, err := w.steal(ctx, t, c)
	if err != nil {
		return nil, Outcome{}, err
	}
	p, seen := &Pair{w: w}, Outcome{}
	if c.Views {
		p.theft = th
	}
	err = both(ctx, func(ctx context.Context, i int) error {
		startup := map[string]string{"search_path": "sales", "statement_timeout": "2s"}
		maps.Copy(startup, c.Startup)
		conn, err := w.plain(ctx, i, th.login[i], th.password[i], startup)
		if err != nil {
			return err
		}
		p.conns[i], seen[i] = conn, conn.seen
		return nil
	})
	if err != nil {
		p.Close()
		return nil, seen, err
	}
	return p, seen, nil
}

// thiefAddr is where those come from who log in at the targets themselves.
const thiefAddr = "127.0.0.2"

// plain logs in at the target of a world.
func (w *Worlds) plain(ctx context.Context, i int, user, password string, startup map[string]string) (*Conn, error) {
	startup["user"], startup["database"] = user, "warehouse"
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(thiefAddr)}}
	return dial(ctx, from, w.PG[i].Addr(), w.PG[i].TLS(), startup, password)
}

// steal opens a session through the node and gives its login another password.
func (w *Worlds) steal(ctx context.Context, t testing.TB, c Client) (*theft, error) {
	t.Helper()
	w.thieves.mu.Lock()
	defer w.thieves.mu.Unlock()
	if th := w.thieves.have[c.Task]; th != nil {
		return th, nil
	}
	c.Level, c.Startup = Native, nil
	victim, seen, err := w.Open(ctx, t, c)
	if err != nil {
		return nil, err
	}
	t.Cleanup(victim.Close)
	if victim.Over() {
		return nil, fmt.Errorf("no session of task %s to steal from: %s", c.Task, seen[0])
	}
	th := &theft{views: map[string]string{}}
	role := `postern\_%\_t\_` + strings.ReplaceAll(c.Task, "_", `\_`)
	rows, err := w.Targets(ctx, `SELECT l.rolname FROM pg_roles l JOIN pg_auth_members m ON m.member = l.oid JOIN pg_roles r ON r.oid = m.roleid
		JOIN pg_stat_activity a ON a.usesysid = l.oid WHERE l.rolcanlogin AND r.rolname LIKE '`+role+`' ORDER BY a.backend_start DESC LIMIT 1`)
	if err != nil {
		return nil, err
	}
	views, err := w.Targets(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'v' AND n.nspname ~ '^postern_[0-9a-f]{8}_`+c.Task+`_[0-9a-f]{8}$'`)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if len(rows[i]) != 1 {
			return nil, fmt.Errorf("the session of task %s has no login at the target", c.Task)
		}
		th.login[i], th.password[i] = rows[i][0][0], rand.Text()
		if _, err := w.super[i].exec(ctx, w.PG[i], fmt.Sprintf(`ALTER ROLE "%s" PASSWORD '%s' CONNECTION LIMIT 20`, th.login[i], th.password[i])); err != nil {
			return nil, err
		}
		for _, v := range views[i] {
			table, _, _ := strings.Cut(v[1], "@")
			th.schema[i], th.views[table] = v[0], v[1]
		}
	}
	if w.thieves.have == nil {
		w.thieves.have = map[string]*theft{}
	}
	w.thieves.have[c.Task] = th
	return th, nil
}

// Mapped is a text as somebody writes it who knows the task's views: they are read where
// the text reads their tables.
func (th *theft) mapped(world int, text string) string {
	type word struct {
		lex.Token
		text string
	}
	var words []word
	for at := 0; at < len(text); {
		token := lex.Next(text, at)
		if token.End <= at {
			return text // not to be read, and so not to be mapped
		}
		if at = token.End; token.Kind != lex.Space {
			words = append(words, word{token, strings.ToLower(text[token.Start:token.End])})
		}
	}
	say := func(i int) string {
		if i < 0 || i >= len(words) {
			return ""
		}
		return words[i].text
	}
	var b strings.Builder
	from := 0
	for i := 0; i < len(words); i++ {
		before, name, last := say(i-1), "sales."+words[i].text, i
		if say(i+1) == "." {
			name, last = words[i].text+"."+say(i+2), i+2
		}
		reads := before == "from" && say(i-2) != "delete" || before == "join" || before == "," || before == "only" || before == "table" || before == "copy" || before == "using"
		if !reads || th.views[name] == "" || say(last+1) == "." || before == "," && last == i {
			continue
		}
		b.WriteString(text[from:words[i].Start] + `"` + th.schema[world] + `"."` + th.views[name] + `"`)
		if next := say(last + 1); before != "copy" && before != "table" && (next == "" || after[next]) {
			b.WriteString(" AS " + words[last].text)
		}
		from, i = words[last].End, last
	}
	return b.String() + text[from:]
}

// steps are steps with their texts mapped.
func (th *theft) steps(world int, steps []Step) []Step {
	out := slices.Clone(steps)
	for i := range out {
		out[i].Send = slices.Clone(out[i].Send)
		for k, m := range out[i].Send {
			switch m := m.(type) {
			case *pgproto3.Query:
				out[i].Send[k] = &pgproto3.Query{String: th.mapped(world, m.String)}
			case *pgproto3.Parse:
				mapped := *m
				mapped.Query = th.mapped(world, m.Query)
				out[i].Send[k] = &mapped
			}
		}
	}
	return out
}

// after are words that follow a table in FROM and name nothing.
var after = func() map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields("; , ) where join on order group limit left right full inner cross natural union except intersect for set tablesample using returning fetch offset window having then") {
		out[w] = true
	}
	return out
}()
