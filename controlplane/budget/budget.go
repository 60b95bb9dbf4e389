// Package budget keeps what each grant may still use where the limits of its task are
// counted over all nodes. A node's process holds part of a budget and says, again and
// again, how much it wants to hold in all: so a call that is lost or comes twice changes
// nothing. What is held counts as used until it is given back; what a process held that
// is gone stays counted until the grant would have ended. The state is in the store,
// changed by compare-and-swap alone, so any replica may be asked.
package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Kind is the kind of budgets in the store; their names are those of the grants.
const Kind = "budget"

// Config is what a Service works with.
type Config struct {
	Store store.Store
	// Snapshot is the policy as it is now.
	Snapshot func() *policy.Snapshot
	// Grant is the grant, or a fault.Error of code NotFound.
	Grant func(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error)
	// Last is the process of a node that was heard of last, when its stream was opened and
	// when it said something last; zero where nothing is known.
	Last func(node postern.NodeName) (process string, joined, seen time.Time)
	// Recall asks a node for what it does not use of a budget. It must not block.
	Recall func(node postern.NodeName, grant postern.GrantID)
	Logger *slog.Logger
	Now    func() time.Time
}

const (
	maxID    = 128
	maxCount = 1 << 60
	maxGone  = 64
	maxTries = 32 // of one change, against others that change the same budget
	// maxLedgerBytes is from when on a budget takes no further node, which is some 250 of
	// them: the rest of a value is for what those that it has come to use.
	maxLedgerBytes = store.MaxValueBytes * 3 / 4
	// cleanEvery is how often budgets of grants are looked for that are long over.
	cleanEvery = time.Minute
	keep       = 10 * time.Minute
)

// A Service answers nodes. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// measures are rows, bytes and statements.
type measures [3]int64

// A holder is a node's process that holds part of a budget.
type holder struct {
	Process  string    `json:"process"`
	Sequence uint64    `json:"sequence"`
	Total    measures  `json:"total"` // given in all, less what came back
	Used     measures  `json:"used"`
	Sessions int64     `json:"sessions,omitempty"`
	Since    time.Time `json:"since"`
}

// counts is what of a holder cannot be given to others.
func (h *holder) counts(i int) int64 { return max(h.Total[i], h.Used[i]) }

// ledger is the budget of one grant.
type ledger struct {
	revision int64
	size     int                          // in the store, in bytes
	Until    time.Time                    `json:"until"` // the grant's end
	Spent    measures                     `json:"spent"` // by processes that are gone, all that they held
	Holders  map[postern.NodeName]*holder `json:"holders"`
	Gone     []string                     `json:"gone,omitempty"` // the last processes that are; a word of theirs comes late
}

// Draw says what a process of a node wants to hold, and tells what it holds then. Errors
// are fault.Errors.
func (s *Service) Draw(ctx context.Context, node postern.NodeName, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	id := postern.GrantID(req.GetGrant())
	grant, err := s.cfg.Grant(ctx, id)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	asks := req.GetSessions() > 0
	if over := grant.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE || !now.Before(grant.GetEndTime().AsTime()); over && asks {
		return nil, fault.New(codes.PermissionDenied, "grant %q is over", id).WithKind(postern.CodeKilled.String())
	}
	terms, ok := s.cfg.Snapshot().Terms(postern.TaskName(grant.GetTask()))
	if !ok && asks {
		return nil, fault.New(codes.PermissionDenied, "task %q is no longer served", grant.GetTask()).WithKind(postern.CodeDenied.String())
	}
	var lost error
	for range maxTries {
		l, err := s.load(ctx, id)
		if err != nil {
			return nil, err
		}
		l.Until = grant.GetEndTime().AsTime()
		resp, changed, err := s.settle(l, node, req, terms)
		if err != nil {
			return nil, err
		}
		if changed {
			if lost = s.save(ctx, id, l); store.IsConflict(lost) {
				continue
			} else if lost != nil {
				return nil, fault.Wrap(lost, codes.Unavailable, "the budget could not be written").WithKind(postern.CodeUnavailable.String())
			}
		}
		s.recall(l, node, id, req, resp)
		return resp, nil
	}
	return nil, fault.Wrap(lost, codes.Unavailable, "too many nodes change this budget at once").WithKind(postern.CodeUnavailable.String())
}

