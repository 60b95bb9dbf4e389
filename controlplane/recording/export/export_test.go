package export_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func lines(t *testing.T, path string) (out []export.Record) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r export.Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, s.Text())
		}
		out = append(out, r)
	}
	return out
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	f, err := export.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	u := &index.Update{
		Session: &typesv1.Session{Id: "s-1", Subject: "alice", Actors: []string{"helper", "nightly"}, Resource: "warehouse", StartTime: timestamppb.New(at), EndTime: timestamppb.New(at.Add(time.Hour)), EndReason: "left"},
		Head:    index.Head{Next: 1},
		Statements: []index.Statement{{Number: 1, Time: at, Text: "SELECT '<'", Verdict: postern.VerdictAllow,
			Touched: []record.Touch{{Column: "a.b.c", Role: record.RoleOutput | record.RoleWrite, Mask: "m"}}}},
		Outcomes: []index.Outcome{{Number: 1, Verdict: postern.VerdictAllow, Rows: 3, Affected: -1}},
	}
	if err := f.Write(u); err != nil {
		t.Fatal(err)
	}
	got := lines(t, path)
	if len(got) != 3 || got[0].Kind != export.KindOpened || !got[0].Time.Equal(at) || got[1].Text != "SELECT '<'" || got[1].Columns[0].Roles[1] != "write" || got[2].Rows != 3 || got[2].Subject != "alice" || strings.Join(got[2].Actors, " for ") != "helper for nightly" {
		t.Errorf("%+v", got)
	}
	// It is moved away, and goes on anew.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	u.Head, u.Statements, u.Outcomes = index.Head{Next: 2, Sealed: true}, nil, nil
	if err := f.Write(u); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, path); len(got) != 1 || got[0].Kind != export.KindEnded || got[0].Reason != "left" {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := export.Open(filepath.Join(t.TempDir(), "none", "x")); err == nil {
		t.Error("a file in no folder was opened")
	}
}
