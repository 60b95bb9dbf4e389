package telemetry

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

func TestHistogramIsServed(t *testing.T) {
	name := strings.ToLower(rand.Text()) // histograms are for as long as the process
	series := NewHistogram("test", "postern."+name+".took", "How long a test took.",
		attribute.NewSet(attribute.String("outcome", "ok")), attribute.NewSet(attribute.String("outcome", "error")))
	for _, d := range []time.Duration{0, 100 * time.Microsecond, 101 * time.Microsecond, 3 * time.Millisecond, time.Minute} {
		series[0].Record(d)
	}
	tel, err := Setup(t.Context(), Config{}, "postern-test", "one", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tel.Shutdown(t.Context()) }()
	rec := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body := rec.Body.String()
	for _, want := range []string{
		`# TYPE postern_test_took_seconds histogram`,
		`postern_test_took_seconds_bucket{outcome="ok",le="0.0001"} 2`,
		`postern_test_took_seconds_bucket{outcome="ok",le="0.00025"} 3`,
		`postern_test_took_seconds_bucket{outcome="ok",le="0.005"} 4`,
		`postern_test_took_seconds_bucket{outcome="ok",le="10"} 4`,
		`postern_test_took_seconds_bucket{outcome="ok",le="+Inf"} 5`,
		`postern_test_took_seconds_count{outcome="ok"} 5`,
		`postern_test_took_seconds_sum{outcome="ok"} 60.0032`,
	} {
		if want = strings.Replace(want, "_test_", "_"+name+"_", 1); !strings.Contains(body, want) {
			t.Errorf("%s is not in:\n%s", want, body)
		}
	}
	if strings.Contains(body, "postern_"+name+`_took_seconds_count{outcome="error"}`) {
		t.Error("what never happened is served")
	}
	if n := testing.AllocsPerRun(100, func() { series[1].Record(time.Second) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
