package telemetry

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// bounds of histograms, in seconds: from what a point query takes to what people wait for.
var bounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// histogram is one by its name.
type histogram struct {
	scope, name, about string
	began              time.Time
	series             []*Series
}

// A Series counts durations by their length, for what happens too often to pay for the
// SDK's own histograms, which look at their attributes anew each time. It is safe for
// concurrent use.
type Series struct {
	attributes attribute.Set
	counts     [17]atomic.Uint64 // one more than bounds
	nanos      atomic.Int64
}

// produced are the histograms of this process, as instruments of OpenTelemetry are.
var produced struct {
	sync.Mutex
	all []*histogram
}

// NewHistogram makes a histogram in seconds, and returns a Series for each set of
// attributes; it lives as long as the process.
func NewHistogram(scope, name, about string, of ...attribute.Set) []*Series {
	h := &histogram{scope: scope, name: name, about: about, began: time.Now()}
	for _, a := range of {
		h.series = append(h.series, &Series{attributes: a})
	}
	produced.Lock()
	defer produced.Unlock()
	produced.all = append(produced.all, h)
	return h.series
}

// Record counts one duration.
func (s *Series) Record(d time.Duration) {
	s.counts[sort.SearchFloat64s(bounds, d.Seconds())].Add(1)
	s.nanos.Add(int64(d))
}

// producer hands the histograms to a reader of metrics.
type producer struct{}

// Produce implements the SDK's Producer.
func (producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	produced.Lock()
	defer produced.Unlock()
	var out []metricdata.ScopeMetrics
	for _, h := range produced.all {
		data := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
		for _, s := range h.series {
			if p, ok := s.point(h.began); ok {
				data.DataPoints = append(data.DataPoints, p)
			}
		}
		out = append(out, metricdata.ScopeMetrics{
			Scope:   instrumentation.Scope{Name: h.scope},
			Metrics: []metricdata.Metrics{{Name: h.name, Description: h.about, Unit: "s", Data: data}},
		})
	}
	return out, nil
}

// point is what was counted so far; false where that is nothing.
func (s *Series) point(began time.Time) (metricdata.HistogramDataPoint[float64], bool) {
	p := metricdata.HistogramDataPoint[float64]{Attributes: s.attributes, StartTime: began, Time: time.Now(), Bounds: bounds,
		BucketCounts: make([]uint64, len(s.counts)), Sum: time.Duration(s.nanos.Load()).Seconds()}
	for i := range s.counts {
		p.BucketCounts[i] = s.counts[i].Load()
		p.Count += p.BucketCounts[i]
	}
	return p, p.Count > 0
}