func check(req *nodev1.DrawBudgetRequest) error {
	if g, p := req.GetGrant(), req.GetProcess(); g == "" || p == "" || len(g) > maxID || len(p) > maxID || req.GetSequence() == 0 {
		return fault.New(codes.InvalidArgument, "grant and process are ids of at most %d characters, and the sequence begins with 1", maxID)
	}
	for _, b := range []*nodev1.Budget{req.GetHave(), req.GetWant(), req.GetUsed(), {Rows: req.GetSessions()}} {
		for _, n := range of(b) {
			if n < 0 || n > maxCount {
				return fault.New(codes.InvalidArgument, "%d is not a count", n)
			}
		}
	}
	return nil
}

// settle changes the ledger as the request asks.
func (s *Service) settle(l *ledger, node postern.NodeName, req *nodev1.DrawBudgetRequest, t policy.Terms) (*nodev1.DrawBudgetResponse, bool, error) {
	l.bury(s.cfg.Last)
	if slices.Contains(l.Gone, req.GetProcess()) {
		return nil, false, fault.New(codes.FailedPrecondition, "this process of node %q is gone, another one has followed it", node)
	}
	h := l.Holders[node]
	if h != nil && h.Process != req.GetProcess() {
		l.spend(node)
		h = nil
	}
	if h == nil {
		if l.size >= maxLedgerBytes && !s.makeRoom(l, t) {
			return nil, false, fault.New(codes.ResourceExhausted, "this grant is used at %d nodes, which is the most where its limits hold over all of them", len(l.Holders)).
				WithKind(postern.CodeLimit.String()).WithHint("use it at one of those, or another grant")
		}
		h = &holder{Process: req.GetProcess(), Since: s.cfg.Now()}
		l.Holders[node] = h
	}
	changed := false
	switch {
	case req.GetSequence() < h.Sequence:
		return nil, false, fault.New(codes.FailedPrecondition, "a later request of this process was answered already")
	case req.GetSequence() > h.Sequence:
		changed = true
		s.change(l, h, req, t)
	}
	elsewhere, held := l.others(node)
	return &nodev1.DrawBudgetResponse{Total: h.Total.wire(), Elsewhere: elsewhere.wire(), Held: held.wire(), Sessions: h.Sessions}, changed, nil
}

// change makes h hold what it wants, or as much as there is.
func (s *Service) change(l *ledger, h *holder, req *nodev1.DrawBudgetRequest, t policy.Terms) {
	have, want, used := of(req.GetHave()), of(req.GetWant()), of(req.GetUsed())
	limits := measures{t.Rows, t.Bytes, t.Statements}
	h.Sequence = req.GetSequence()
	for i := range limits {
		h.Used[i] = max(h.Used[i], used[i])
		// A store that was put back to a backup has forgotten: the holder has not.
		h.Total[i] = max(h.Total[i], have[i])
		if want[i] <= h.Total[i] {
			h.Total[i] = want[i]
			continue
		}
		more := want[i] - h.Total[i]
		if limits[i] >= 0 {
			more = min(more, max(limits[i]-l.counted(i), 0))
		}
		h.Total[i] += more
	}
	sessions := req.GetSessions()
	if t.Sessions >= 0 && sessions > h.Sessions {
		sessions = max(min(sessions, t.Sessions-s.sessions(l, h, t)), h.Sessions)
	}
	h.Sessions = sessions
}

// counted is what of the limit is used or held.
func (l *ledger) counted(i int) int64 {
	sum := l.Spent[i]
	for _, h := range l.Holders {
		sum = add(sum, h.counts(i))
	}
	return sum
}

// add stays at the greatest count: what nodes say of themselves must not turn a sum round.
func add(a, b int64) int64 { return min(a, maxCount-b) + b }

// sessionSlack is how much later than a node's own clock says the others believe that
// its sessions have ended.
const sessionSlack = 15 * time.Second

// sessions are those of others; silent ones have none.
func (s *Service) sessions(l *ledger, mine *holder, t policy.Terms) int64 {
	sum := int64(0)
	for node, h := range l.Holders {
		if h == mine {
			continue
		}
		if !s.silent(node, t) {
			sum += h.Sessions
		}
	}
	return sum
}

