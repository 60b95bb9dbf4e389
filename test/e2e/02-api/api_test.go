package api

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/clients"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// TestAPI: the same things are done in every way in which the API can be spoken.
func TestAPI(t *testing.T) {
	h := house.Start(t)
	ada := h.APIToken(t, "ada")
	for name, c := range map[string]clients.Client{
		"json": as(h, ada), "connect": clients.Connect(as(h, ada).API), "grpc": clients.Connect(as(h, ada).API, connect.WithGRPC()),
		"grpc-web": clients.Connect(as(h, ada).API, connect.WithGRPCWeb()), "grpc-go": clients.DialGRPC(t, as(h, ada).API),
		"curl": clients.Curl(t, as(h, ada).API), "buf-curl": clients.BufCurl(t, as(h, ada).API),
	} {
		t.Run(name, func(t *testing.T) { clients.RoundTrip(t, c, "mask-"+name) })
	}
	t.Run("unauthenticated", func(t *testing.T) { unauthenticated(t, h) })
	t.Run("roles", func(t *testing.T) { roles(t, h) })
	t.Run("bad requests", func(t *testing.T) { badRequests(t, h) })
	t.Run("what was written is in force", func(t *testing.T) { inForce(t, h) })
	t.Run("health", func(t *testing.T) { health(t, h) })
	t.Run("reflection", func(t *testing.T) { reflection(t, h) })
	t.Run("secrets are never read back", func(t *testing.T) {
		for _, m := range []string{"PolicyService/Get", "PolicyService/List"} {
			r := house.Must(as(h, ada).Post(t.Context(), m, "application/json", []byte(`{"kind":"secret"`+map[bool]string{true: `,"name":"warehouse"`}[m == "PolicyService/Get"]+`}`)))(t)
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != http.StatusOK || strings.Contains(string(b), "warehouse_app") || strings.Contains(string(b), "sealed") || strings.Contains(string(b), "password") {
				t.Errorf("%s: %s: %s", m, r.Status, b)
			}
		}
	})
}

// inForce: the call after a write is judged by it.
func inForce(t *testing.T, h *house.House) {
	for i := range 20 {
		name := fmt.Sprintf("fresh-%d", i)
		h.Apply(t, "ada", strings.ReplaceAll(`
apiVersion: postern/v1
kind: Task
metadata: {name: NAME, labels: {team: sales}}
spec:
  purpose: be taken at once
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: NAME, labels: {team: sales}}
spec: {subjects: [{group: analysts}], tasks: [NAME]}
`, "NAME", name))
		if _, err := h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: name})); err != nil {
			t.Fatalf("behind the write of %s: %v", name, err)
		}
		h.Delete(t, "binding", name)
		if _, err := h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: name})); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Fatalf("behind the end of %s: %v", name, err)
		}
	}
}

// as is the API as JSON, with a token.
func as(h *house.House, token string) clients.Plain {
	return clients.Plain{API: clients.API{Addr: h.Addr, CAFile: h.CAFile, HTTP: h.HTTP(), Token: token}}
}

// methods are all of the API, with whether they stream.
func methods() map[string]bool {
	out := map[string]bool{}
	services := apiv1.File_postern_api_v1_api_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			out[fmt.Sprintf("%s/%s", services.Get(i).Name(), m.Name())] = m.IsStreamingServer()
		}
	}
	return out
}

// unauthenticated: without a token, or with one that is none, nothing but how to sign in
// is told, by no method and in no way.
func unauthenticated(t *testing.T, h *house.House) {
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+h.Issuer+`","aud":"postern-api","sub":"ada","groups":["admins"],"exp":4102444800}`)) + "."
	for what, token := range map[string]string{"no token": "", "nonsense": "nonsense", "alg none": none, "a grant token": "pst_abc", "a data token": h.DataToken(t, "ada")} {
		for m, streams := range methods() {
			if m == "AccessService/LoginOptions" {
				continue
			}
			p := as(h, token)
			if streams {
				r := house.Must(p.Post(t.Context(), m, "application/connect+json", []byte("\x00\x00\x00\x00\x02{}")))(t)
				b, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if !strings.Contains(string(b), `"unauthenticated"`) {
					t.Errorf("%s with %s: %s %q", m, what, r.Status, b)
				}
				continue
			}
			body := "{}"
			if m == "GrantService/CreateGrant" { // which a workload may call with its own token inside
				body = `{"task":"sales-report"}`
			}
			if code, text := p.Raw(t.Context(), m, []byte(body), nil); code != "unauthenticated" {
				t.Errorf("%s with %s: %s %s", m, what, code, text)
			}
		}
	}
	var options apiv1.LoginOptionsResponse
	if code, text := as(h, "").Raw(t.Context(), "AccessService/LoginOptions", []byte("{}"), &options); code != "" || options.GetIssuers()[0].GetIssuer() != h.Issuer {
		t.Errorf("login options: %s %s %v", code, text, &options)
	}
}

