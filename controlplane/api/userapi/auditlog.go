package userapi

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
)

// Audit answers AuditService.
type Audit struct{ log *audit.Log }

var _ api.AuditServiceHandler = (*Audit)(nil)

// NewAudit makes an Audit.
func NewAudit(log *audit.Log) *Audit { return &Audit{log} }

// ListAuditEntries implements apiv1connect.AuditServiceHandler. A page may be short,
// and even empty, and have a next one.
func (a *Audit) ListAuditEntries(ctx context.Context, r *connect.Request[apiv1.ListAuditEntriesRequest]) (*connect.Response[apiv1.ListAuditEntriesResponse], error) {
	size, err := pageSize(r.Msg.GetPageSize())
	if err != nil {
		return nil, err
	}
	q := audit.Query{Actor: r.Msg.GetActor(), Object: r.Msg.GetObject(), Limit: size}
	since := ""
	if s := r.Msg.GetSince(); s != nil {
		if err := s.CheckValid(); err != nil {
			return nil, fault.Invalid(fault.Violation{Field: "since", Reason: "is not a time"})
		}
		q.Since = s.AsTime()
		since = q.Since.Format(time.RFC3339Nano)
	}
	query := queryHash("audit", q.Actor, q.Object, since)
	start, err := pageStart(r.Msg.GetPageToken(), query)
	if err != nil {
		return nil, err
	}
	if start != "" {
		if q.Before, err = strconv.ParseInt(start, 10, 64); err != nil || q.Before <= 0 {
			return nil, fault.Invalid(fault.Violation{Field: "page_token", Reason: "is not one that this query gave; begin without it"})
		}
	}
	entries, next, err := a.log.List(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ListAuditEntriesResponse{Entries: entries}
	if next > 0 {
		resp.NextPageToken = pageToken(query, strconv.FormatInt(next, 10))
	}
	return connect.NewResponse(resp), nil
}
