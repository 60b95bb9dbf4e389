package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

const siteWorld = `
kind: Resource
metadata: {name: orders-api}
spec:
  protocol: http
  endpoint: {host: orders.internal, port: 443, http: {auth: {scheme: header, header: X-Api-Key}}}
  credential: {sealed: orders-api}
---
kind: Mask
metadata: {name: email}
spec: {method: redact, value: "***"}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Task
metadata: {name: orders}
spec:
  purpose: orders
  resources: {names: [orders-api]}
  permit:
    - {methods: [GET, HEAD], path: "/api/orders/*", query: [page], mask: {/customer/email: email}}
    - {methods: [POST], path: /api/orders, headers: {x-tenant: "acme-*"}}
    - {methods: [PUT], path: "/mine/*"}
    - {methods: [PUT], path: "/tenants/*", when: 'http.headers["x-tenant"].startsWith("acme-")'}
    - {methods: [PUT], path: "/copies/*", headers: {x-amz-copy-source: "/mine/*"}}
    - {methods: [PATCH], path: "/api/orders/*", when: 'http.body.status == "paid" && !has(http.body.admin)'}
    - {methods: [DELETE], path: "/api/orders/*", approval: {scope: statement, rule: leads}}
    - {methods: [MOVE], path: "/files/locked/*", approval: {scope: statement, rule: leads}}
    - {methods: [MOVE, COPY], path: "/files/**"}
    - {methods: [MOVE], path: "/papers/*", when: 'http.path != "/papers/law"'}
    - {methods: [MOVE], path: "/named/*", headers: {destination: "https://*/elsewhere/*"}}
    - {methods: [GET], path: "/static/**", query: ["*"]}
    - {methods: [GET], path: "/projects/acme%2F*/issues/**"}
    - {methods: [GET], path: /api/stream, websocket: true}
    - {grpc: ["orders.v1.Orders/Get*", "grpc.health.v1.Health/Check"]}
  duration: 1h
`

