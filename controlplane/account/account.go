// Package account looks after the accounts of resources: which of them Postern lends,
// which are used around it, and new passwords for static ones. What is at a server is
// seen by the resource's wall, and what is Postern's own by the nodes' word for their
// connections and the ledger's for their leases.
package account

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Fleet reaches nodes and walls; *fleet.Fleet is one.
type Fleet interface {
	Nodes() []*apiv1.NodeStatus
	WallFor(r postern.ResourceName) (postern.NodeName, bool)
	Command(ctx context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error)
	Broadcast(ctx context.Context, cmd *nodev1.Command) (postern.NodeName, error)
}

// Config is what a Service works with; all but Vault is required.
type Config struct {
	Store    store.Store
	Snapshot func() *policy.Snapshot
	Fleet    Fleet
	Keeper   sealed.Keeper
	Vault    Vault // nil where there is none
	Lent     func(ctx context.Context, r postern.ResourceName) ([]credential.Lent, error)
	Audit    *audit.Log
	Logger   *slog.Logger
	Now      func() time.Time
}

// A Service looks after accounts. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// look is how often each resource is looked at: twice within the minute in which use
// around Postern is told.
const look = 20 * time.Second

// Run looks at every resource that has a wall, until ctx is done. Replicas may do so at
// the same time: what is seen is told once.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		for _, r := range s.watched() {
			if _, _, err := s.look(ctx, r, time.Time{}); err != nil && ctx.Err() == nil {
				s.cfg.Logger.WarnContext(ctx, "accounts were not looked at", "resource", r, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// watched are the resources of which a wall can see the accounts.
func (s *Service) watched() []postern.ResourceName {
	var out []postern.ResourceName
	snap := s.cfg.Snapshot()
	for _, r := range snap.Resources() {
		res, _ := snap.Resource(r)
		if _, ok := s.cfg.Fleet.WallFor(r); ok && res.GetSpec().GetLevel().GetAdmin() != nil {
			out = append(out, r)
		}
	}
	return out
}

// List tells the accounts of a resource, and where since is set, who was refused since
// then. Errors are *fault.Error.
func (s *Service) List(ctx context.Context, r postern.ResourceName, since time.Time) (*apiv1.ListAccountsResponse, error) {
	v, report, err := s.look(ctx, r, since)
	if err != nil {
		return nil, err
	}
	wall, _ := s.cfg.Fleet.WallFor(r)
	resp := &apiv1.ListAccountsResponse{Wall: string(wall), RefusedUnknown: report.GetRefusedUnknown()}
	for _, a := range report.GetAccounts() {
		st := &apiv1.AccountStatus{Account: a.GetName(), Superuser: a.GetSuperuser(), ValidUntil: a.GetValidUntil(), Sessions: v.ours[a.GetName()]}
		if m := v.managed[a.GetName()]; m != nil {
			st.Source, st.Leases = m.source, m.leases
			st.Purposes = slices.Compact(slices.Sorted(slices.Values(m.purposes)))
			if !m.last.IsZero() {
				st.LastLeased = timestamppb.New(m.last)
			}
		}
		for _, g := range v.around {
			if g.Account == a.GetName() {
				st.Around = append(st.Around, g.message())
			}
		}
		st.Refused = refusals(report.GetRefused(), a.GetName(), v.around)
		resp.Accounts = append(resp.Accounts, st)
	}
	return resp, nil
}

// refusals sums up by address who was refused, with the program that was seen from there.
func refusals(all []*nodev1.RefusedLogin, account string, seen []*sighting) []*apiv1.AroundUse {
	var out []*apiv1.AroundUse
	for _, l := range all {
		if l.GetAccount() != account {
			continue
		}
		i := slices.IndexFunc(out, func(u *apiv1.AroundUse) bool { return u.GetHost() == l.GetHost() })
		if i < 0 {
			u := &apiv1.AroundUse{Host: l.GetHost(), FirstTime: l.GetTime()}
			var programs []string
			for _, g := range seen {
				if g.Account == account && g.Host == l.GetHost() && g.Program != "" {
					programs = append(programs, g.Program)
				}
			}
			u.Program = strings.Join(programs, ", ")
			i, out = len(out), append(out, u)
		}
		out[i].LastTime = l.GetTime()
		out[i].Count++
	}
	return out
}

// view is what a look at a resource has found.
type view struct {
	managed map[string]*managed // by account: those that Postern lends
	ours    map[string]int64    // by account: connections that are Postern's
	around  []*sighting
}

// managed is an account that Postern lends.
type managed struct {
	source   string
	purposes []string
	leases   int64
	last     time.Time
}

// look sees who is logged in at a resource now, keeps what is new, and tells of it.
func (s *Service) look(ctx context.Context, r postern.ResourceName, since time.Time) (*view, *nodev1.AccountReport, error) {
	res, ok := s.cfg.Snapshot().Resource(r)
	if !ok {
		return nil, nil, fault.New(codes.NotFound, "there is no resource %q that compiles", r)
	}
	wall, ok := s.cfg.Fleet.WallFor(r)
	switch {
	case res.GetSpec().GetProtocol() != string(postern.Postgres):
		return nil, nil, fault.New(codes.FailedPrecondition, "resource %q is no PostgreSQL server, the one kind whose accounts are known", r)
	case res.GetSpec().GetLevel().GetAdmin() == nil:
		return nil, nil, fault.New(codes.FailedPrecondition, "no wall may look at resource %q: set spec.level.admin, and run a postern-wall beside the nodes", r)
	case !ok:
		return nil, nil, fault.New(codes.Unavailable, "no wall that keeps resource %q is connected", r)
	}
	// What is Postern's is asked before and after: a connection that came or went between
	// is known by either.
	before := s.connections(ctx, r)
	cmd := &nodev1.InspectAccounts{Resource: string(r)}
	if !since.IsZero() {
		cmd.RefusedSince = timestamppb.New(since)
	}
	got, err := s.cfg.Fleet.Command(ctx, wall, &nodev1.Command{Kind: &nodev1.Command_InspectAccounts{InspectAccounts: cmd}})
	if err != nil {
		return nil, nil, err
	}
	if got.GetAccounts() == nil {
		return nil, nil, fault.New(codes.Unavailable, "wall %s could not look at the accounts of %q: %s", wall, r, got.GetError())
	}
	lent, err := s.cfg.Lent(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	v := &view{ours: map[string]int64{}}
	if v.managed, err = s.managed(ctx, res, lent); err != nil {
		return nil, nil, err
	}
	known := own{ports: before, sessions: map[string]bool{}}
	for p := range s.connections(ctx, r) {
		known.ports[p] = true
	}
	for _, l := range lent {
		known.sessions[string(l.Session)] = true
		known.admin = known.admin || l.Purpose == credential.PurposeAdmin
	}
	var strangers []*nodev1.BackendSession
	for _, b := range got.GetAccounts().GetSessions() {
		switch {
		case known.has(b):
			v.ours[b.GetAccount()]++
		case v.managed[b.GetAccount()] != nil:
			strangers = append(strangers, b)
		}
	}
	v.around, err = s.sighted(ctx, r, strangers)
	return v, got.GetAccounts(), err
}

// own is by what connections of Postern are known.
type own struct {
	ports    map[string]bool
	sessions map[string]bool
	admin    bool // a wall has a lease
}

// has reports whether a connection is Postern's: a node says that it has it, or it names a
// session that has a lease, as nodes' connections do when they begin.
func (o *own) has(b *nodev1.BackendSession) bool {
	if b.GetPort() > 0 && o.ports[strconv.Itoa(int(b.GetPort()))] {
		return true
	}
	if id, ok := strings.CutPrefix(b.GetProgram(), "postern/"); ok && o.sessions[id] {
		return true
	}
	return o.admin && b.GetProgram() == "postern-wall"
}

// connections are the ports of nodes' connections to a resource. A port alone is compared,
// for the server may see another address than the node has.
func (s *Service) connections(ctx context.Context, r postern.ResourceName) map[string]bool {
	ports := map[string]bool{}
	for _, n := range s.cfg.Fleet.Nodes() {
		if !n.GetConnected() || n.GetRole() != "" || !slices.Contains(n.GetReport().GetResources(), string(r)) {
			continue
		}
		got, err := s.cfg.Fleet.Command(ctx, postern.NodeName(n.GetName()), &nodev1.Command{Kind: &nodev1.Command_ListConnections{
			ListConnections: &nodev1.ListConnections{Resource: string(r)},
		}})
		if err != nil {
			s.cfg.Logger.DebugContext(ctx, "node did not tell its connections", "node", n.GetName(), "error", err)
			continue
		}
		for _, address := range got.GetConnections() {
			if _, port, err := net.SplitHostPort(address); err == nil {
				ports[port] = true
			}
		}
	}
	return ports
}

// managed are the accounts that Postern lends at a resource: those of its secrets, and
// those of which the ledger tells.
func (s *Service) managed(ctx context.Context, res *typesv1.Resource, lent []credential.Lent) (map[string]*managed, error) {
	out := map[string]*managed{}
	at := func(account, source string) *managed {
		m := out[account]
		if m == nil {
			m = &managed{source: source}
			out[account] = m
		}
		return m
	}
	for purpose, ref := range refs(res) {
		if ref.GetSealed() == "" {
			continue // what Vault lends the ledger tells of
		}
		account, err := s.accountOf(ctx, ref)
		if err != nil {
			return nil, err
		}
		if account != "" {
			m := at(account, "secret "+ref.GetSealed())
			m.purposes = append(m.purposes, purpose)
		}
	}
	for _, l := range lent {
		source := strings.TrimSpace(l.Source + " " + l.Where)
		if l.Source == "sealed" {
			source = "secret " + l.Where
		}
		m := at(l.Account, source)
		if m.purposes = append(m.purposes, l.Purpose); l.Live {
			m.leases++
		}
		if l.Created.After(m.last) {
			m.last = l.Created
		}
	}
	return out, nil
}

// refs are the credentials that a resource names, by what they are for.
func refs(res *typesv1.Resource) map[string]*typesv1.CredentialRef {
	return map[string]*typesv1.CredentialRef{
		credential.PurposeSession: res.GetSpec().GetCredential(), credential.PurposeCatalog: res.GetSpec().GetCatalog(),
		credential.PurposeAdmin: res.GetSpec().GetLevel().GetAdmin(),
	}
}

// describe is for errors.
func describe(r []postern.ResourceName) string {
	names := make([]string, len(r))
	for i, n := range r {
		names[i] = string(n)
	}
	return fmt.Sprintf("resources %s", strings.Join(names, ", "))
}
