package export_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/controlplane/recording/index"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
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
		Session: &typesv1.Session{Id: "s-1", Subject: "alice", Actors: []string{"helper", "nightly"}, Doubt: "the grant is bob's", Resource: "warehouse", StartTime: timestamppb.New(at), EndTime: timestamppb.New(at.Add(time.Hour)), EndReason: "left"},
		Head:    index.Head{Next: 1},
		Chunks:  make([]index.Stored, 1),
		Statements: []index.Statement{{Number: 1, Time: at, Text: "SELECT '<'", Verdict: postern.VerdictAllow,
			Touched: []record.Touch{{Column: "a.b.c", Role: record.RoleOutput | record.RoleWrite, Mask: "m"}}}},
		Outcomes: []index.Outcome{{Number: 1, Verdict: postern.VerdictAllow, Rows: 3, Affected: -1}},
	}
	if err := f.Write(export.Records(u, time.Now())); err != nil {
		t.Fatal(err)
	}
	got := lines(t, path)
	if len(got) != 3 || got[0].Kind != export.KindOpened || !got[0].Time.Equal(at) || got[1].Text != "SELECT '<'" || got[1].Columns[0].Roles[1] != "write" || got[2].Rows != 3 || got[2].Subject != "alice" || strings.Join(got[2].Actors, " for ") != "helper for nightly" || got[0].Doubt != "the grant is bob's" {
		t.Errorf("%+v", got)
	}
	// It is moved away, and goes on anew.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	u.Head, u.Statements, u.Outcomes = index.Head{Next: 2, Sealed: true}, nil, nil
	if err := f.Write(export.Records(u, time.Now())); err != nil {
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

// TestFileBehindHalfALine shows that what a full disk cut short takes no further line with it.
func TestFileBehindHalfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	f, err := export.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	records := []export.Record{{Schema: 1, Kind: export.KindStatement, Session: "s-1", Number: 1}, {Schema: 1, Kind: export.KindStatement, Session: "s-1", Number: 2}}
	if err := f.Write(records); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(whole)-20)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Write(records); err != nil {
			t.Fatal(err)
		}
	}
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(whole[:len(whole)-20]) + "\n" + string(whole) + string(whole); string(all) != want {
		t.Errorf("the file has\n%s, want\n%s", all, want)
	}
}

// TestEntry shows what is told of the audit log, and which of it is an alert.
func TestEntry(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		entry *apiv1.AuditEntry
		want  export.Record
	}{
		{
			&apiv1.AuditEntry{Sequence: 7, Time: timestamppb.New(at), Actor: "alice", Actors: []string{"helper"}, Address: "10.0.0.1", Action: "SetLock", Object: "lock/a subject/b", Outcome: "ok", Detail: `{"count":1.5}`},
			export.Record{Schema: 1, Kind: export.KindAudit, Time: at, Sequence: 7, Actor: "alice", Actors: []string{"helper"}, Address: "10.0.0.1", Action: "SetLock", Objects: []string{"lock/a", "subject/b"}, Outcome: "ok", Detail: `{"count":1.5}`},
		},
		{
			&apiv1.AuditEntry{Sequence: 8, Time: timestamppb.New(at), Actor: "node/n1", Action: "session.alert", Object: "session/s-1", Detail: `{"alert":"a tool has changed","subject":"alice","task":"t","resource":"mcp"}`},
			export.Record{Schema: 1, Kind: export.KindAlert, Time: at, Sequence: 8, Actor: "node/n1", Node: "n1", Session: "s-1", Subject: "alice", Task: "t", Resource: "mcp", Action: "session.alert",
				Objects: []string{"session/s-1"}, Text: "a tool has changed", Detail: `{"alert":"a tool has changed","subject":"alice","task":"t","resource":"mcp"}`},
		},
		{
			&apiv1.AuditEntry{Sequence: 9, Time: timestamppb.New(at), Actor: "postern", Action: "workload.alert", Object: "workload/w", Outcome: "orphan", Detail: `{"owner":"bob","text":"its owner is locked"}`},
			export.Record{Schema: 1, Kind: export.KindAlert, Time: at, Sequence: 9, Actor: "postern", Action: "workload.alert", Objects: []string{"workload/w"}, Outcome: "orphan",
				Text: "its owner is locked", Detail: `{"owner":"bob","text":"its owner is locked"}`},
		},
		{
			&apiv1.AuditEntry{Sequence: 10, Time: timestamppb.New(at), Action: "Other", Detail: `["x"]`},
			export.Record{Schema: 1, Kind: export.KindAudit, Time: at, Sequence: 10, Action: "Other", Objects: []string{}, Detail: `["x"]`},
		},
	} {
		if got := export.Entry(c.entry); !reflect.DeepEqual(got, c.want) {
			t.Errorf("got  %+v\nwant %+v", got, c.want)
		}
	}
}