func TestRequests(t *testing.T) {
	s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(siteWorld)))
	if len(rejected) > 0 {
		t.Fatalf("%+v", rejected)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	decide := func(f *http.Facts) postern.Decision {
		return s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: "orders", Start: now, End: now.Add(time.Hour)},
			Resource: "orders-api", Facts: f, Request: Request{Time: now},
		})
	}
	ask := func(line string, change ...func(*http.Facts)) *http.Facts {
		t.Helper()
		method, target, _ := strings.Cut(line, " ")
		to, err := http.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		f := &http.Facts{Method: method, Path: to.Path, Query: to.Query, Header: map[string]string{}}
		for _, c := range change {
			c(f)
		}
		return f
	}
	header := func(name, value string) func(*http.Facts) { return func(f *http.Facts) { f.Header[name] = value } }
	twice := func(name string) func(*http.Facts) {
		return func(f *http.Facts) { f.Header[name], f.Twice = "acme-1, evil", map[string]bool{name: true} }
	}
	to := func(path string) func(*http.Facts) {
		return func(f *http.Facts) { f.Destination, f.Header["destination"] = path, "https://files.example"+path }
	}
	grpc := func(f *http.Facts) { f.ContentType = "application/grpc+proto" }
	body := func(text string) func(*http.Facts) {
		return func(f *http.Facts) {
			b, err := http.ParseBody("application/json", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			f.Body = b
		}
	}
	upgrade := func(f *http.Facts) { f.Upgrade = "websocket" }
	for _, c := range []struct {
		facts *http.Facts
		want  postern.Verdict
		says  string
	}{
		{ask("GET /api/orders/42"), postern.VerdictAllow, ""},
		{ask("HEAD /api/orders/42?page=2"), postern.VerdictAllow, ""},
		{ask("GET /api/orders/42?page=2&page=3"), postern.VerdictDeny, "more than once"},
		{ask("GET /api/orders/42?page=2&PAGE=3"), postern.VerdictDeny, "more than once"},
		{ask("GET /api/orders/42?fields=email"), postern.VerdictDeny, `parameter "fields"`},
		{ask("GET /api/orders/"), postern.VerdictDeny, "does not allow"},
		{ask("GET /api/orders"), postern.VerdictDeny, "does not allow"},
		{ask("GET /api/orders/42/lines"), postern.VerdictDeny, "does not allow"},
		{ask("get /api/orders/42"), postern.VerdictDeny, "does not allow"},
		{ask("PROPFIND /api/orders/42"), postern.VerdictDeny, "does not allow"},
		{ask("POST /api/orders"), postern.VerdictDeny, "x-tenant"},
		{ask("POST /api/orders", header("x-tenant", "evil")), postern.VerdictDeny, "x-tenant"},
		{ask("POST /api/orders", header("x-tenant", "acme-1")), postern.VerdictAllow, ""},
		{ask("POST /api/orders", twice("x-tenant")), postern.VerdictDeny, "the header x-tenant more than once"},
		{ask("POST /api/orders", twice("accept"), header("x-tenant", "acme-1")), postern.VerdictAllow, ""},
		{ask("PUT /tenants/a", header("x-tenant", "acme-1")), postern.VerdictAllow, ""},
		{ask("PUT /tenants/a", twice("x-tenant")), postern.VerdictDeny, "could not be evaluated"},
		{ask("PUT /mine/a"), postern.VerdictAllow, ""},
		{ask("PUT /mine/a", header("x-amz-copy-source", "/theirs/b")), postern.VerdictDeny, "the header x-amz-copy-source"},
		{ask("PUT /mine/a", header("destination", "/theirs/b")), postern.VerdictDeny, "the header destination"},
		{ask("PUT /copies/a", header("x-amz-copy-source", "/theirs/b")), postern.VerdictDeny, "without the header"},
		{ask("PUT /copies/a", header("x-amz-copy-source", "/mine/b")), postern.VerdictAllow, ""},
		{ask("MOVE /files/a", to("/files/b/c")), postern.VerdictAllow, ""},
		{ask("COPY /files/locked/a", to("/files/b")), postern.VerdictAllow, ""},
		{ask("MOVE /files/a", to("/theirs/b")), postern.VerdictDeny, "MOVE to /theirs/b"},
		{ask("MOVE /files/a", to("/files/locked/b")), postern.VerdictDeny, "MOVE to /files/locked/b"},
		{ask("MOVE /files/locked/a", to("/files/locked/b")), postern.VerdictHold, ""},
		{ask("MOVE /papers/a", to("/papers/law")), postern.VerdictDeny, "MOVE to /papers/law"},
		{ask("MOVE /files/a", header("destination", "https://other.example/files/b")), postern.VerdictDeny, "the header destination"},
		{ask("MOVE /named/a", to("/elsewhere/b")), postern.VerdictAllow, ""},
		{ask("PATCH /api/orders/1", body(`{"status":"paid"}`)), postern.VerdictAllow, ""},
		{ask("PATCH /api/orders/1", body(`{"status":"void"}`)), postern.VerdictDeny, "only when"},
		{ask("PATCH /api/orders/1", body(`{"Status":"paid"}`)), postern.VerdictDeny, `says "Status"`},
		{ask("PATCH /api/orders/1", body(`{"status":"paid","ADMIN":true}`)), postern.VerdictDeny, `says "ADMIN"`},
		{ask("PATCH /api/orders/1", body(`[]`)), postern.VerdictDeny, "could not be evaluated"},
		{ask("DELETE /api/orders/1"), postern.VerdictHold, ""},
		{ask("GET /static/a/b.css?v=1&v=2"), postern.VerdictAllow, ""},
		{ask("GET /statics"), postern.VerdictDeny, ""},
		{ask("GET /projects/acme%2fsite/issues/7"), postern.VerdictAllow, ""},
		{ask("GET /projects/acme%2Fsite%2Fadmin/issues/7"), postern.VerdictDeny, "does not allow"},
		{ask("GET /projects/acme/site/issues/7"), postern.VerdictDeny, ""},
		{ask("GET /projects/other%2Fsite/issues/7"), postern.VerdictDeny, ""},
		{ask("GET /projects/acme%2Fsite/issues/7%2Fx"), postern.VerdictDeny, ""},
		{ask("GET /api/orders%2F42"), postern.VerdictDeny, ""},
		{ask("GET /api/orders/42%2Flines"), postern.VerdictDeny, ""},
		{ask("GET /static/a%2Fb.css"), postern.VerdictDeny, ""},
		{ask("GET /api/stream"), postern.VerdictDeny, ""},
		{ask("GET /api/stream", upgrade), postern.VerdictAllow, ""},
		{ask("GET /api/orders/42", upgrade), postern.VerdictDeny, "websocket at"},
		{ask("POST /orders.v1.Orders/GetOrder", grpc), postern.VerdictAllow, ""},
		{ask("POST /orders.v1.Orders/GetOrder"), postern.VerdictDeny, ""},
		{ask("POST /orders.v1.Orders/DeleteOrder", grpc), postern.VerdictDeny, ""},
		{ask("POST /orders.v1.Orders/GetOrder/x", grpc), postern.VerdictDeny, ""},
		{ask("POST /orders.v1.Orders/GetOrder%2Fx", grpc), postern.VerdictDeny, ""},
		{ask("GET /", func(f *http.Facts) { f.Unknown = "odd" }), postern.VerdictDeny, "could not be understood"},
		{nil, postern.VerdictDeny, "could not be understood"},
	} {
		d := decide(c.facts)
		if d.Verdict != c.want || !strings.Contains(d.Reason+" "+d.Detail, c.says) {
			t.Errorf("%+v: %s %q %q, want %s", c.facts, d.Verdict, d.Reason, d.Detail, c.want)
		}
	}
	d := decide(ask("GET /api/orders/42"))
	if len(d.Obligations) != 1 || d.Obligations[0].Content.Fields[0].Path != "/customer/email" || d.Level != postern.LevelResult || !d.Deps.Cacheable() {
		t.Errorf("%+v", d)
	}
	if d := decide(ask("PATCH /api/orders/1")); len(d.Missing) != 1 || d.Missing[0] != postern.FactBody || d.Verdict != postern.VerdictDeny || d.Deps.Cacheable() {
		t.Errorf("%+v", d)
	}
	if terms, _ := s.Terms("orders"); terms.ReadOnly {
		t.Error("it changes things")
	}
}

