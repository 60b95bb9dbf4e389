// Package sessionapi shows and ends sessions for people. Operators and auditors see all
// sessions, auditors read all recordings, everybody has their own. That calls are
// audited is the interceptor's business; who may call at all, that of authz.
package sessionapi

import (
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Live reaches sessions that live on nodes.
type Live interface {
	// Kill ends a session and says on which node it was. A *fault.Error with NotFound
	// says that no node has it. reason is shown to the person who is cut off.
	Kill(ctx context.Context, session, reason string) (node string, err error)
}

// Handler implements the SessionService.
type Handler struct {
	recordings *recording.Service
	live       Live
}

var _ apiv1connect.SessionServiceHandler = (*Handler)(nil)

// New makes a Handler.
func New(recordings *recording.Service, live Live) *Handler {
	return &Handler{recordings: recordings, live: live}
}

const (
	defaultPage = 100
	maxPage     = index.MaxPage - 1
	maxReason   = 500 // bytes
)

// see lets the caller have what they ask for of a session: it is their own, or they
// have one of the roles. What somebody must not see is not there for them.
func see(c *authz.Caller, s *typesv1.Session, roles ...string) error {
	if own(c, s) {
		return nil
	}
	for _, role := range roles {
		if c.Has(role) {
			return nil
		}
	}
	return fault.New(codes.NotFound, "no session %q is recorded, or it is not yours", s.GetId())
}

// own reports whether a session is the caller's, and not that of a workload of their name:
// callers are people.
func own(c *authz.Caller, s *typesv1.Session) bool {
	return c != nil && c.Subject.Name != "" && c.Subject.Name == s.GetSubject() && s.GetWorkload() == ""
}

// ListSessions implements the SessionService. Who may see all sessions sees all that
// match; others see their own.
func (h *Handler) ListSessions(ctx context.Context, req *connect.Request[apiv1.ListSessionsRequest]) (*connect.Response[apiv1.ListSessionsResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	if err := checkList(m); err != nil {
		return nil, err
	}
	f := index.Filter{Subject: m.GetSubject(), Task: m.GetTask(), Resource: m.GetResource(), Live: m.GetLive(), Since: when(m.GetSince()), Until: when(m.GetUntil())}
	if !c.Has(authz.Auditor) && !c.Has(authz.Operator) {
		if f.Subject != "" && f.Subject != c.Subject.Name {
			return nil, fault.New(codes.PermissionDenied, "only operators and auditors see the sessions of others")
		}
		f.People = true
		if f.Subject = c.Subject.Name; f.Subject == "" {
			return nil, fault.New(codes.PermissionDenied, "you have no name, and so no sessions")
		}
	}
	if f.Limit, err = pageSize(m.GetPageSize()); err != nil {
		return nil, err
	}
	if f.Before, err = parseToken(m.GetPageToken()); err != nil {
		return nil, err
	}
	f.Limit++ // one more tells whether there are more
	sessions, err := h.recordings.List(ctx, f)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ListSessionsResponse{Sessions: sessions}
	if len(sessions) == f.Limit {
		resp.Sessions = sessions[:f.Limit-1]
		resp.NextPageToken = token(resp.Sessions[len(resp.Sessions)-1])
	}
	return connect.NewResponse(resp), nil
}

// checkList says what in a request is nothing that an index can be asked for.
func checkList(m *apiv1.ListSessionsRequest) error {
	var v []fault.Violation
	for name, text := range map[string]string{"subject": m.GetSubject(), "task": m.GetTask(), "resource": m.GetResource()} {
		if len(text) > index.MaxName || strings.ContainsRune(text, 0) {
			v = append(v, fault.Violation{Field: name, Reason: "is longer than " + strconv.Itoa(index.MaxName) + " bytes, or has a zero byte"})
		}
	}
	for name, t := range map[string]*timestamppb.Timestamp{"since": m.GetSince(), "until": m.GetUntil()} {
		if t != nil && t.CheckValid() != nil {
			v = append(v, fault.Violation{Field: name, Reason: "is not a time"})
		}
	}
	if len(v) > 0 {
		return fault.Invalid(v...)
	}
	return nil
}

func when(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, fault.Invalid(fault.Violation{Field: "page_size", Reason: "must be 1 to " + strconv.Itoa(maxPage)})
	}
	return int(n), nil
}

// A page token names the last session of the page: when it began, in microseconds, and
// its id.
func token(s *typesv1.Session) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(s.GetStartTime().AsTime().UnixMicro(), 10) + " " + s.GetId()))
}

func parseToken(t string) (*index.Place, error) {
	if t == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(t)
	start, id, ok := strings.Cut(string(raw), " ")
	us, numErr := strconv.ParseInt(start, 10, 64)
	if err != nil || numErr != nil || !ok || record.CheckSession(postern.SessionID(id)) != nil {
		return nil, fault.Invalid(fault.Violation{Field: "page_token", Reason: "is not from an answer"})
	}
	return &index.Place{Start: time.UnixMicro(us), ID: id}, nil
}

// GetSession implements the SessionService.
func (h *Handler) GetSession(ctx context.Context, req *connect.Request[apiv1.GetSessionRequest]) (*connect.Response[apiv1.GetSessionResponse], error) {
	s, err := h.session(ctx, req.Msg.GetId(), authz.Operator, authz.Auditor)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.GetSessionResponse{Session: s}), nil
}

