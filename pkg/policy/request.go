package policy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// A request is what a permit for http allows.
type request struct {
	methods   []string
	path      string            // a pattern; empty for gRPC
	grpc      []string          // patterns
	query     map[string]bool   // names
	any       bool              // any parameter
	headers   map[string]string // patterns by lower-case name
	websocket bool
}

// forHTTP reports whether a permit is for requests.
func forHTTP(p *typesv1.Permit) bool { return p.GetPath() != "" || len(p.GetGrpc()) > 0 }

func (c *checker) requestPermit(at string, p *typesv1.Permit, out *permit) {
	r := &request{methods: slices.Clone(p.GetMethods()), path: p.GetPath(), grpc: slices.Clone(p.GetGrpc()), websocket: p.GetWebsocket(), query: map[string]bool{}, headers: map[string]string{}}
	out.request = r
	if len(r.grpc) > 0 {
		c.grpcPermit(at, p)
		r.methods = []string{"POST"}
	} else {
		c.pathPermit(at, p)
	}
	for i, name := range p.GetQuery() {
		if err := checkText(name, 128); err != nil || name == "" || name != "*" && strings.Contains(name, "*") {
			c.fail(fmt.Sprintf("%s.query[%d]", at, i), "%q must be a name, or * for any", name)
		}
		r.any = r.any || name == "*"
		r.query[name] = true
	}
	c.unique(at+".query", p.GetQuery())
	for _, name := range slices.Sorted(maps.Keys(p.GetHeaders())) {
		if !headerName(name) {
			c.fail(at+".headers", "%q is not the name of a header", name)
		}
		r.headers[strings.ToLower(name)] = p.GetHeaders()[name]
	}
	c.bodyMasks(at, p, out)
	c.mcpPermit(at, p, out)
	if out.approval != nil && len(out.approval.Verbs) > 0 {
		c.fail(at+".approval.verbs", "are for SQL: a permit for http is asked for as a whole")
	}
}

func (c *checker) grpcPermit(at string, p *typesv1.Permit) {
	for field, set := range map[string]bool{"path": p.GetPath() != "", "methods": len(p.GetMethods()) > 0, "query": len(p.GetQuery()) > 0, "websocket": p.GetWebsocket(), "mask": len(p.GetMask()) > 0} {
		if set {
			c.fail(at+"."+field, "does not belong to a permit for gRPC")
		}
	}
	for i, call := range p.GetGrpc() {
		service, method, ok := strings.Cut(call, "/")
		if !ok || service == "" || method == "" || strings.ContainsAny(call, " %?#\\;") || strings.Contains(method, "/") {
			c.fail(fmt.Sprintf("%s.grpc[%d]", at, i), "%q must be package.Service/Method", call)
		}
	}
	c.unique(at+".grpc", p.GetGrpc())
}

func (c *checker) pathPermit(at string, p *typesv1.Permit) {
	if err := checkRequestPath(p.GetPath()); err != nil {
		c.fail(at+".path", "%s", err)
	}
	if len(p.GetMethods()) == 0 {
		c.fail(at+".methods", "is required, such as [GET, HEAD]")
	}
	for i, m := range p.GetMethods() {
		if !headerName(m) || strings.ToUpper(m) != m || m == "CONNECT" || m == "TRACE" {
			c.fail(fmt.Sprintf("%s.methods[%d]", at, i), "%q is not a method that can be allowed", m)
		}
	}
	c.unique(at+".methods", p.GetMethods())
	if p.GetWebsocket() && !slices.Equal(p.GetMethods(), []string{"GET"}) {
		c.fail(at+".websocket", "begins with GET and nothing else: give it a permit of its own")
	}
}

// checkRequestPath checks a pattern: what it stands for must be canonical, for nothing
// else reaches a rule.
func checkRequestPath(pattern string) error {
	inner := strings.TrimSuffix(pattern, "/**")
	if strings.Contains(inner, "**") {
		return fmt.Errorf("%q: ** stands last, for everything below", pattern)
	}
	if inner == "" {
		return nil
	}
	t, err := http.ParseTarget(http.Target{Path: inner}.String())
	if err != nil || t.Path != inner {
		return fmt.Errorf("%q must be a path in its canonical form, decoded", pattern)
	}
	return nil
}

