package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Holds parks things for people.
type Holds interface {
	// OpenHold parks something and tells how it stands until it is settled; the hold it
	// returns is the last one told. Ending ctx withdraws it.
	OpenHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error)
	// ConsumeHold uses a yes, at most once.
	ConsumeHold(ctx context.Context, req *nodev1.ConsumeHoldRequest) (*typesv1.Hold, error)
}

// A pass is what people have said yes to, and nobody has used yet.
type pass struct {
	rule      string // by which they were asked
	statement uint64 // its number
	hold      *typesv1.Hold
}

// held is what a hold of an execution shows to people: the canonical statement.
func held(a *engine.Admission) string { return a.Analysis.Canonical() }

func (g *Gate) digest(a *engine.Admission, args engine.Args) [32]byte {
	return postern.HoldDigest(g.cfg.Grant.Subject.Name, g.cfg.Grant.ID, g.cfg.Task, g.cfg.Resource, postern.ScopeStatement, held(a), shownParams(args))
}

// Await waits for people to say yes to one execution. After nil, an Admit of the same
// admission with the same arguments passes, once; so does one that was judged anew
// meanwhile, while policy asks by the same rule.
func (g *Gate) Await(ctx context.Context, a *engine.Admission, args engine.Args, progress func(string)) error {
	approval := a.Decision.Approval
	if a.Decision.Verdict != postern.VerdictHold || approval == nil {
		return errors.New("gate: nothing to wait for")
	}
	digest := g.digest(a, args)
	req := &nodev1.OpenHoldRequest{
		Scope: string(postern.ScopeStatement), Grant: string(g.cfg.Grant.ID), Resource: string(g.cfg.Resource),
		Session: string(g.cfg.Session), Statement: held(a), Rule: approval.Rule,
	}
	for _, p := range shownParams(args) {
		out := &typesv1.Parameter{}
		if !p.Null {
			out.Value = &p.Value
		}
		req.Parameters = append(req.Parameters, out)
	}
	g.show(ctx, a, req)
	e := record.Event{Statement: record.Next, Text: a.Text, Params: paramsOf(args), Rule: a.Decision.Rule}
	yes, err := g.wait(ctx, req, digest, &e, progress)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.passes[digest] = pass{approval.Rule, e.Statement, yes}
	g.mu.Unlock()
	return nil
}

const (
	// askTimeout is how long people are not asked yet because the resource estimates.
	askTimeout = 2 * time.Second
	// maxMasked bounds how many masked columns people are shown, and maxMaskedBytes how
	// long their names are in all.
	maxMasked      = 200
	maxMaskedBytes = 7 << 10
)

// show adds what people should know before they answer: how many rows it would touch,
// where the resource can tell, and what is masked in it.
func (g *Gate) show(ctx context.Context, a *engine.Admission, req *nodev1.OpenHoldRequest) {
	ad, ok := a.Gate.(*admitted)
	if !ok {
		return
	}
	switch {
	case ad.estimate != nil:
		req.EstimatedRows = &ad.estimate.rows
	case ad.ask != nil:
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		rows, err := ad.ask(ctx)
		if err != nil {
			g.cfg.Logger.DebugContext(ctx, "no estimate for the people who are asked", "session", g.cfg.Session, "error", err)
			break
		}
		req.EstimatedRows = &rows
	}
	size := 0
	for _, t := range ad.touched {
		if t.Mask == "" {
			continue
		}
		text := t.Column + ": " + t.Mask
		if size += len(text); size > maxMaskedBytes || len(req.Masked) == maxMasked {
			return
		}
		req.Masked = append(req.Masked, text)
	}
}

// AwaitSession waits for people to let the session in.
func (g *Gate) AwaitSession(ctx context.Context, progress func(string)) error {
	digest := postern.HoldDigest(g.cfg.Grant.Subject.Name, g.cfg.Grant.ID, g.cfg.Task, g.cfg.Resource, postern.ScopeSession, "", nil)
	var yes *typesv1.Hold
	for ask := g.cfg.Approval; ask != nil; {
		req := &nodev1.OpenHoldRequest{
			Scope: string(postern.ScopeSession), Grant: string(g.cfg.Grant.ID), Resource: string(g.cfg.Resource),
			Session: string(g.cfg.Session), Rule: ask.Rule,
		}
		var err error
		if yes, err = g.wait(ctx, req, digest, &record.Event{Rule: string(g.cfg.Task) + "/approval"}, progress); err != nil {
			return err
		}
		// Policy is asked again: it may have changed while people thought, and ask others now.
		snap := g.cfg.Snapshots.Current()
		d := snap.DecideConnect(g.query(nil))
		if d.Verdict == postern.VerdictDeny {
			return Refuse(d)
		}
		if d.Approval == nil || unasked(snap, d.Approval, yes) == "" {
			break
		}
		ask = d.Approval
	}
	g.mu.Lock()
	g.open, g.letIn = true, yes
	g.mu.Unlock()
	return nil
}

