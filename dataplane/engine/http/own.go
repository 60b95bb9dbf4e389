package http

import (
	"encoding/json"
	"net/http"

	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
)

// whoami is what a client is told of the session that its requests are in.
type whoami struct {
	Session  postern.SessionID    `json:"session"`
	Subject  string               `json:"subject"`
	Task     postern.TaskName     `json:"task"`
	Resource postern.ResourceName `json:"resource"`
	Node     postern.NodeName     `json:"node"`
}

// own answers what is asked of the gateway itself; a browser has signed in by it.
func (e *Engine) own(w http.ResponseWriter, r *http.Request, c *request.Conn, v *request.Visit, browser bool) {
	switch {
	case browser && r.URL.Path == ownPath && r.Method == http.MethodGet:
		who(w, v)
		return
	case browser && r.URL.Path == logoutPath && r.Method == http.MethodPost:
		e.logout(w, r, c, v)
		return
	case r.URL.Path != ownPath+"session" || r.Method != http.MethodGet:
		request.Refuse(w, r, &postern.Refusal{Reason: "the gateway has no " + r.Method + " " + r.URL.Path, Hint: "GET " + ownPath + "session says what session this is"})
		return
	}
	t := v.Terms()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(whoami{v.ID(), t.Subject, t.Task, t.Resource, t.Node})
}