// headerName reports whether s is a token (RFC 9110, 5.6.2).
func headerName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// bodyMasks checks what is masked in answers. Who names parameters freely could have the
// server show a value under another name.
func (c *checker) bodyMasks(at string, p *typesv1.Permit, out *permit) {
	for _, where := range slices.Sorted(maps.Keys(p.GetMask())) {
		if err := checkText(where, MaxText); err != nil || where == "" {
			c.fail(at+".mask."+where, "must be the path of a value in a JSON body, such as /customer/email, or the name of a field")
		}
	}
	if out.content = c.content(at, p); out.content == nil {
		return
	}
	if out.request.any {
		c.fail(at+".query", "lists the parameters one by one where values are masked: some servers rename values by a parameter")
	}
	if out.request.websocket {
		c.fail(at+".mask", "messages of a WebSocket are not masked: permit it on its own")
	}
}

// summary is how people read the permit.
func (r *request) summary() (verbs, on string) {
	if len(r.grpc) > 0 {
		return "call", some(r.grpc)
	}
	verbs = strings.Join(r.methods, ", ")
	if r.websocket {
		verbs = "websocket"
	}
	return verbs, r.path
}

// fits reports whether the permit is for a request.
func (r *request) fits(f *http.Facts) bool {
	if !slices.Contains(r.methods, f.Method) || f.Upgrade != "" && !(r.websocket && f.Upgrade == "websocket") || r.websocket && f.Upgrade == "" {
		return false
	}
	if len(r.grpc) > 0 {
		return f.GRPC() && len(f.Query) == 0 && slices.ContainsFunc(r.grpc, func(p string) bool {
			return like("/"+p, f.Path) && strings.Count(f.Path, "/") == 2 && !strings.Contains(f.Path, http.Slash)
		})
	}
	return matchPath(r.path, f.Path)
}

// matchPath matches segment by segment. A * stands for something. An encoded slash stands for
// itself alone, in a segment that names it: what a server takes for two segments no pattern
// takes for one, nor for what is below another.
func matchPath(pattern, path string) bool {
	below, all := strings.CutSuffix(pattern, "/**")
	if !all {
		below = pattern
	}
	want, got := strings.Split(below, "/"), strings.Split(path, "/")
	if len(got) < len(want) || len(got) > len(want) && !all {
		return false
	}
	for i := range want {
		if !matchSegment(want[i], got[i]) || got[i] == "" && strings.Contains(want[i], "*") {
			return false
		}
	}
	return !slices.ContainsFunc(got[len(want):], func(s string) bool { return strings.Contains(s, http.Slash) })
}

func matchSegment(pattern, segment string) bool {
	return slices.EqualFunc(strings.Split(pattern, http.Slash), strings.Split(segment, http.Slash), like)
}

// objection says what of a request that fits the permit does not allow, or nothing.
func (r *request) objection(f *http.Facts) string {
	if not := r.parameter(f); not != "" {
		return not
	}
	for name, pattern := range r.headers {
		if v, ok := f.Header[name]; !ok || !like(pattern, v) {
			return fmt.Sprintf("this without the header %s: %s", name, pattern)
		}
		if f.Twice[name] {
			return fmt.Sprintf("the header %s more than once", name)
		}
	}
	for _, name := range http.Elsewhere(func(name string) bool { _, has := f.Header[name]; return has }) {
		_, named := r.headers[name]
		switch {
		case named:
		case name == "destination" && f.Destination != "": // which is judged as the path is
		default:
			return fmt.Sprintf("the header %s, which names another thing than the path", name)
		}
	}
	return ""
}

// parameter says what of the query is not allowed, or nothing.
func (r *request) parameter(f *http.Facts) string {
	for _, p := range f.Query {
		if !r.any && !r.query[p.Name] {
			return fmt.Sprintf("the parameter %q", p.Name)
		}
		if !r.any && !f.Once(p.Name) {
			return fmt.Sprintf("the parameter %q more than once", p.Name)
		}
	}
	return ""
}

