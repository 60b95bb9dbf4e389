package web

import (
	"encoding/hex"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const (
	// refresh is how often a page looks for news, in seconds.
	refresh = 5
	// calm is the same of a list with something to choose: who goes through it by the keyboard,
	// or has it read out, begins anew each time.
	calm = 30
	// maxSettled bounds how much of what is settled is listed.
	maxSettled = 20
)

func (p *Pages) list(w http.ResponseWriter, r *http.Request, s *session) {
	all, err := p.cfg.Holds.List(r.Context(), s.caller(r), false, false)
	if err != nil {
		p.fail(w, r, s, err)
		return
	}
	var body struct{ Mine, Waiting, Settled []*typesv1.Hold }
	for _, h := range all {
		switch {
		case !approve.Waiting(h):
			if len(body.Settled) < maxSettled {
				body.Settled = append(body.Settled, h)
			}
		case approve.Asked(h, s.subject):
			body.Mine = append(body.Mine, h)
		default:
			body.Waiting = append(body.Waiting, h)
		}
	}
	v := view{Title: "Approvals", Who: s.name(), Form: s.form(), Refresh: refresh, Body: body}
	if len(body.Waiting) > 0 {
		v.Refresh = calm
	}
	p.render(w, r, http.StatusOK, "list", v)
}

// sheet is one hold as it is shown.
type sheet struct {
	*typesv1.Hold
	History *apiv1.HoldHistory
	Digest  string
	May     bool   // whether the viewer can answer
	WhyNot  string // where not
	Mine    bool   // whether the viewer can take it back
	Rows    string
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, s *session) {
	h, err := p.cfg.Holds.Get(r.Context(), s.caller(r), r.PathValue("id"))
	if err != nil {
		p.fail(w, r, s, err)
		return
	}
	body := sheet{Hold: h, Digest: hex.EncodeToString(h.GetDigest()), Mine: approve.Asked(h, s.subject) && approve.Waiting(h)}
	if body.History, err = p.cfg.Holds.History(r.Context(), h); err != nil {
		p.fail(w, r, s, err)
		return
	}
	if approve.Waiting(h) {
		if err := p.cfg.Holds.MayReview(r.Context(), s.caller(r), h); err != nil {
			body.WhyNot = fault.From(err).Reason
		} else {
			body.May = true
		}
	}
	if h.EstimatedRows != nil {
		body.Rows = strconv.FormatInt(h.GetEstimatedRows(), 10)
	}
	v := view{Title: "Approval " + h.GetId(), Who: s.name(), Form: s.form(), Body: body}
	if approve.Waiting(h) && !body.May { // a form that is being filled in stays
		v.Refresh = refresh
	}
	p.render(w, r, http.StatusOK, "hold", v)
}

// answer takes a yes, a no, or a hold back. The digest is that of what was shown, and is
// not left out: an answer is to just that.
func (p *Pages) answer(w http.ResponseWriter, r *http.Request, s *session) {
	id := r.PathValue("id")
	digest, err := hex.DecodeString(r.PostForm.Get("digest"))
	if err != nil || len(digest) == 0 {
		p.fail(w, r, s, fault.New(codes.InvalidArgument, "the form does not say what was shown; load the page again"))
		return
	}
	switch reason := r.PostForm.Get("reason"); r.PostForm.Get("answer") {
	case "yes":
		_, err = p.cfg.Holds.Review(r.Context(), s.caller(r), id, true, reason, digest)
	case "no":
		_, err = p.cfg.Holds.Review(r.Context(), s.caller(r), id, false, reason, digest)
	case "withdraw":
		_, err = p.cfg.Holds.Withdraw(r.Context(), s.caller(r), id)
	default:
		err = fault.New(codes.InvalidArgument, "the form says neither yes nor no")
	}
	if err != nil {
		p.fail(w, r, s, err)
		return
	}
	http.Redirect(w, r, Path+"/"+id, http.StatusSeeOther)
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05 UTC")
}
