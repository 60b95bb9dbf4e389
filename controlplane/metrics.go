package controlplane

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/posterngate/postern/pkg/policy"
)

// observe registers what operators watch of the control plane. The returned function
// ends it.
func (s *Server) observe() (func(), error) {
	m := otel.Meter("postern/control")
	var errs []error
	gauge := func(name, unit, about string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return g
	}
	connected := gauge("postern.node.connected", "", "1 where a node's stream is open.")
	lag := gauge("postern.publication.lag", "s", "How long a node has been behind the policy that concerns it.")
	rejected := gauge("postern.publication.rejected", "{object}", "Objects that a node could not apply.")
	stale := gauge("postern.store.staleness", "s", "How old this replica's view of the store may be.")
	revision := gauge("postern.publication.revision", "{revision}", "Newest revision that changed what nodes enforce; a node that misses nothing is at it, or past it.")
	needy := gauge("postern.workload.alerts", "{workload}", "Workloads that need somebody: their owner is locked, or they end within a week.")
	refused, err := m.Int64ObservableCounter("postern.export.refused", metric.WithUnit("{record}"), metric.WithDescription("Records that the collector has refused for good."))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveFloat64(stale, s.cache.Staleness().Seconds())
		o.ObserveFloat64(revision, float64(s.hub.Version().Revision))
		if s.collector != nil {
			o.ObserveInt64(refused, s.collector.Refused())
		}
		why := map[string]float64{policy.OwnerLocked: 0, policy.EndsSoon: 0, policy.IsOver: 0}
		for _, n := range s.steward.Needs() {
			why[n.Why]++
		}
		for w, n := range why {
			o.ObserveFloat64(needy, n, metric.WithAttributes(attribute.String("why", w)))
		}
		for _, n := range s.hub.Nodes() {
			node := metric.WithAttributes(attribute.String("node", n.GetName()), attribute.String("region", n.GetRegion()))
			up := 0.0
			if n.GetConnected() {
				up = 1
			}
			o.ObserveFloat64(connected, up, node)
			o.ObserveFloat64(lag, n.GetLag().AsDuration().Seconds(), node)
			o.ObserveFloat64(rejected, float64(len(n.GetRejections())), node)
		}
		return nil
	}, connected, lag, rejected, stale, revision, needy, refused)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}
