package userapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// stale is the error of an etag that is no longer the object's: who changed it since,
// when, and what.
func (p *Policy) stale(ctx context.Context, now, sent *typesv1.Object, etag string) error {
	ref := object.Ref(now)
	what := ""
	if base := p.base(ref, etag); base != nil {
		if fields := differ(base, now); len(fields) > 0 {
			what = ": " + strings.Join(fields, ", ")
		}
	} else if fields := differ(now, sent); len(fields) > 0 {
		what = "; it differs from what you sent in " + strings.Join(fields, ", ")
	}
	err := fault.New(codes.Aborted, "%s has changed since you read it%s%s; get it anew and make your change there", ref, p.lastChange(ctx, ref), what)
	return err.WithKind("ETAG_MISMATCH")
}

// base is the object at the revision of an etag, while the replica remembers it.
func (p *Policy) base(ref, etag string) *typesv1.Object {
	rev, err := store.EtagRevision(etag)
	if err != nil {
		return nil
	}
	version := postern.Version{Epoch: p.cfg.Cache.Version().Epoch, Revision: rev - 1}
	events, ok := p.cfg.Cache.Since(version)
	if !ok {
		return nil
	}
	for _, ev := range events {
		if ev.Revision == rev && ev.Key.String() == ref && !ev.Deleted && store.Etag(ev.Entry) == etag {
			o, err := store.DecodeObject(ev.Entry)
			if err != nil {
				return nil
			}
			return o
		}
	}
	return nil
}

// lastChange says who changed an object last, as the audit log knows it.
func (p *Policy) lastChange(ctx context.Context, ref string) string {
	entries, _, err := p.cfg.Audit.List(ctx, audit.Query{Object: ref, Limit: 20})
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.GetOutcome() == audit.OutcomeOK && strings.HasPrefix(e.GetAction(), "PolicyService/") {
			return fmt.Sprintf(", by %s at %s", e.GetActor(), e.GetTime().AsTime().Format(time.RFC3339))
		}
	}
	return ""
}
