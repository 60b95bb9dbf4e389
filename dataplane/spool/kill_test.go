package spool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
)

// killEnv makes the test binary the process that is killed; it names the folder.
const killEnv = "POSTERN_TEST_SPOOL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		if err := victim(dir, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// folder is an Uplink that stores chunks as files, each once, so that they outlive the
// process. It loses some acknowledgements.
type folder struct{ dir string }

func (f folder) Stream(ctx context.Context, next func(context.Context) (Chunk, error), acked func(string, uint32), _ func(string, uint32, string)) error {
	for {
		c, err := next(ctx)
		if err != nil {
			return err
		}
		if err := f.keep(c.Session, c.Index, c.Data); err != nil {
			return err
		}
		next := c.Index + 1
		if len(c.Seal) > 0 && rand.N(4) > 0 { // else as an earlier version, or one that was killed in between
			if err := f.keep(c.Session, next, c.Seal); err != nil {
				return err
			}
			next++
		}
		if rand.N(64) == 0 {
			return errBroken
		}
		acked(c.Session, next)
	}
}

func (f folder) keep(session string, index uint32, data []byte) error {
	path := filepath.Join(f.dir, fmt.Sprintf("%s.%06d", session, index))
	switch have, err := os.ReadFile(path); {
	case err == nil && !bytes.Equal(have, data):
		return os.WriteFile(path+".differs", data, 0o600)
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path))
	default:
		return err
	}
}

// killSegment is large enough that the next segment is there before one is full, on a
// machine that is busy and has few cores too.
const killSegment = 16 * testSegment

func killConfig(dir string) Config {
	return Config{Dir: filepath.Join(dir, "spool"), Node: "node-1", Key: nodeKey, Uplink: folder{filepath.Join(dir, "store")}, RecordingKey: recordingKey.PublicKey,
		SegmentBytes: killSegment, MaxBytes: 800 * killSegment}
}

// victim records in several sessions and modes until it is killed. Each line of its
// output is an event that Record took: session and seq.
func victim(dir, round string) error {
	s, recovery, err := Open(killConfig(dir))
	if err != nil {
		return err
	}
	if len(recovery.Lost) > 0 {
		return fmt.Errorf("recovery: %+v", recovery)
	}
	g := run.New(context.Background())
	g.Go("spool", s.Run)
	fmt.Println("ready")
	var out sync.Mutex
	rows := string(prose(256 << 10))
	for i, m := range []Mode{Local, Local, Disk, Remote} {
		g.Go("session", func(context.Context) error {
			for n := 0; ; n++ {
				id := fmt.Sprintf("s%s-%d-%d", round, i, n)
				r, err := s.Session(meta(id))
				if err != nil {
					return err
				}
				for j := range rand.Uint64N(300) {
					e := intent(j + 1)
					e.Text = strings.Repeat("select 1;", rand.N(100))
					if rand.N(50) == 0 {
						e.Text = strings.Repeat("insert;", 30_000) // several frames
					}
					if rand.N(20) == 0 { // what is taken behind them promises them too
						for range 4 {
							if err := r.Record(&record.Event{Kind: record.KindNote, Text: rows[rand.N(len(rows)/2):][:40<<10]}, Async); err != nil {
								return err
							}
						}
					}
					if err := r.Record(e, m); err != nil {
						return err
					}
					out.Lock()
					fmt.Println(id, e.Seq)
					out.Unlock()
				}
				if err := r.Close("done"); err != nil {
					return err
				}
				out.Lock()
				fmt.Println(id, "closed")
				out.Unlock()
			}
		})
	}
	return g.Wait()
}

// The process is killed at random times, again and again on one folder. Every event that
// Record took is in the store in the end, every recording verifies, and no chunk was
// sent with other bytes the second time.
func TestKill(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv("POSTERN_FAULTS_RUNS")); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	seqs := map[string]uint64{}
	closed := map[string]bool{}
	for round := range rounds {
		kill(t, dir, round, func(id, what string) {
			if what == "closed" {
				closed[id] = true
				return
			}
			seq, err := strconv.ParseUint(what, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			seqs[id] = max(seqs[id], seq)
		})
	}
	s, _, stop := start(t, killConfig(dir))
	drain(t, s)
	stop()
	states := map[record.State]int{}
	for id, seq := range seqs {
		chunks := readStore(t, dir, id)
		r, err := record.Verify(each(chunks), nodeKey.Public(), dataKey(t, chunks))
		if err != nil || len(r.Errors) > 0 {
			t.Errorf("session %s: %v %v", id, err, r.Errors)
		}
		if uint64(r.Events) < seq {
			t.Errorf("session %s: event %d was recorded, and only %d are there", id, seq, r.Events)
		}
		if closed[id] && r.State != record.StateSealed || r.State == record.StateOpen {
			t.Errorf("session %s is %s; closed: %t", id, r.State, closed[id])
		}
		states[r.State]++
	}
	if differs, _ := filepath.Glob(filepath.Join(dir, "store", "*.differs")); len(differs) > 0 {
		t.Errorf("sent again with other bytes: %v", differs)
	}
	if states[record.StateTruncated] == 0 || states[record.StateSealed] == 0 {
		t.Errorf("the test has shown little: %v", states)
	}
	t.Logf("%d kills, %v", rounds, states)
}

func kill(t *testing.T, dir string, round int, took func(id, what string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0], strconv.Itoa(round))
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("round %d: %q %s", round, lines.Text(), &stderr)
	}
	timer := time.AfterFunc(time.Duration(rand.N(250))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		if id, what, ok := strings.Cut(lines.Text(), " "); ok && what != "" {
			took(id, what)
		}
	}
	_ = cmd.Wait()
	if cmd.ProcessState.Exited() {
		t.Fatalf("round %d ended by itself: %s", round, &stderr)
	}
}

func readStore(t *testing.T, dir, id string) [][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "store", id+".*[0-9]")) // in order of their names
	if err != nil {
		t.Fatal(err)
	}
	var chunks [][]byte
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, data)
	}
	return chunks
}
