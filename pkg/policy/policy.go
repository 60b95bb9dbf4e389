// Package policy decides: it compiles the objects that people write into a Snapshot,
// and a Snapshot answers whether a subject may connect, run a statement or take a task.
// Deciding is pure: no network, no clock, no state; what it needs comes with the Query,
// and what it lacks it names in Decision.Missing. Finding out what a statement does is
// pkg/sql's business; counting, recording, waiting and forwarding are the gate's.
//
// Deny by default, deny wins over hold, hold over allow. The zero Snapshot denies all.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// A Snapshot is all that is enforced at once. It is immutable and safe for concurrent
// use; so must be the objects that it was compiled from.
type Snapshot struct {
	ruleset
	version postern.Version
	locks   map[lockTarget][]*typesv1.Lock
	aimless string // a lock that names nothing that is known: whom it shuts out is not
}

// ruleset is all of a policy but its locks.
type ruleset struct {
	parts     map[*typesv1.Object]*part // what it was compiled from, for the next one
	resources map[postern.ResourceName]*resource
	tasks     map[postern.TaskName]*task
	rules     map[string]*typesv1.ApprovalRule
	bindings  []*binding     // by name
	roles     []*roleBinding // by name
	workloads []*typesv1.Workload
	made      *int // its address tells it from others
}

// SameRules reports whether two snapshots differ in nothing but their locks and their
// version: what one says of a statement that no lock forbids, the other says too.
func (s *Snapshot) SameRules(o *Snapshot) bool {
	return s == o || s != nil && o != nil && s.made == o.made
}

// Version is the version that the snapshot was compiled at.
func (s *Snapshot) Version() postern.Version { return s.version }

// Resource returns a resource that compiled without error.
func (s *Snapshot) Resource(n postern.ResourceName) (*typesv1.Resource, bool) {
	r, ok := s.resources[n]
	if !ok {
		return nil, false
	}
	return r.object, true
}

// Rule returns an approval rule that compiled without error.
func (s *Snapshot) Rule(name string) (*typesv1.ApprovalRule, bool) {
	r, ok := s.rules[name]
	return r, ok
}

// Workloads returns every workload that compiled without error, by name; the caller
// must not change it. Whether one has expired is for the caller, who has the clock.
func (s *Snapshot) Workloads() []*typesv1.Workload { return s.workloads }

// Terms returns the parsed terms of a task; false for a task that is not served.
func (s *Snapshot) Terms(t postern.TaskName) (Terms, bool) {
	c, ok := s.tasks[t]
	if !ok {
		return Terms{}, false
	}
	return c.terms, true
}

// ResourceOf says which resource a client means who named a task and perhaps a
// resource; an empty name means the only one that the task reaches. An error is a
// *postern.Refusal.
func (s *Snapshot) ResourceOf(t postern.TaskName, name postern.ResourceName) (postern.ResourceName, error) {
	c, ok := s.tasks[t]
	if !ok {
		return "", &postern.Refusal{Code: postern.CodeNoGrant, Rule: string(t), Reason: fmt.Sprintf("task %q is not served here", t), Hint: "see what you may do with: postern tasks"}
	}
	if name != "" {
		if _, ok := c.reach[name]; !ok {
			return "", c.outOfReach(name)
		}
		return name, nil
	}
	all := c.reachable()
	switch {
	case len(all) == 0:
		return "", &postern.Refusal{Code: postern.CodeUnavailable, Rule: c.rules.resources, Reason: fmt.Sprintf("%s reaches no resource through this node", c.title), Hint: "use a node that serves it"}
	case len(all) > 1:
		return "", &postern.Refusal{Code: postern.CodeNoGrant, Rule: c.rules.resources, Reason: fmt.Sprintf("%s reaches several resources", c.title), Detail: "resources: " + joinNames(all), Hint: fmt.Sprintf("say which one, such as %s.%s", t, all[0])}
	}
	if _, ok := c.reach[all[0]]; !ok {
		return "", c.outOfReach(all[0])
	}
	return all[0], nil
}

// outOfReach refuses a resource that the task does not reach here.
func (t *task) outOfReach(name postern.ResourceName) *postern.Refusal {
	r := &postern.Refusal{Code: postern.CodeNoGrant, Rule: t.rules.resources, Reason: fmt.Sprintf("%s does not reach resource %q", t.title, name)}
	if slices.Contains(t.names, name) {
		r.Code, r.Reason, r.Hint = postern.CodeUnavailable, fmt.Sprintf("this node does not serve resource %q", name), "use a node that serves it"
	} else if all := t.reachable(); len(all) > 0 {
		r.Detail = "resources: " + joinNames(all)
	}
	return r
}

// reachable lists the resources that a task reaches, sorted. A task that names its
// resources names them all, even where this node serves only some, so that one address
// means one thing everywhere.
func (t *task) reachable() []postern.ResourceName {
	all := slices.Clone(t.names)
	for n := range t.reach {
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func joinNames[S ~string](names []S) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}

// Alone is the longest that a node without the control plane lets a session of any task
// live; zero where there is no task.
func (s *Snapshot) Alone() time.Duration {
	var longest time.Duration
	if s != nil {
		for _, t := range s.tasks {
			longest = max(longest, t.terms.MaxStaleness+t.terms.SessionGrace)
		}
	}
	return longest
}