// roles are spot checks; the whole table is the authz package's own test.
func roles(t *testing.T, h *house.House) {
	for _, c := range []struct{ who, method, body, want string }{
		{"alice", "PolicyService/List", `{"kind":"task"}`, "permission_denied"},
		{"alice", "PolicyService/Create", `{"object":{"mask":{"metadata":{"name":"x"},"spec":{"method":"null"}}}}`, "permission_denied"},
		{"alice", "AuditService/ListAuditEntries", `{}`, "permission_denied"},
		{"alice", "NodeAdminService/CreateJoinToken", `{"name":"evil"}`, "permission_denied"},
		{"alice", "AccessService/ListTasks", `{}`, ""},
		{"bob", "AuditService/ListAuditEntries", `{}`, ""},
		{"bob", "NodeAdminService/CreateJoinToken", `{"name":"evil"}`, "permission_denied"},
		{"bob", "PolicyService/Create", `{"object":{"roleBinding":{"metadata":{"name":"x"},"spec":{"role":"admin","subjects":[{"subject":"bob"}]}}}}`, "permission_denied"},
		{"bob", "PolicyService/Create", `{"object":{"mask":{"metadata":{"name":"outside"},"spec":{"method":"null"}}}}`, "permission_denied"}, // not in his scope
		{"ada", "NodeAdminService/ListNodes", `{}`, ""},
		{"ada", "PolicyService/List", `{"kind":"task"}`, ""},
		{"nightly", "AccessService/WhoAmI", `{}`, ""},
	} {
		p := as(h, h.APIToken(t, c.who))
		r := house.Must(p.Post(t.Context(), c.method, "application/json", []byte(c.body)))(t)
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if c.want == "" && r.StatusCode != http.StatusOK || c.want != "" && !strings.Contains(string(b), `"`+c.want+`"`) {
			t.Errorf("%s calls %s: %s %s", c.who, c.method, r.Status, b)
		}
	}
}

// badRequests are answered as such, and harm nobody.
func badRequests(t *testing.T, h *house.House) {
	p := as(h, h.APIToken(t, "ada"))
	for _, c := range []struct{ method, body, want string }{
		{"PolicyService/Create", ``, "invalid_argument"},
		{"PolicyService/Create", `{`, "invalid_argument"},
		{"PolicyService/Create", `{"objekt":{}}`, "invalid_argument"},
		{"PolicyService/Create", `{"object":{"task":{"metadata":{"name":"x"},"spec":{"purpos":"typo"}}}}`, "invalid_argument"},
		{"PolicyService/Create", `{"object":{}}`, "invalid_argument"},
		{"PolicyService/Get", `{"kind":"planet","name":"x"}`, "invalid_argument"},
		{"PolicyService/Get", `{"kind":"task","name":"` + strings.Repeat("x", 4000) + `"}`, "invalid_argument not_found"},
		{"PolicyService/List", `{"kind":"task","pageToken":"nonsense"}`, "invalid_argument"},
		{"GrantService/CreateGrant", `{"task":"a/../b"}`, "invalid_argument permission_denied failed_precondition"},
		{"SessionService/GetSession", `{"id":"../../etc/passwd"}`, "invalid_argument not_found"},
		{"PolicyService/Create", `{"object":` + strings.Repeat(`{"a":`, 20000), "invalid_argument"},
		{"PolicyService/Create", strings.Repeat("x", 5<<20), "resource_exhausted invalid_argument"},
	} {
		if code, text := p.Raw(t.Context(), c.method, []byte(c.body), nil); code == "" || !strings.Contains(c.want, code) || len(text) > 4000 {
			t.Errorf("%s %.60s: %s %.200s", c.method, c.body, code, text)
		}
	}
	for what, req := range map[string]func() (*http.Request, error){
		"a page of another origin": func() (*http.Request, error) {
			r, err := http.NewRequest(http.MethodPost, h.Addr+"/postern.api.v1."+"AccessService/WhoAmI", strings.NewReader("{}"))
			if err == nil {
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+p.Token)
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header.Set("Origin", "https://evil.example")
			}
			return r, err
		},
		"an unknown method": func() (*http.Request, error) {
			return http.NewRequest(http.MethodPost, h.Addr+"/postern.api.v1."+"PolicyService/Nothing", strings.NewReader("{}"))
		},
		"another content type": func() (*http.Request, error) {
			r, err := http.NewRequest(http.MethodPost, h.Addr+"/postern.api.v1."+"AccessService/WhoAmI", strings.NewReader("{}"))
			if err == nil {
				r.Header.Set("Content-Type", "text/plain")
			}
			return r, err
		},
	} {
		r := house.Must(h.HTTP().Do(house.Must(req())(t)))(t)
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if r.StatusCode < 400 || r.StatusCode >= 500 {
			t.Errorf("%s: %s", what, r.Status)
		}
	}
	var me apiv1.WhoAmIResponse
	if code, text := p.Raw(t.Context(), "AccessService/WhoAmI", []byte("{}"), &me); code != "" || me.GetSubject().GetName() != "ada" {
		t.Errorf("afterwards: %s %s %v", code, text, &me)
	}
}

func health(t *testing.T, h *house.House) {
	g := clients.DialGRPC(t, as(h, "").API)
	for service, want := range map[string]healthv1.HealthCheckResponse_ServingStatus{"": healthv1.HealthCheckResponse_SERVING, "postern.api.v1.PolicyService": healthv1.HealthCheckResponse_SERVING} {
		r, err := healthv1.NewHealthClient(g.Conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || r.GetStatus() != want {
			t.Errorf("%q: %v, %v", service, r, err)
		}
	}
	if _, err := healthv1.NewHealthClient(g.Conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nothing"}); err == nil {
		t.Error("a service that is not there is healthy")
	}
}

func reflection(t *testing.T, h *house.House) {
	g := clients.DialGRPC(t, as(h, "").API)
	s := house.Must(reflectionv1.NewServerReflectionClient(g.Conn).ServerReflectionInfo(t.Context()))(t)
	if err := s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, v := range house.Must(s.Recv())(t).GetListServicesResponse().GetService() {
		have[v.GetName()] = true
	}
	services := apiv1.File_postern_api_v1_api_proto.Services()
	for i := range services.Len() {
		if name := services.Get(i).FullName(); !have[string(name)] {
			t.Errorf("%s is not reflected", name)
		}
	}
	if err := s.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: string(protoreflect.FullName("postern.types.v1.Task"))}}); err != nil {
		t.Fatal(err)
	}
	if len(house.Must(s.Recv())(t).GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Error("messages are not described")
	}
}
