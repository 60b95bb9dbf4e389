package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql"
)

// hotSession admits everything and allocates nothing, so that what is measured is the
// engine's own.
type hotSession struct {
	engine.Session
	terms engine.Terms
	rows  int64
}

func (s *hotSession) ID() postern.SessionID                  { return "hot" }
func (s *hotSession) Terms() *engine.Terms                   { return &s.terms }
func (s *hotSession) Context() context.Context               { return context.Background() }
func (s *hotSession) Room(int64, int64) (int64, int64)       { return 0, 0 }
func (s *hotSession) Columns([]engine.ResultColumn) error    { return nil }
func (s *hotSession) Rows(n int, _ []byte) error             { s.rows += int64(n); return nil }
func (s *hotSession) Chunk(engine.Direction, []byte) error   { return nil }
func (s *hotSession) Output(engine.Stream, []byte) error     { return nil }
func (s *hotSession) KeepsRaw() bool                         { return false }
func (s *hotSession) RawRows(int, []byte) error              { return nil }
func (s *hotSession) RawOutput(engine.Stream, []byte) error  { return nil }
func (s *hotSession) Done(engine.Outcome) error              { return nil }
func (s *hotSession) Note(string, string) error              { return nil }
func (s *hotSession) Dial(context.Context) (net.Conn, error) { return nil, io.EOF }
func (*hotSession) Stale(*engine.Admission) bool             { return false }
func (s *hotSession) Admit(_ *engine.Admission, _ engine.Args, f *engine.Flow) error {
	f.Start(s, -1, -1)
	return nil
}

func (s *hotSession) Prepare(_ context.Context, st *engine.Statement) (*engine.Admission, error) {
	return &engine.Admission{
		Text: st.Text, Forward: st.Text, Own: true, Analysis: hotAnalysis{},
		Decision: postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource},
	}, nil
}

// killedSession ends while a text of it is judged.
type killedSession struct {
	hotSession
	ctx  context.Context
	kill context.CancelCauseFunc
	why  error
}

func (s *killedSession) Context() context.Context { return s.ctx }

func (s *killedSession) Prepare(_ context.Context, _ *engine.Statement) (*engine.Admission, error) {
	s.kill(s.why)
	return nil, &postern.Refusal{Reason: "the statement could not be analysed safely"}
}

// TestKilledWhileJudged: the client is told why the session ends, and not what became of the
// statement because of it.
func TestKilledWhileJudged(t *testing.T) {
	c := hotConn(t)
	s := &killedSession{why: &postern.Refusal{Code: postern.CodeKilled, Reason: "killed by ada"}}
	s.ctx, s.kill = context.WithCancelCause(context.Background())
	c.s = s
	msg := message('Q', "select 1\x00")
	_, next, err := clientCore{c}.Step(msg)
	if err != nil || next.Park == nil {
		t.Fatalf("the text was not judged: %v", err)
	}
	if err := next.Park(context.Background()); !errors.Is(err, s.why) {
		t.Errorf("judging it ended with %v, and not the session's end", err)
	}
}

type hotAnalysis struct{ engine.Analysis }

func (hotAnalysis) Facts() any {
	return &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Effect: postern.EffectRead, Returns: true}}}
}

// sinkConn takes whatever is written.
type sinkConn struct {
	net.Conn
	keep bool
	all  []byte
}

func (c *sinkConn) Write(p []byte) (int, error) {
	if c.keep {
		c.all = append(c.all, p...)
	}
	return len(p), nil
}

func (c *sinkConn) SetWriteDeadline(time.Time) error { return nil }
func (c *sinkConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sinkConn) Close() error                     { return nil }

// hotConn is a conn between two sinks.
func hotConn(tb testing.TB) *conn {
	tb.Helper()
	s := &hotSession{}
	e := New(Config{})
	cat := newCatalog(&sql.Catalog{Version: "v"})
	sl := e.catalogs.slot(catalogKey(&s.terms))
	sl.catalog.Store(cat)
	sl.read = time.Now()
	c := newConn(e, s, &login{conn: &sinkConn{}}, &sinkConn{})
	c.group = run.New(context.Background())
	return c
}

// feed steps a core until it has taken everything, running whatever it parks for.
func feed(tb testing.TB, core pump.Core, in []byte) {
	tb.Helper()
	for len(in) > 0 {
		n, next, err := core.Step(in)
		if err != nil {
			tb.Fatal(err)
		}
		in = in[n:]
		switch {
		case next.Park != nil:
			if err := next.Park(context.Background()); err != nil {
				tb.Fatal(err)
			}
		case n == 0:
			tb.Fatalf("the core does not take %q", in)
		}
	}
}

