package dataplane

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// observe registers what operators watch of a node. The returned function ends it.
func (n *Node) observe() (func(), error) {
	m := otel.Meter("postern/node")
	var errs []error
	gauge := func(name, unit, about string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return g
	}
	sessions := gauge("postern.sessions", "{session}", "Live sessions.")
	leases := gauge("postern.leases", "{lease}", "Credentials on loan.")
	depth := gauge("postern.spool.depth", "By", "Records that are not stored yet.")
	age := gauge("postern.spool.age", "s", "Age of the oldest record that is not stored yet.")
	aside := gauge("postern.spool.aside", "{recording}", "Recordings that could not be stored and were put aside; the rest of them is on the node.")
	troubled := gauge("postern.resources.troubled", "{resource}", "Resources that the node cannot connect and log in to.")
	stale := gauge("postern.policy.staleness", "s", "How old the enforced policy may be.")
	revision := gauge("postern.policy.revision", "{revision}", "Revision that the enforced policy goes by: past postern.publication.revision where what came after changes nothing for nodes.")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		bytes, oldest := n.spool.Stats()
		o.ObserveFloat64(sessions, float64(len(n.keeper.Live())))
		o.ObserveFloat64(leases, float64(n.leases.Len()))
		o.ObserveFloat64(depth, float64(bytes))
		o.ObserveFloat64(age, oldest.Seconds())
		o.ObserveFloat64(aside, float64(n.spool.Aside()))
		o.ObserveFloat64(troubled, float64(len(n.keeper.Troubles())))
		o.ObserveFloat64(stale, n.control.Staleness().Seconds())
		o.ObserveFloat64(revision, float64(n.policy.Version().Revision))
		return nil
	}, sessions, leases, depth, age, aside, troubled, stale, revision)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}
