package http

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
)

// metadataPath begins the paths at which clients ask, before they have anything to show, where
// people sign in for what is behind the rest of the path (RFC 9728, 3.1). A resource's own is not
// asked for: its issuers give tokens that nobody takes here.
const metadataPath = "/.well-known/oauth-protected-resource"

func ofMetadata(r *http.Request) bool {
	rest, found := strings.CutPrefix(asWritten(r), metadataPath)
	return found && (rest == "" || rest[0] == '/')
}

// metadata is where people sign in for a resource. It is the same for every one, whether it is
// there or not.
type metadata struct {
	Resource string   `json:"resource"`
	Servers  []string `json:"authorization_servers"`
	Scopes   []string `json:"scopes_supported,omitempty"`
	Methods  []string `json:"bearer_methods_supported"`
	Name     string   `json:"resource_name"`
}

func (e *Engine) metadata(w http.ResponseWriter, r *http.Request) {
	m := metadata{Resource: origin(r) + strings.TrimPrefix(asWritten(r), metadataPath), Methods: []string{"header"}, Name: "Postern"}
	for i, is := range e.issuers() {
		m.Servers = append(m.Servers, is.GetUrl())
		if i == 0 {
			m.Scopes = slices.Clone(is.GetScopes())
		}
		m.Scopes = slices.DeleteFunc(m.Scopes, func(s string) bool { // what no token needs, or some issuer does not know
			return s == "offline_access" || !slices.Contains(is.GetScopes(), s)
		})
	}
	switch {
	case r.Method != http.MethodGet:
		e.refuse(w, r, request.Bad("where people sign in can be read and nothing else"))
		return
	case len(m.Servers) == 0:
		e.refuse(w, r, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "where people sign in is not known here yet", Hint: "try again; if it stays, tell the operators"})
		return
	}
	w.Header().Set(request.CodeHeader, "answered")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(m)
}

// discovery is what a challenge says of that: where a client asks.
func (e *Engine) discovery(r *http.Request) []string {
	at := origin(r) + metadataPath
	if path := asWritten(r); path != "/" {
		at += path
	}
	if len(e.issuers()) == 0 || strings.ContainsAny(at, `"\`) {
		return nil
	}
	return []string{`resource_metadata="` + at + `"`}
}

// asWritten is the path of a request as its client has written it.
func asWritten(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}