func message(typ byte, body string) []byte {
	b, at := begin(nil, typ)
	return end(append(b, body...), at)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// The parts of one execution of a prepared statement, and its answer.
var (
	hotParse   = join(message('P', "s1\x00select abalance from accounts where aid = $1\x00\x00\x00"), message('S', ""))
	hotExecute = join(message('B', "\x00s1\x00\x00\x00\x00\x01\x00\x00\x00\x0512345\x00\x00"), message('D', "P\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""))
	hotRow     = message('D', "\x00\x01\x00\x00\x00\x0242")
	hotDesc    = message('T', "\x00\x01abalance\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00")
	hotAnswer  = join(message('2', ""), hotDesc, hotRow, message('C', "SELECT 1\x00"), message('Z', "I"))
)

func prepared1(tb testing.TB) *conn {
	c := hotConn(tb)
	feed(tb, clientCore{c}, hotParse)
	feed(tb, targetCore{c}, join(message('1', ""), message('Z', "I")))
	return c
}

func TestCachedExecutionAllocatesNothing(t *testing.T) {
	c := prepared1(t)
	client, target := pump.Core(clientCore{c}), pump.Core(targetCore{c})
	once := func() {
		if n, next, err := client.Step(hotExecute); n != len(hotExecute) || next.Park != nil || err != nil {
			t.Fatal(n, err)
		}
		if n, _, err := target.Step(hotAnswer); n != len(hotAnswer) || err != nil {
			t.Fatal(n, err)
		}
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Fatalf("%v allocations for one cached execution", n)
	}
	simple := message('Q', "select 1\x00")
	answer := join(hotDesc, hotRow, message('C', "SELECT 1\x00"), message('Z', "I"))
	both := func() {
		feed(t, client, simple)
		feed(t, target, answer)
	}
	both()
	if n := testing.AllocsPerRun(200, both); n != 0 {
		t.Fatalf("%v allocations for one cached simple query", n)
	}
}

// TestAQueueHasOneCatalogue: what is sent while answers are to come, and was judged by a later
// catalogue than these, waits for them, so that a session under way keeps one.
func TestAQueueHasOneCatalogue(t *testing.T) {
	c := prepared1(t)
	client, target := pump.Core(clientCore{c}), pump.Core(targetCore{c})
	feed(t, client, hotExecute)
	before := c.slot.catalog.Load()
	c.slot.catalog.Store(newCatalog(&sql.Catalog{Version: "w"}))
	in, next := hotExecute, pump.Next{}
	for next.Watch == nil { // nothing else of this looks at the client while it waits
		if next.Park != nil {
			if err := next.Park(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n, want, err := client.Step(in)
		if in, next = in[n:], want; err != nil || len(in) == 0 {
			t.Fatalf("it was sent (%v)", err)
		}
	}
	if c.q.others(before) {
		t.Error("another catalogue is under way too")
	}
	feed(t, target, hotAnswer)
	if c.q.n > 0 && c.q.first().catalog != nil {
		t.Error("what was answered keeps its catalogue")
	}
	feed(t, client, in)
	if c.q.n == 0 || c.q.others(c.slot.catalog.Load()) {
		t.Error("it was not sent under the catalogue that it was judged by")
	}
}

// TestAShapeAllocatesItsTextAlone: a text with other literals than before is copied, for the
// record and for the statement; what its result is said to be is not looked at again. It
// makes no difference whether this session had the shape judged, or an earlier one.
func TestAShapeAllocatesItsTextAlone(t *testing.T) {
	c := hotConn(t)
	answer := join(hotDesc, hotRow, message('C', "SELECT 1\x00"), message('Z', "I"))
	var texts [][]byte
	for i := range 500 {
		texts = append(texts, message('Q', fmt.Sprintf("select abalance from accounts where aid = %d\x00", i)))
	}
	again := texts[0]
	once := func() {
		feed(t, clientCore{c}, texts[0])
		feed(t, targetCore{c}, answer)
		texts = texts[1:]
	}
	once()
	for _, session := range []string{"the one that had it judged", "the next"} {
		if n := testing.AllocsPerRun(200, once); n > 2 {
			t.Errorf("%s: %v allocations for one of a known shape", session, n)
		}
		same := func() {
			feed(t, clientCore{c}, again)
			feed(t, targetCore{c}, answer)
		}
		same()
		if n := testing.AllocsPerRun(200, same); n != 0 {
			t.Errorf("%s: %v allocations for the text that was judged", session, n)
		}
		c.shelve()
		c.texts = map[string]*statement{}
		c.shapes = c.e.shelf.take(c.shelfKey())
	}
}

func BenchmarkExecution(b *testing.B) {
	c := prepared1(b)
	client, target := pump.Core(clientCore{c}), pump.Core(targetCore{c})
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = client.Step(hotExecute)
		_, _, _ = target.Step(hotAnswer)
	}
}

func BenchmarkRows(b *testing.B) {
	c := prepared1(b)
	feed(b, clientCore{c}, hotExecute)
	feed(b, targetCore{c}, join(message('2', ""), hotDesc))
	var span []byte
	row := message('D', "\x00\x06"+string(make([]byte, 213)))
	for len(span) < 64<<10 {
		span = append(span, row...)
	}
	target := pump.Core(targetCore{c})
	b.SetBytes(int64(len(span)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, err := target.Step(span); n != len(span) || err != nil {
			b.Fatal(n, err)
		}
	}
}