func TestRequestPermitsAreChecked(t *testing.T) {
	for permit, want := range map[string]string{
		`{path: /a}`:                                                     "methods: is required",
		`{methods: [GET]}`:                                               "must have just one of",
		`{methods: [get], path: /a}`:                                     "is not a method",
		`{methods: [CONNECT], path: /a}`:                                 "is not a method",
		`{methods: [GET], path: a}`:                                      "canonical form",
		`{methods: [GET], path: /a/../b}`:                                "canonical form",
		`{methods: [GET], path: "/a/**/b"}`:                              "stands last",
		`{methods: [GET], path: "/a%20b"}`:                               "canonical form",
		`{methods: [GET], path: /a, query: ["a*"]}`:                      "must be a name",
		`{methods: [GET], path: /a, headers: {"a b": x}}`:                "is not the name of a header",
		`{methods: [GET], path: /a, mask: {/x: nothing}}`:                `there is no mask "nothing"`,
		`{methods: [GET], path: /a, mask: {/x~2: email}}`:                `spec.permit[0].mask./x~2: path "/x~2"`,
		`{methods: [GET], path: /a, mask: {"*": email}}`:                 `"*" alone is no name of a field`,
		`{methods: [GET], path: /a, query: ["*"], mask: {/x: email}}`:    "one by one where values are masked",
		`{methods: [GET], path: /a, websocket: true, mask: {/x: email}}`: "not masked",
		`{methods: [POST], path: /a, websocket: true}`:                   "begins with GET",
		`{grpc: [x]}`:                                       "package.Service/Method",
		`{grpc: [x/y], methods: [GET]}`:                     "does not belong to a permit for gRPC",
		`{methods: [GET], path: /a, verbs: [select]}`:       "verbs: does not belong",
		`{methods: [GET], path: /a, when: 'http.bod == 1'}`: "undeclared",
		`{methods: [GET], path: /a, approval: {scope: statement, rule: leads, verbs: [select]}}`: "as a whole",
	} {
		head, _, _ := strings.Cut(siteWorld, "    - {methods: [GET, HEAD]")
		_, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(head+"    - "+permit+"\n  duration: 1h\n")))
		if len(rejected) != 1 || !strings.Contains(rejected[0].Reason, want) {
			t.Errorf("%s: %+v, want %s", permit, rejected, want)
		}
	}
	const header, sealed = "auth: {scheme: header, header: X-Api-Key}", "credential: {sealed: orders-api}"
	for _, c := range []struct{ from, to, want string }{
		{"header: X-Api-Key", "header: X-Api-Key", ""},
		{"header: X-Api-Key", "header: Host", "cannot carry a credential"},
		{"header: X-Api-Key", "header: ''", "belongs to scheme header"},
		{header, "identity: true, " + header, ""},
		{header, "auth: {scheme: certificate}", ""},
		{header, "auth: {scheme: sigv4, region: eu-central-1, service: s3}", ""},
		{header, "auth: {scheme: sigv4, service: s3}", "region and service"},
		{header, "auth: {scheme: sigv4, region: 'EU/', service: s3}", "lower-case words"},
		{header, "auth: {scheme: bearer, region: eu-central-1}", "region and service"},
		{sealed, "credential: {oauth: {tokenUrl: 'https://login.example/token', secret: orders-api, scopes: [a, b]}}", ""},
		{sealed, "credential: {oauth: {tokenUrl: 'http://login.example/token', secret: orders-api}}", "https only"},
		{sealed, "credential: {oauth: {tokenUrl: 'https://u:p@login.example/token', secret: orders-api}}", "must be a URL"},
		{sealed, "credential: {oauth: {tokenUrl: 'https://login.example/token'}}", "secret: is required"},
		{sealed, "credential: {sealed: orders-api, oauth: {tokenUrl: 'https://login.example/token', secret: orders-api}}", "beside another source"},
		{sealed, "credential: {oauth: {tokenUrl: 'https://login.example/token', secret: orders-api, scopes: ['a b']}}", "not one scope"},
	} {
		if !strings.Contains(siteWorld, c.from) {
			t.Fatalf("%q is not in the world", c.from)
		}
		_, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(strings.Replace(siteWorld, c.from, c.to, 1))))
		if c.want == "" != (len(rejected) == 0) || c.want != "" && !strings.Contains(rejected[0].Reason, c.want) {
			t.Errorf("%s: %+v, want %s", c.to, rejected, c.want)
		}
	}
}
