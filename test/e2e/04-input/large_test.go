package input

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/e2e/house"
)

// largeWorld is a task without limits, of which few rows are kept.
const largeWorld = `
kind: Task
metadata: {name: large}
spec:
  purpose: read more than anybody can
  resources: {names: [warehouse]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  record: {resultRows: 20}
  duration: 1h
---
kind: Binding
metadata: {name: large}
spec: {subjects: [{group: analysts}], tasks: [large]}
`

// large is a statement of a gigabyte and a result of ten million rows, where
// POSTERN_LARGE asks for that; else an eighth and a sixth of it. The first is refused and
// its hash kept, the second passes and is counted whole.
func large(t *testing.T, h *house.House) {
	bytes, joins, rows := 1<<27, 8, int64(1_679_616) // 6 to the power of joins
	if os.Getenv("POSTERN_LARGE") != "" {
		bytes, joins, rows = 1<<30, 9, 10_077_696
	}
	t.Run("a statement", func(t *testing.T) {
		for range 5 { // a client that pauses for two seconds in its middle has not sent it
			hash, code, err := query(t, h, bytes)
			if err == nil && code != "08P01" {
				t.Fatalf("refused with %s", code)
			}
			late := time.Now().Add(house.Patience)
			for err == nil && time.Now().Before(late) {
				if recorded(t, h, "denied")[record{Kind: "denied", SHA256: hash, Bytes: int64(bytes - 6)}] > 0 {
					return
				}
			}
		}
		t.Error("its size and hash are not on record")
	})
	t.Run("a result", func(t *testing.T) {
		var tables []string
		for i := range joins {
			tables = append(tables, fmt.Sprintf("sales.regions r%d", i))
		}
		c := h.Connect(t, "alice", "large").PgConn()
		r := c.ExecParams(t.Context(), "SELECT r0.code FROM "+strings.Join(tables, ", "), nil, nil, nil, nil)
		n := int64(0)
		for r.NextRow() {
			n++
		}
		if _, err := r.Close(); err != nil || n != rows {
			t.Fatalf("%d rows came, want %d: %v", n, rows, err)
		}
		house.Eventually(t, func() string { return "it is counted, and a few rows are kept" }, func() bool {
			kept := int64(0)
			for e, n := range recorded(t, h, "rows") {
				kept += e.Rows * n
			}
			for e := range recorded(t, h, "finished") {
				if e.Rows == rows {
					return kept == 20
				}
			}
			return false
		})
	})
}

// recorded counts the events of a kind that sessions of the task have on record.
func recorded(t *testing.T, h *house.House, kind string) map[record]int64 {
	t.Helper()
	var sessions []struct{ ID string }
	list := h.CLI(t, "bob", "sessions", "list", "--task", "large", "--format", "json")
	if err := json.Unmarshal([]byte(list.Out), &sessions); err != nil {
		t.Fatal(err, list.All())
	}
	found := map[record]int64{}
	for _, s := range sessions {
		for line := range strings.Lines(h.CLI(t, "bob", "sessions", "replay", s.ID, "--format", "json").Out) {
			var e record
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err, line)
			}
			if e.Kind == kind {
				found[e]++
			}
		}
	}
	return found
}

// record is what is asked of a recorded event.
type record struct {
	Kind   string `json:"kind"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
	Rows   int64  `json:"rows"`
}

// query sends a simple query in a message of that many bytes, and returns the hash of its
// text and the code that it is refused with.
func query(t *testing.T, h *house.House, size int) (hash, code string, err error) {
	t.Helper()
	hijacked := house.Must(h.Connect(t, "alice", "large").PgConn().Hijack())(t)
	defer hijacked.Conn.Close()
	sum := sha256.New()
	w := bufio.NewWriterSize(hijacked.Conn, 1<<20)
	_, _ = w.Write(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(size-1)))
	_, err = io.Copy(io.MultiWriter(w, sum), io.MultiReader(strings.NewReader("SELECT '"), io.LimitReader(same{}, int64(size-6-len("SELECT ''"))), strings.NewReader("'")))
	if err := errors.Join(err, w.WriteByte(0), w.Flush()); err != nil {
		return "", "", err
	}
	m, err := hijacked.Frontend.Receive()
	if err != nil {
		return "", "", err
	}
	refused, ok := m.(*pgproto3.ErrorResponse)
	if !ok {
		t.Fatalf("answered %T", m)
	}
	return hex.EncodeToString(sum.Sum(nil)), pgconn.ErrorResponseToPgError(refused).Code, nil
}

// same is one letter for ever.
type same struct{}

func (same) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
