package export_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// collector takes OTLP logs, as an OpenTelemetry collector does.
type collector struct {
	logsv1.UnimplementedLogsServiceServer

	mu       sync.Mutex
	logs     []*logv1.LogRecord
	fail     error
	rejected int64
}

func (c *collector) Export(_ context.Context, r *logsv1.ExportLogsServiceRequest) (*logsv1.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, c.fail
	}
	for _, rl := range r.GetResourceLogs() {
		if name := rl.GetResource().GetAttributes()[0]; name.GetKey() != "service.name" || name.GetValue().GetStringValue() != "postern-control" {
			return nil, errors.New("not of postern-control")
		}
		for _, sl := range rl.GetScopeLogs() {
			if sl.GetScope().GetName() != export.Scope || sl.GetScope().GetVersion() != "1" {
				return nil, errors.New("another schema")
			}
			c.logs = append(c.logs, sl.GetLogRecords()...)
		}
	}
	return &logsv1.ExportLogsServiceResponse{PartialSuccess: &logsv1.ExportLogsPartialSuccess{RejectedLogRecords: c.rejected}}, nil
}

// attributes are those of a log record, as text.
func attributes(l *logv1.LogRecord) map[string]string {
	out := map[string]string{}
	for _, a := range l.GetAttributes() {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			out[a.GetKey()] = a.GetValue().String()
		}
	}
	return out
}

func TestOTLP(t *testing.T) {
	var said strings.Builder
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, server := &collector{}, grpc.NewServer()
	logsv1.RegisterLogsServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	o, err := export.DialOTLP("http://"+l.Addr().String(), "", slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })

	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	u := &index.Update{
		Session: &typesv1.Session{Id: "s-1", Subject: "alice", Task: "sales-report", Resource: "warehouse", Node: "node-1", StartTime: timestamppb.New(at), EndReason: "left"},
		Head:    index.Head{Next: 2, Sealed: true},
		Chunks:  make([]index.Stored, 2),
		Statements: []index.Statement{
			{Number: 1, Time: at, Text: "SELECT a FROM b", Verdict: postern.VerdictAllow, Rule: "r", Touched: []record.Touch{{Column: "a.b.c", Role: record.RoleOutput, Mask: "m"}}},
			{Number: 2, Time: at.Add(time.Second), Text: "DROP TABLE b", Verdict: postern.VerdictDeny, Reason: "no permit"},
		},
		Outcomes: []index.Outcome{{Number: 1, Verdict: postern.VerdictAllow, Rows: 3, Affected: -1, Duration: 1500 * time.Microsecond}},
	}
	// What is not taken is an error, so that the chunk stays with its node and comes again.
	c.fail = errors.New("busy")
	if err := o.Write(export.Records(u, time.Now())); err == nil {
		t.Error("what the collector did not take counts as told")
	}
	// What is refused for good holds up nothing, and is told.
	c.fail, c.rejected = nil, 1
	if err := o.Write(export.Records(u, time.Now())); err != nil || o.Refused() != 1 || !strings.Contains(said.String(), "refused=1 of=5") {
		t.Errorf("of a record that is refused for good: %v, counted %d, logged %q", err, o.Refused(), said.String())
	}
	c.rejected, c.logs = 0, nil
	if err := o.Write(export.Records(u, time.Now())); err != nil {
		t.Fatal(err)
	}
	if len(c.logs) != 5 {
		t.Fatalf("%d records: %v", len(c.logs), c.logs)
	}
	for i, want := range []struct {
		event, body, severity string
		attributes            map[string]string
	}{
		{"postern.session.opened", "", "INFO", map[string]string{"postern.session": "s-1", "postern.subject": "alice", "postern.task": "sales-report", "postern.node": "node-1"}},
		{"postern.statement", "SELECT a FROM b", "INFO", map[string]string{"postern.number": "1", "postern.verdict": "allow", "postern.rule": "r"}},
		{"postern.statement", "DROP TABLE b", "WARN", map[string]string{"postern.number": "2", "postern.verdict": "deny", "postern.reason": "no permit"}},
		{"postern.outcome", "", "INFO", map[string]string{"postern.rows": "3", "postern.affected": "-1", "postern.durationUs": "1500"}},
		{"postern.session.ended", "left", "INFO", map[string]string{"postern.kind": export.KindEnded}},
	} {
		got := c.logs[i]
		if got.GetEventName() != want.event || got.GetBody().GetStringValue() != want.body || got.GetSeverityText() != want.severity {
			t.Errorf("record %d: %v", i, got)
		}
		have := attributes(got)
		for k, v := range want.attributes {
			if have[k] != v {
				t.Errorf("record %d: %s is %q, want %q", i, k, have[k], v)
			}
		}
	}
	if got := c.logs[1]; got.GetTimeUnixNano() != uint64(at.UnixNano()) || !strings.Contains(attributes(got)["postern.columns"], "a.b.c") {
		t.Errorf("%v", got)
	}
	// A long update goes in parts.
	c.logs = nil
	for n := range uint64(2000) {
		u.Statements = append(u.Statements, index.Statement{Number: n + 3, Time: at, Text: "SELECT 1"})
	}
	if err := o.Write(export.Records(u, time.Now())); err != nil || len(c.logs) != 2005 {
		t.Errorf("%d records, %v", len(c.logs), err)
	}
	// Long ones go in parts that a collector takes as it comes.
	c.logs, u.Statements = nil, nil
	for n := range uint64(1000) {
		u.Statements = append(u.Statements, index.Statement{Number: n + 1, Time: at, Text: strings.Repeat("x", index.MaxText)})
	}
	u.Statements[500].Reason = strings.Repeat("y", 2<<20)
	if err := o.Write(export.Records(u, time.Now())); err != nil || len(c.logs) != 1003 {
		t.Errorf("%d records, %v", len(c.logs), err)
	}
	server.Stop()
	if err := o.Write(export.Records(&index.Update{Session: u.Session, Head: index.Head{Next: 1}, Chunks: u.Chunks[:1]}, time.Now())); err == nil {
		t.Error("nobody listens, and it counts as told")
	}
	for _, bad := range []string{"collector:4317", "http://collector:4317", "https://", "ftp://127.0.0.1:1", "https://c:1/path"} {
		if _, err := export.DialOTLP(bad, "", slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