// silent reports whether a node has not been heard of for longer than its sessions may go on
// without the control plane.
func (s *Service) silent(node postern.NodeName, t policy.Terms) bool {
	_, _, seen := s.cfg.Last(node)
	return !seen.IsZero() && s.cfg.Now().Sub(seen) > t.MaxStaleness+t.SessionGrace+sessionSlack
}

// makeRoom counts as used what silent nodes held, as if others had followed them, and
// reports whether there were any.
func (s *Service) makeRoom(l *ledger, t policy.Terms) bool {
	before := len(l.Holders)
	for node := range l.Holders {
		if s.silent(node, t) {
			l.spend(node)
		}
	}
	return len(l.Holders) < before
}

// others is what other holders have used, and hold unused.
func (l *ledger) others(node postern.NodeName) (used, held measures) {
	used = l.Spent
	for n, h := range l.Holders {
		if n == node {
			continue
		}
		for i := range used {
			used[i] = add(used[i], h.Used[i])
			held[i] = add(held[i], max(h.Total[i]-h.Used[i], 0))
		}
	}
	return used, held
}

// bury counts as used what processes held that have been followed by others.
func (l *ledger) bury(last func(postern.NodeName) (string, time.Time, time.Time)) {
	for node, h := range l.Holders {
		if process, joined, _ := last(node); process != "" && process != h.Process && joined.After(h.Since) {
			l.spend(node)
		}
	}
}

func (l *ledger) spend(node postern.NodeName) {
	h := l.Holders[node]
	for i := range l.Spent {
		l.Spent[i] = add(l.Spent[i], h.counts(i))
	}
	delete(l.Holders, node)
	l.Gone = append(l.Gone, h.Process)
	l.Gone = l.Gone[max(len(l.Gone)-maxGone, 0):]
}

// recall asks others for what they do not use, where the answer was less than was asked.
func (s *Service) recall(l *ledger, node postern.NodeName, id postern.GrantID, req *nodev1.DrawBudgetRequest, resp *nodev1.DrawBudgetResponse) {
	want, got := of(req.GetWant()), of(resp.GetTotal())
	for n, h := range l.Holders {
		if n == node {
			continue
		}
		for i := range want {
			if want[i] > got[i] && h.Total[i] > h.Used[i] {
				s.cfg.Recall(n, id)
				break
			}
		}
	}
}

func key(id postern.GrantID) store.Key { return store.Key{Kind: Kind, Name: string(id)} }

func (s *Service) load(ctx context.Context, id postern.GrantID) (*ledger, error) {
	l := &ledger{Holders: map[postern.NodeName]*holder{}}
	e, err := s.cfg.Store.Get(ctx, key(id))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return l, nil
	case err != nil:
		return nil, fault.Wrap(err, codes.Unavailable, "the budget could not be read").WithKind(postern.CodeUnavailable.String())
	}
	if err := l.decode(e); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *ledger) decode(e store.Entry) error {
	if err := json.Unmarshal(e.Value, l); err != nil {
		return fmt.Errorf("the budget of grant %s is unreadable: %w", e.Name, err)
	}
	if l.Holders == nil {
		l.Holders = map[postern.NodeName]*holder{}
	}
	l.revision, l.size = e.Revision, len(e.Value)
	return nil
}

func (s *Service) save(ctx context.Context, id postern.GrantID, l *ledger) error {
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = s.cfg.Store.Commit(ctx, store.Op{Key: key(id), Value: value, If: l.revision})
	return err
}

func of(b *nodev1.Budget) measures {
	return measures{b.GetRows(), b.GetBytes(), b.GetStatements()}
}

func (m measures) wire() *nodev1.Budget {
	return &nodev1.Budget{Rows: m[0], Bytes: m[1], Statements: m[2]}
}

// Run forgets budgets of grants that are long over, while this replica leads. One that cannot
// be read stays while its grant does: without it that would have all of its limits again.
func (s *Service) Run(ctx context.Context) error {
	return store.Clean(ctx, s.cfg.Store, Kind, cleanEvery, func(e store.Entry) bool {
		var l ledger
		if l.decode(e) != nil {
			_, err := s.cfg.Grant(ctx, postern.GrantID(e.Name))
			return fault.CodeOf(err) == codes.NotFound
		}
		return !s.cfg.Now().Before(l.Until.Add(keep))
	}, s.cfg.Logger)
}
