package authz_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/api/authz"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// methods are all methods of the API, from its description.
func methods() map[string]bool { // whether it streams
	out := make(map[string]bool)
	services := apiv1.File_postern_api_v1_api_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			out[fmt.Sprintf("/%s/%s", services.Get(i).FullName(), m.Name())] = m.IsStreamingServer()
		}
	}
	return out
}

func TestTableHasEveryMethod(t *testing.T) {
	table, all := authz.Table(), methods()
	for m := range all {
		if _, ok := table[m]; !ok {
			t.Errorf("%s is not in the table", m)
		}
	}
	for m, r := range table {
		if _, ok := all[m]; !ok {
			t.Errorf("%s is in the table and not in the API", m)
		}
		if !r.Public && !r.Optional && !r.Signed && len(r.Roles) == 0 {
			t.Errorf("nobody may call %s", m)
		}
	}
}

// who says, in words of its own, who may call what: n nobody signed in, s somebody
// without a role, v viewer, o operator, u auditor, a admin, r the configuration's admin; V,
// O, U and A are those whose role has a scope.
const who = `
PolicyService/Create oarOA
PolicyService/Update oarOA
PolicyService/Delete oarOA
PolicyService/Apply oarOA
PolicyService/Get voarVOA
PolicyService/List voarVOA
PolicyService/Watch voarVOA
PolicyService/WhoCan voarVOA
PolicyService/Compare voarVOA
AccessService/WhoAmI svouarVOUA
AccessService/LoginOptions nsvouarVOUA
AccessService/ListTasks svouarVOUA
AccessService/Explain svouarVOUA
AccessService/ListEndpoints svouarVOUA
AccessService/Doctor voarVOA
GrantService/CreateGrant nsvouarVOUA
GrantService/RequestGrant svouarVOUA
GrantService/GetGrant svouarVOUA
GrantService/ListGrants svouarVOUA
GrantService/RevokeGrant svouarVOUA
ApprovalService/ListHolds svouarVOUA
ApprovalService/GetHold svouarVOUA
ApprovalService/ReviewHold svouarVOUA
ApprovalService/WithdrawHold svouarVOUA
ApprovalService/WatchHolds svouarVOUA
SessionService/ListSessions svouarVOUA
SessionService/GetSession svouarVOUA
SessionService/ReadRecording svouarVOUA
SessionService/KillSession svouarVOUA
SessionService/SetLegalHold uar
AnswerService/SearchStatements uar
AnswerService/WhoUsed uar
AnswerService/GetUsage ouar
AccountService/ListAccounts ouar
AccountService/RotateAccount ar
LockService/GetReceipt voarVOA
LockService/Offboard oarOA
LockService/GetBlast ouar
AuditService/ListAuditEntries uar
NodeAdminService/CreateJoinToken arA
NodeAdminService/ListNodes voarVOA
NodeAdminService/DrainNode oarOA
AuthorityService/ListKeys voarVOA
AuthorityService/RotateKey ar
AuthorityService/RetireKey ar
`

func TestRoleByMethod(t *testing.T) {
	h := newHouse(t, &all{}, nil)
	callers := map[byte]string{
		'n': "", 's': "sue:people", 'v': "vic:viewers", 'o': "olga:operators",
		'u': "udo:auditors", 'a': "ada:admins", 'r': "root:people",
		'V': "vera:scoped-viewers", 'O': "otto:scoped-operators", 'U': "una:scoped-auditors", 'A': "abel:scoped-admins",
	}
	never := map[string]connect.Code{ // whatever the method
		"eve:admins": connect.CodePermissionDenied, // locked
		"unsigned":   connect.CodeUnauthenticated,
		"dead":       connect.CodeUnauthenticated,
		"broken":     connect.CodeInternal,
	}
	seen := 0
	for line := range strings.Lines(strings.TrimSpace(who)) {
		name, may, _ := strings.Cut(strings.TrimSpace(line), " ")
		procedure := "/postern.api.v1." + name
		streams, ok := methods()[procedure]
		if !ok {
			t.Errorf("no method %s", name)
			continue
		}
		seen++
		for key, token := range callers {
			code := h.call(t, procedure, token, streams)
			allowed := code != connect.CodePermissionDenied && code != connect.CodeUnauthenticated
			if want := strings.IndexByte(may, key) >= 0; allowed != want {
				t.Errorf("%s as %q answers %v, want allowed = %v", name, token, code, want)
			}
			if key == 'n' && !allowed && code != connect.CodeUnauthenticated {
				t.Errorf("%s as nobody answers %v", name, code)
			}
		}
		for token, want := range never {
			if code := h.call(t, procedure, token, streams); code != want && !strings.HasSuffix(procedure, "/LoginOptions") {
				t.Errorf("%s with token %q answers %v, want %v", name, token, code, want)
			}
		}
	}
	if seen != len(methods()) {
		t.Errorf("%d methods were tried of %d", seen, len(methods()))
	}
}

// call sends an empty JSON request, as anybody with curl does, and returns the code.
func (h *house) call(t *testing.T, procedure, token string, streams bool) connect.Code {
	t.Helper()
	body, kind := "{}", "application/json"
	if streams {
		body, kind = "\x00\x00\x00\x00\x02{}", "application/connect+json"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Code  string
		Error struct{ Code string }
	}
	p := make([]byte, 64<<10)
	n := 0
	for n < len(p) {
		m, err := resp.Body.Read(p[n:])
		if n += m; err != nil {
			break
		}
	}
	text := p[:n]
	if streams && len(text) > 5 {
		text = text[5:] // the last frame has the error
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%s: %d %q", procedure, resp.StatusCode, text)
	}
	code := out.Code + out.Error.Code
	if code == "" {
		return 0
	}
	var c connect.Code
	if err := c.UnmarshalText([]byte(code)); err != nil {
		t.Fatal(err)
	}
	return c
}
