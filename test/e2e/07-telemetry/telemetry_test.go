// Package telemetry shows what operators see of a session, and that it is no more than
// they may.
package telemetry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	tel "github.com/posterngate/postern/pkg/telemetry"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

func TestOneTraceFromClientToControlPlane(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	h := house.Start(t)
	spans.Reset()

	const canary = "canary@telemetry.example"
	c := h.Connect(t, "alice", "sales-report")
	if _, err := c.Exec(t.Context(), "SELECT email FROM customers WHERE email = '"+canary+"'"); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Exec(t.Context(), "SELECT * FROM hr.salaries") // refused
	_ = c.Close(t.Context())

	want := []string{"connection", "open session", "postern.node.v1.GrantService/OpenGrant", "lend credential", "postern.node.v1.CredentialService/Lease", "judge statement"}
	var got []string
	house.Eventually(t, func() string { return fmt.Sprintf("spans of the trace: %q", got) }, func() bool {
		got = nil
		all := spans.GetSpans()
		at := slices.IndexFunc(all, func(s tracetest.SpanStub) bool { return s.Name == "open session" })
		if at < 0 {
			return false
		}
		trace := all[at].SpanContext.TraceID()
		kinds := map[string]int{}
		for _, s := range all {
			if s.SpanContext.TraceID() == trace {
				got = append(got, s.Name)
				kinds[s.Name]++
			}
		}
		for _, name := range want {
			if kinds[name] == 0 {
				return false
			}
		}
		// Of each call there are two spans: the node's and the control plane's.
		return kinds["postern.node.v1.GrantService/OpenGrant"] >= 2 && kinds["postern.node.v1.CredentialService/Lease"] >= 2
	})
	secrets := []string{canary, h.DataToken(t, "alice"), "salaries"}
	for _, s := range spans.GetSpans() {
		text := fmt.Sprint(s.Name, s.Attributes, s.Events, s.Status)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("span %s holds %.30q", s.Name, secret)
			}
		}
	}
	for _, secret := range secrets {
		if strings.Contains(h.Log(), secret) {
			t.Errorf("the log holds %.30q", secret)
		}
	}
}

func TestMetrics(t *testing.T) {
	tm, err := tel.Setup(t.Context(), tel.Config{}, "test", "test", t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tm.Shutdown(t.Context()) }()
	h := house.Start(t)
	c := h.Connect(t, "alice", "sales-report")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	var body string
	house.Eventually(t, func() string { return body }, func() bool {
		rec := httptest.NewRecorder()
		tm.Metrics.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		body = rec.Body.String()
		for _, want := range []string{
			"postern_sessions 1", `postern_decisions_total{verdict="allow"}`, `postern_statement_duration_seconds_bucket{outcome="ok"`, "postern_leases", "postern_spool_depth_bytes",
			"postern_policy_staleness_seconds", `postern_node_connected{node="node-1"`, `postern_publication_lag_seconds{node="node-1"`,
		} {
			if !strings.Contains(body, want) {
				return false
			}
		}
		return true
	})
}
