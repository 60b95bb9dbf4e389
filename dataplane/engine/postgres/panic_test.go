package postgres

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/test/wait"
)

// brittle is a session with a fault in what is asked in the midst of a step.
type brittle struct {
	engine.Session
	broken *atomic.Bool
}

func (b brittle) Stale(a *engine.Admission) bool {
	if b.broken.Load() {
		panic("planted")
	}
	return b.Session.Stale(a)
}

type brittleDoor struct {
	*enginetest.Door
	broken atomic.Bool
}

func (d *brittleDoor) Open(ctx context.Context, c engine.Claim) (engine.Session, error) {
	s, err := d.Door.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return brittle{s, &d.broken}, nil
}

// TestAPanicEndsItsSession, and does not leave it to wait for itself.
func TestAPanicEndsItsSession(t *testing.T) {
	for name, loops := range map[string]*pump.Loops{"loops": loops(), "goroutines": nil} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.Loops = loops })
			d := &brittleDoor{Door: h.door}
			h.addr = enginetest.Serve(t, h.engine, d)
			w := h.wire(t)
			if err := w.conn.SetDeadline(time.Now().Add(wait.Patience)); err != nil {
				t.Fatal(err)
			}
			if got := w.say(1, q("select 1")); got != "T D:1 C:SELECT 1 Z:I" {
				t.Fatal(got)
			}
			d.broken.Store(true)
			_ = w.say(1, q("select 1"))
			if err := h.door.Last().Closed(); err == nil {
				t.Error("it ended as if nothing had been")
			}
		})
	}
}
