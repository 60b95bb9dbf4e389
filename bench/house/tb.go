package house

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/posterngate/postern/pkg/run"
)

// tb lets a program use what was written for tests: the fleet of the end-to-end suites.
// What is fatal there ends one try here. Only what the fleet uses is implemented.
type tb struct {
	testing.TB // nil; for the method that others cannot implement
	ctx        context.Context
	log        io.Writer

	mu       sync.Mutex
	errs     []error
	cleanups []func()
}

func (t *tb) Helper()                  {}
func (t *tb) Name() string             { return "bench" }
func (t *tb) Context() context.Context { return t.ctx }

func (t *tb) Log(args ...any)                 { fmt.Fprintln(t.log, args...) }
func (t *tb) Logf(format string, args ...any) { fmt.Fprintf(t.log, format+"\n", args...) }

func (t *tb) fail(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, errors.New(strings.TrimSpace(text)))
}

func (t *tb) Error(args ...any)                 { t.fail(fmt.Sprintln(args...)) }
func (t *tb) Errorf(format string, args ...any) { t.fail(fmt.Sprintf(format, args...)) }
func (t *tb) Fatal(args ...any)                 { t.fail(fmt.Sprintln(args...)); runtime.Goexit() }
func (t *tb) Fatalf(format string, args ...any) {
	t.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
func (t *tb) FailNow() { t.fail("failed"); runtime.Goexit() }

func (t *tb) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errs) > 0
}

func (t *tb) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *tb) TempDir() string {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// try runs f to its end or to what is fatal in it, and returns what went wrong.
func (t *tb) try(f func(testing.TB)) error {
	g := run.New(t.ctx)
	g.Go("bench", func(context.Context) error { f(t); return nil })
	err := g.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	err = errors.Join(append(t.errs, err)...)
	t.errs = nil
	return err
}

// end runs the cleanups, the last first.
func (t *tb) end() error {
	return t.try(func(testing.TB) {
		for {
			t.mu.Lock()
			n := len(t.cleanups)
			if n == 0 {
				t.mu.Unlock()
				return
			}
			f := t.cleanups[n-1]
			t.cleanups = t.cleanups[:n-1]
			t.mu.Unlock()
			f()
		}
	})
}