func (h *Handler) session(ctx context.Context, id string, roles ...string) (*typesv1.Session, error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	s, err := h.recordings.Get(ctx, id)
	if fault.CodeOf(err) == codes.NotFound {
		return nil, see(nil, &typesv1.Session{Id: id}) // with the text of what is not theirs
	}
	if err != nil {
		return nil, err
	}
	return s, see(c, s, roles...)
}

// ReadRecording implements the SessionService.
func (h *Handler) ReadRecording(ctx context.Context, req *connect.Request[apiv1.ReadRecordingRequest], stream *connect.ServerStream[apiv1.ReadRecordingResponse]) error {
	s, err := h.session(ctx, req.Msg.GetId(), authz.Auditor)
	if err != nil {
		return err
	}
	if req.Msg.GetRaw() {
		return h.readRaw(ctx, s, stream)
	}
	key, err := h.recordings.DataKey(ctx, s.GetId())
	if err != nil {
		return err
	}
	defer key.Wipe()
	first := true
	return h.recordings.Read(ctx, s.GetId(), req.Msg.GetFromIndex(), req.Msg.GetFollow(), func(number uint32, data, nodeKey []byte) error {
		// A reader may lose the right while the session lives.
		c, err := authz.Require(ctx)
		if err != nil {
			return err
		}
		if err := see(c.Now(), s, authz.Auditor); err != nil {
			return err
		}
		m := &apiv1.ReadRecordingResponse{Index: number, Chunk: data, NodeKey: nodeKey}
		if first {
			m.DataKey, first = key.Reveal(), false
		}
		return stream.Send(m)
	})
}

// readRaw sends what masks hid from a session: to nobody for the session being theirs, and
// in a form that only the holder of the raw key can open.
func (h *Handler) readRaw(ctx context.Context, s *typesv1.Session, stream *connect.ServerStream[apiv1.ReadRecordingResponse]) error {
	c, err := authz.Require(ctx)
	if err == nil {
		err = seeRaw(c, s)
	}
	if err != nil {
		return err
	}
	return h.recordings.ReadRaw(ctx, s, func(number uint32, data, nodeKey []byte) error {
		if err := seeRaw(c.Now(), s); err != nil {
			return err
		}
		return stream.Send(&apiv1.ReadRecordingResponse{Index: number, Chunk: data, NodeKey: nodeKey})
	})
}

// seeRaw lets those read what masks hid who may read every recording, and have the role for
// that besides.
func seeRaw(c *authz.Caller, s *typesv1.Session) error {
	if !c.Has(authz.Auditor) || !c.Has(authz.RawReader) {
		return fault.New(codes.PermissionDenied, "what masks hid from session %s is shown to auditors who have the role rawreader too, and to nobody else", s.GetId()).WithKind("denied")
	}
	return nil
}

// KillSession implements the SessionService. Operators may end any session, whether or
// not its recording has arrived yet; others their own.
func (h *Handler) KillSession(ctx context.Context, req *connect.Request[apiv1.KillSessionRequest]) (*connect.Response[apiv1.KillSessionResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	id, reason := req.Msg.GetId(), strings.TrimSpace(req.Msg.GetReason())
	switch {
	case id == "":
		return nil, fault.Invalid(fault.Violation{Field: "id", Reason: "is required"})
	case len(reason) > maxReason:
		return nil, fault.Invalid(fault.Violation{Field: "reason", Reason: "is longer than " + strconv.Itoa(maxReason) + " bytes"})
	case reason == "":
		reason = "ended by " + c.Subject.Name
	}
	if !c.Has(authz.Operator) {
		if _, err := h.session(ctx, id); err != nil {
			return nil, err
		}
	}
	node, err := h.live.Kill(ctx, id, reason)
	if err != nil {
		return nil, h.ended(ctx, id, err)
	}
	return connect.NewResponse(&apiv1.KillSessionResponse{Node: node}), nil
}

// ended says of a session that no node has whether it has ended already.
func (h *Handler) ended(ctx context.Context, id string, err error) error {
	if fault.CodeOf(err) != codes.NotFound {
		return err
	}
	s, getErr := h.recordings.Get(ctx, id)
	if getErr != nil || s.GetEndTime() == nil {
		return errors.Join(err, ignoreNotFound(getErr))
	}
	return fault.Wrap(err, codes.FailedPrecondition, "session %q has ended already: %s", id, s.GetEndReason()).WithKind("ENDED")
}

func ignoreNotFound(err error) error {
	if fault.CodeOf(err) == codes.NotFound {
		return nil
	}
	return err
}

// SetLegalHold implements the SessionService.
func (h *Handler) SetLegalHold(ctx context.Context, req *connect.Request[apiv1.SetLegalHoldRequest]) (*connect.Response[apiv1.SetLegalHoldResponse], error) {
	reason := strings.TrimSpace(req.Msg.GetReason())
	if len(reason) > maxReason {
		return nil, fault.Invalid(fault.Violation{Field: "reason", Reason: "is longer than " + strconv.Itoa(maxReason) + " bytes"})
	}
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if !c.Has(authz.Auditor) {
		return nil, fault.New(codes.PermissionDenied, "recordings are held by auditors of everything; your role has a scope").WithKind("denied")
	}
	was, err := h.recordings.Get(ctx, req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	if err := audit.Before(ctx, map[string]string{"legalHold": was.GetLegalHold()}); err != nil {
		return nil, err
	}
	if err := h.recordings.Hold(ctx, req.Msg.GetId(), reason); err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.SetLegalHoldResponse{}), nil
}
