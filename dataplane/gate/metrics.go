package gate

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/posterngate/postern/pkg/postern"
)

// instruments are what the gate counts. The options are made once, as slices, so that counting
// allocates nothing.
type instruments struct {
	decisions metric.Int64Counter
	duration  metric.Float64Histogram
	holds     metric.Int64UpDownCounter
	verdicts  [3][]metric.AddOption
	ok, fail  []metric.RecordOption
}

var loadInstruments = sync.OnceValue(func() *instruments {
	m := otel.Meter("postern/gate")
	var i instruments
	i.decisions, _ = m.Int64Counter("postern.decisions", metric.WithDescription("Statements judged, by verdict."))
	i.duration, _ = m.Float64Histogram("postern.statement.duration", metric.WithUnit("s"), metric.WithDescription("From the way to the resource to the end of the answer."))
	i.holds, _ = m.Int64UpDownCounter("postern.holds.waiting", metric.WithDescription("Executions and sessions that wait for people."))
	for v := range i.verdicts {
		i.verdicts[v] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("verdict", postern.Verdict(v).String())))}
	}
	i.ok = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "ok")))}
	i.fail = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "error")))}
	return &i
})

func (i *instruments) decision(v postern.Verdict) {
	i.decisions.Add(context.Background(), 1, i.verdicts[v]...)
}

func (i *instruments) finished(d time.Duration, code string) {
	outcome := i.ok
	if code != "" {
		outcome = i.fail
	}
	i.duration.Record(context.Background(), d.Seconds(), outcome...)
}

func (i *instruments) waiting(n int64) { i.holds.Add(context.Background(), n) }