// site checks a resource that speaks HTTP.
func (c *checker) site(r *typesv1.Resource) *resource {
	s := r.GetSpec()
	c.labels("spec.reachableFrom", s.GetReachableFrom())
	e := s.GetEndpoint()
	auth := e.GetHttp().GetAuth()
	scheme := c.oneOf("spec.endpoint.http.auth.scheme", auth.GetScheme(), "bearer", "bearer", "basic", "header", "sigv4", "certificate", "none")
	if s.GetCredential().GetOauth() != nil {
		c.oauth("spec.credential.oauth", s.GetCredential())
	} else {
		c.credential("spec.credential", s.GetCredential(), scheme != "none")
	}
	signed := scheme == "sigv4"
	switch {
	case s.GetCredential().GetOauth() != nil && scheme != "bearer" && scheme != "header":
		c.fail("spec.credential.oauth", "gives tokens, which scheme bearer or header shows")
	case signed != (auth.GetRegion() != "") || signed != (auth.GetService() != ""):
		c.fail("spec.endpoint.http.auth", "region and service belong to scheme sigv4, and are required there")
	case signed && (!awsName.MatchString(auth.GetRegion()) || !awsName.MatchString(auth.GetService())):
		c.fail("spec.endpoint.http.auth", "region and service are lower-case words, such as eu-central-1 and s3")
	case scheme == "certificate" && e.GetTls().GetMode() == "disable":
		c.fail("spec.endpoint.tls.mode", "scheme certificate needs TLS")
	case scheme == "none" && s.GetCredential() != nil:
		c.fail("spec.credential", "is not used where auth is none")
	case (scheme == "header") != (auth.GetHeader() != ""):
		c.fail("spec.endpoint.http.auth.header", "belongs to scheme header, and is required there")
	case scheme == "header" && (!headerName(auth.GetHeader()) || unsafeHeader(auth.GetHeader())):
		c.fail("spec.endpoint.http.auth.header", "%q cannot carry a credential", auth.GetHeader())
	}
	if a := e.GetHttp().GetAuthority(); a != "" {
		host, port, ported := strings.Cut(a, ":")
		if !hostName.MatchString(host) || ported && (port == "" || strings.Trim(port, "0123456789") != "") {
			c.fail("spec.endpoint.http.authority", "%q must be a host name, with a port or without", a)
		}
	}
	for field, set := range map[string]bool{
		"endpoint.database": e.GetDatabase() != "", "endpoint.ssh": e.GetSsh() != nil, "catalog": s.GetCatalog() != nil,
		"level": s.GetLevel() != nil, "pin": len(s.GetPin()) > 0, "classify": len(s.GetClassify()) > 0,
	} {
		if set {
			c.fail("spec."+field, "is not for protocol http")
		}
	}
	c.tls(e)
	return &resource{object: r, level: postern.LevelResult}
}

// unsafeHeader reports whether a header frames messages or names hosts.
func unsafeHeader(name string) bool {
	return slices.Contains([]string{"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "content-type", "content-encoding"}, strings.ToLower(name))
}

// awsName is a region or a service of AWS.
var awsName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// oauth checks an authorization server, which HTTP resources alone have.
func (c *checker) oauth(field string, r *typesv1.CredentialRef) {
	o := r.GetOauth()
	switch {
	case r.GetVault() != nil || r.GetSealed() != "":
		c.fail(field, "stands beside another source; give one")
	case !c.authServer(field+".tokenUrl", o.GetTokenUrl()):
	case o.GetSecret() == "":
		c.fail(field+".secret", "is required: the Secret with the client's username and password")
	}
	if o.GetRevocationUrl() != "" {
		c.authServer(field+".revocationUrl", o.GetRevocationUrl())
	}
	for _, s := range o.GetScopes() {
		if s == "" || strings.ContainsAny(s, " \"\\") {
			c.fail(field+".scopes", "%q is not one scope", s)
		}
	}
}

// authServer checks a place of an authorization server's, to which secrets are sent.
func (c *checker) authServer(field, text string) bool {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		c.fail(field, "must be a URL such as https://login.example/token")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		c.fail(field, "secrets are sent by https only")
	default:
		return true
	}
	return false
}