// wait parks, tells, uses the yes, which it returns, and records all three as what e says;
// the first of them gives e its number.
func (g *Gate) wait(ctx context.Context, req *nodev1.OpenHoldRequest, digest [32]byte, e *record.Event, progress func(string)) (*typesv1.Hold, error) {
	ctx, span := otel.Tracer("postern/gate").Start(ctx, "wait for people")
	defer span.End()
	g.instrument.decision(postern.VerdictHold)
	g.instrument.waiting(1)
	defer g.instrument.waiting(-1)
	told := ""
	hold, err := g.cfg.Holds.OpenHold(ctx, req, func(r *nodev1.OpenHoldResponse) {
		groups := strings.Join(r.GetHold().GetApproverGroups(), " and ")
		if groups == "" {
			groups = "people"
		}
		if told == groups || r.GetHold().GetState() != typesv1.HoldState_HOLD_STATE_PENDING {
			return
		}
		told = groups // once more where somebody else is asked too
		h := *e
		h.Time, h.Kind, h.Verdict, h.Hold, h.People = g.cfg.Now(), record.KindHeld, postern.VerdictHold, r.GetHold().GetId(), r.GetHold().GetApproverGroups()
		if err := g.cfg.Recorder.Record(&h, policy.Local); err != nil {
			g.cfg.Logger.Error("hold was not recorded", "session", g.cfg.Session, "error", err)
		} else {
			e.Statement = h.Statement
		}
		progress(fmt.Sprintf("waiting for %s to approve: %s (or: postern approve %s)", groups, r.GetUrl(), r.GetHold().GetId()))
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, g.settled(e, nil, &postern.Refusal{Code: postern.CodeCancelled, Reason: "the request was withdrawn while it waited for approval", Cause: context.Cause(ctx)})
		}
		return nil, g.settled(e, hold, postern.AsRefusal(err))
	}
	if hold.GetState() != typesv1.HoldState_HOLD_STATE_APPROVED {
		return nil, g.settled(e, hold, refused(hold))
	}
	if !bytes.Equal(hold.GetDigest(), digest[:]) {
		return nil, g.settled(e, hold, &postern.Refusal{Code: postern.CodeCancelled, Reason: "the approval is for something else"})
	}
	if _, err := g.cfg.Holds.ConsumeHold(ctx, &nodev1.ConsumeHoldRequest{Hold: hold.GetId(), Digest: digest[:], Session: string(g.cfg.Session)}); err != nil {
		return nil, g.settled(e, hold, postern.AsRefusal(err))
	}
	return hold, g.settled(e, hold, nil)
}

// settled records how a hold ended, and returns the refusal if it is one.
func (g *Gate) settled(e *record.Event, h *typesv1.Hold, r *postern.Refusal) error {
	e.Time, e.Kind, e.Text, e.Params, e.Hold = g.cfg.Now(), record.KindSettled, "", nil, h.GetId()
	e.Verdict, e.Reason = postern.VerdictAllow, ""
	for _, a := range h.GetApprovals() {
		e.People = append(e.People, a.GetSubject())
		if a.GetReason() != "" {
			e.Reason = a.GetReason()
		}
	}
	if r != nil {
		e.Verdict, e.Reason = postern.VerdictDeny, r.Reason
	}
	if err := g.cfg.Recorder.Record(e, policy.Local); err != nil {
		return unrecorded(err)
	}
	if r != nil {
		return r
	}
	return nil
}

func refused(h *typesv1.Hold) *postern.Refusal {
	r := &postern.Refusal{Code: postern.CodeCancelled, Detail: "request " + h.GetId()}
	switch h.GetState() {
	case typesv1.HoldState_HOLD_STATE_REFUSED:
		r.Reason = "the request was refused"
		for _, a := range h.GetApprovals() {
			if !a.GetApproved() {
				r.Reason = fmt.Sprintf("the request was refused by %s: %s", a.GetSubject(), a.GetReason())
			}
		}
	case typesv1.HoldState_HOLD_STATE_EXPIRED:
		r.Reason = "nobody approved the request in time"
		r.Hint = "ask again; once it is approved, the identical statement goes through"
	case typesv1.HoldState_HOLD_STATE_WITHDRAWN:
		r.Reason = "the request was withdrawn"
	case typesv1.HoldState_HOLD_STATE_CONSUMED:
		r.Reason = "the approval was used already"
	default:
		r.Reason = "the request was not approved"
	}
	return r
}
