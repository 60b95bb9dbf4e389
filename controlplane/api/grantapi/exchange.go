package grantapi

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/task"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// ExchangePath is where agents exchange tokens.
const ExchangePath = "/oauth2/token"

// maxExchange bounds the body of an exchange, in bytes.
const maxExchange = 64 << 10

// The words of RFC 8693.
const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	tokenTypes    = "urn:ietf:params:oauth:token-type:"
)

// exchangeForm has the parameters, and whether each must be there. The others of the
// standard (audience, resource, requested_token_type) may be given and say nothing here.
var exchangeForm = map[string]bool{
	"grant_type": true, "subject_token": true, "subject_token_type": true, "actor_token": true, "actor_token_type": true, "scope": true,
	"audience": false, "resource": false, "requested_token_type": false,
}

// Exchange is CreateGrant for an agent with somebody's token, in the form of RFC 8693: the
// scope is the task, and what is issued is a grant token. It needs no Authorization: both
// tokens are in the form, and both are verified.
func (h *Handler) Exchange(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "invalid_request", "an exchange is a POST")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		refuse(w, http.StatusBadRequest, "invalid_request", "the body must be a form (application/x-www-form-urlencoded)")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxExchange)
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "the form cannot be read")
		return
	}
	for name := range exchangeForm {
		if n := len(r.PostForm[name]); n > 1 || exchangeForm[name] && (n == 0 || r.PostForm.Get(name) == "") {
			refuse(w, http.StatusBadRequest, "invalid_request", name+" must be there once")
			return
		}
	}
	if r.PostForm.Get("grant_type") != exchangeGrant {
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", "grant_type must be "+exchangeGrant)
		return
	}
	for _, name := range []string{"subject_token_type", "actor_token_type"} {
		switch kind, ok := strings.CutPrefix(r.PostForm.Get(name), tokenTypes); {
		case ok && (kind == "jwt" || kind == "id_token"):
		case ok && kind == "access_token" && name == "subject_token_type": // a grant token
		default:
			refuse(w, http.StatusBadRequest, "invalid_request", name+" must be "+tokenTypes+"id_token or "+tokenTypes+"jwt")
			return
		}
	}
	resp, err := h.grants.Create(r.Context(), task.Caller{Address: r.RemoteAddr}, &apiv1.CreateGrantRequest{
		Task: r.PostForm.Get("scope"), WorkloadToken: r.PostForm.Get("actor_token"), SubjectToken: r.PostForm.Get("subject_token"),
	})
	if err != nil {
		f := fault.From(err)
		status, code := http.StatusBadRequest, "invalid_request"
		switch f.Code {
		case codes.Unauthenticated:
			code = "invalid_grant"
		case codes.PermissionDenied, codes.FailedPrecondition:
			code = "invalid_scope"
		case codes.ResourceExhausted:
			status, code = http.StatusTooManyRequests, "temporarily_unavailable"
		case codes.InvalidArgument:
		default:
			status, code = http.StatusServiceUnavailable, "temporarily_unavailable"
		}
		refuse(w, status, code, f.Reason)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": resp.GetToken(), "issued_token_type": tokenTypes + "access_token", "token_type": "N_A",
		"expires_in": int(time.Until(resp.GetGrant().GetEndTime().AsTime()).Seconds()), "scope": resp.GetGrant().GetTask(),
	})
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	answer(w, status, map[string]any{"error": code, "error_description": description})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked may be gone
}
