package request

import (
	"maps"
	"net/http"

	"github.com/posterngate/postern/dataplane/request/h1"
	"github.com/posterngate/postern/pkg/postern"
)

// A Head is what the headers of a request say, whatever it asks for. Clients say mostly the
// same with each request of a connection, so that it is worked out once for all of those.
// It is for one request at a time.
type Head struct {
	no      *postern.Refusal // why none with these headers is served
	claim   *Claim
	forward http.Header
	shown   []string

	// Memo is for what the engine remembers of the requests with this Head.
	Memo any
}

// head is that of a request.
func (c *Conn) head(w http.ResponseWriter, r *http.Request) *Head {
	memo := h1.Memo(w)
	if memo != nil {
		if h, ok := (*memo).(*Head); ok {
			return h
		}
	}
	h := &Head{no: check(r)}
	if h.no == nil && c.misdirected(r) {
		h.no = Bad("this gateway is not the host that the request is for")
	}
	if memo != nil {
		*memo = h
	}
	return h
}

// Claim is claimOf. That of a browser depends on more than its headers.
func (h *Head) Claim(p postern.Protocol, r *http.Request) (Claim, error) {
	if h.claim != nil {
		return *h.claim, nil
	}
	c, err := claimOf(p, r)
	if err == nil && !c.Browser {
		h.claim = &c
	}
	return c, err
}

// Forward is a copy of the headers that go on to the resource.
func (h *Head) Forward(r *http.Request) http.Header {
	if h.forward == nil {
		h.forward = make(http.Header, len(r.Header))
		Forward(h.forward, r.Header)
	}
	return maps.Clone(h.forward)
}

// Shown lists the headers as they may be recorded. It must not be changed.
func (h *Head) Shown(r *http.Request) []string {
	if h.shown == nil {
		h.shown = shownHeaders(r.Header)
	}
	return h.shown
}
