package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Node is a data-plane node and what belongs to it.
type Node struct {
	*Process
	Name, Region string
	PG           string // host:port of its PostgreSQL listener
	SSH          string // of its SSH listener; empty where it has none
	HTTP         string // of its HTTP listener, and HTTPDomain what stands below each task's
	HTTPDomain   string // name there; empty where it has none
	Debug        string // host:port of its debug listener
	Data         string // its data folder
	JoinToken    string // the last that it was given
	Proxy        *Proxy // between it and the control plane; nil where there is none
	tokenFile    string
}

// Loops is what nodes under test are configured with: the default, or none at all where
// POSTERN_TEST_LOOPS is none.
func Loops() int {
	if os.Getenv("POSTERN_TEST_LOOPS") == "none" {
		return -1
	}
	return 0
}

// newNode enrols a node and writes its configuration.
func (f *Fleet) newNode(t testing.TB, spec NodeSpec) *Node {
	t.Helper()
	n := &Node{Name: spec.Name, Region: spec.Region, tokenFile: filepath.Join(f.Dir, spec.Name+".join")}
	var err error
	if n.PG, err = spec.port(); err == nil {
		n.Debug, err = spec.port()
	}
	listeners := fmt.Sprintf("  postgres: {addr: \"%s\", allowPlaintext: %t}", n.PG, spec.Plaintext)
	if spec.SSH && err == nil {
		n.SSH, err = spec.port()
		listeners += fmt.Sprintf("\n  ssh: {addr: \"%s\"}", n.SSH)
	}
	if spec.HTTP && err == nil {
		n.HTTP, err = spec.port()
		_, p, _ := strings.Cut(n.HTTP, ":")
		n.HTTPDomain = "postern.localhost:" + p
		listeners += fmt.Sprintf("\n  http: {addr: \"%s\", public: \"%s\", allowPlaintext: %t}", n.HTTP, n.HTTPDomain, spec.Plaintext)
	}
	if err != nil {
		t.Fatal(err)
	}
	control := f.nodesAddrs(spec.Replica)
	if spec.Proxied {
		n.Proxy = NewProxy(t, control[0])
		control = []string{n.Proxy.Addr}
	}
	n.Data = f.Folder(t, spec.Name)
	config := f.File(t, spec.Name+".yaml", fmt.Sprintf(`name: %s
dataDir: %s
controlPlane: ["%s"]
joinTokenFile: %s
listeners:
%s
debug: "%s"
drain: 5s
spool: {maxBytes: %d}
loops: %d
telemetry: {logLevel: %s, logFormat: json, profiling: %t}
`, n.Name, n.Data, strings.Join(control, `", "`), n.tokenFile, listeners, n.Debug, cmp.Or(spec.Spool, 256<<20), Loops(), f.logLevel(), spec.Profiling))
	n.Process = f.process(t, n.Name, "postern-node", n.Data, "--config", config)
	n.Process.in = spec.In
	if spec.Binary != "" {
		n.Process.path = spec.Binary
	}
	f.Nodes[n.Name] = n
	f.enrol(t, n)
	return n
}

// enrol gives a node a fresh join token.
func (f *Fleet) enrol(t testing.TB, n *Node) {
	t.Helper()
	n.JoinToken = f.Must(t, "ada", "nodes", "enrol", n.Name, "--region", n.Region)
	f.File(t, filepath.Base(n.tokenFile), n.JoinToken+"\n")
}

// Wipe forgets all that a stopped node has on disk, and gives it a new join token.
func (f *Fleet) Wipe(t testing.TB, n *Node) {
	t.Helper()
	if err := os.RemoveAll(n.Data); err != nil {
		t.Fatal(err)
	}
	f.Folder(t, filepath.Base(n.Data))
	f.enrol(t, n)
}

// NodeStatus is what "postern nodes" says of one node.
type NodeStatus struct {
	Name, Region string
	Connected    bool
	Version      struct{ Epoch, Revision string }
	Lag          string
	Rejections   []struct{ Object, Reason string }
	Report       struct {
		Sessions  string
		Resources []string
		Draining  bool
	}
	Release   string
	Endpoints map[string]string
}

// Status asks for the whole fleet, as ada.
func (f *Fleet) Status(t testing.TB) (map[string]NodeStatus, error) {
	t.Helper()
	r := f.Run(t, "ada", "nodes", "--format", "json")
	if r.Code != 0 {
		return nil, errors.New(r.Stderr)
	}
	var all []NodeStatus
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		return nil, fmt.Errorf("%w in %s", err, r.Stdout)
	}
	out := map[string]NodeStatus{}
	for _, n := range all {
		out[n.Name] = n
	}
	return out, nil
}

// AwaitServing waits until a node is connected, serves the warehouse and answers.
func (f *Fleet) AwaitServing(t testing.TB, name string) time.Duration {
	t.Helper()
	n := f.Nodes[name]
	began := time.Now()
	_, err := eventually(t.Context(), startWait, func() error {
		select {
		case <-n.Ended():
			return fmt.Errorf("it ended: %w", n.err)
		default:
		}
		if err := Ready(n.Debug); err != nil {
			return err
		}
		all, err := f.Status(t)
		if err != nil {
			return err
		}
		if st := all[name]; !st.Connected || !slices.Contains(st.Report.Resources, "warehouse") {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("node %s does not serve: %v", name, err)
	}
	return time.Since(began)
}

// AwaitConverged waits until every node enforces one version of the revision given or a
// later one, nothing lags and nothing was rejected, and returns that version.
func (f *Fleet) AwaitConverged(t testing.TB, within time.Duration, atLeast int64) (epoch, revision string) {
	t.Helper()
	_, err := eventually(context.Background(), within, func() error {
		all, err := f.Status(t)
		if err != nil {
			return err
		}
		epoch, revision = "", ""
		for _, st := range all {
			if epoch == "" {
				epoch, revision = st.Version.Epoch, st.Version.Revision
			}
			if !st.Connected || st.Version.Epoch != epoch || st.Version.Revision != revision || len(st.Rejections) > 0 || st.Lag != "" && st.Lag != "0s" {
				return fmt.Errorf("%+v", all)
			}
		}
		if n, err := strconv.ParseInt(revision, 10, 64); err != nil || n < atLeast {
			return fmt.Errorf("all are at %q, and %d is published (%w)", revision, atLeast, err)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the nodes do not converge: %v", err)
	}
	return epoch, revision
}
