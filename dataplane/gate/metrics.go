package gate

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/telemetry"
)

// instruments are what the gate counts. What is counted for each statement costs an
// addition.
type instruments struct {
	verdicts [3]atomic.Int64
	ok, fail *telemetry.Series
	holds    metric.Int64UpDownCounter
}

var loadInstruments = sync.OnceValue(func() *instruments {
	m := otel.Meter("postern/gate")
	i := &instruments{}
	var of [3]metric.ObserveOption
	for v := range of {
		of[v] = metric.WithAttributes(attribute.String("verdict", postern.Verdict(v).String()))
	}
	_, _ = m.Int64ObservableCounter("postern.decisions", metric.WithDescription("Statements judged, by verdict."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for v := range of {
				if n := i.verdicts[v].Load(); n > 0 {
					o.Observe(n, of[v])
				}
			}
			return nil
		}))
	took := telemetry.NewHistogram("postern/gate", "postern.statement.duration", "From the way to the resource to the end of the answer.",
		attribute.NewSet(attribute.String("outcome", "ok")), attribute.NewSet(attribute.String("outcome", "error")))
	i.ok, i.fail = took[0], took[1]
	i.holds, _ = m.Int64UpDownCounter("postern.holds.waiting", metric.WithDescription("Executions and sessions that wait for people."))
	return i
})

func (i *instruments) decision(v postern.Verdict) { i.verdicts[v].Add(1) }

func (i *instruments) finished(d time.Duration, code string) {
	if code != "" {
		i.fail.Record(d)
		return
	}
	i.ok.Record(d)
}

func (i *instruments) waiting(n int64) { i.holds.Add(context.Background(), n) }
