package policy

import (
	"crypto/x509"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// protocols are the names that are known; only the first three have an engine.
var protocols = []string{string(postern.Postgres), string(postern.SSH), string(postern.HTTP), "mysql", "kubernetes"}

type resource struct {
	object *typesv1.Resource
	level  postern.Level
	pins   map[string]string // by name in lower case
}

func (c *checker) resource(r *typesv1.Resource) *resource {
	s := r.GetSpec()
	p := c.oneOf("spec.protocol", s.GetProtocol(), "", protocols...)
	if slices.Contains(protocols[3:], p) {
		c.fail("spec.protocol", "%s has no engine in this version", p)
	}
	c.endpoint(s.GetEndpoint())
	c.oneOf("spec.rotatedSessions", s.GetRotatedSessions(), "keep", "keep", "end")
	if p == string(postern.SSH) {
		return c.host(r)
	}
	if s.GetEndpoint().GetHttp() != nil && p != string(postern.HTTP) {
		c.fail("spec.endpoint.http", "is for protocol http")
	}
	if p == string(postern.HTTP) {
		return c.site(r)
	}
	c.database(s.GetEndpoint())
	c.labels("spec.reachableFrom", s.GetReachableFrom())
	c.credential("spec.credential", s.GetCredential(), true)
	c.credential("spec.catalog", s.GetCatalog(), false)
	out := &resource{object: r, level: c.level(s.GetLevel()), pins: c.pins(s.GetPin())}
	for _, column := range slices.Sorted(maps.Keys(s.GetClassify())) {
		field := "spec.classify." + column
		if strings.Count(column, ".") != 2 || strings.Contains("."+column+".", "..") {
			c.fail(field, "must be schema.table.column")
		}
		for _, v := range s.GetClassify()[column].GetValues() {
			if t, ok := v.GetKind().(*structpb.Value_StringValue); !ok || t.StringValue == "" {
				c.fail(field, "must be a list of tags, such as [pii]")
			}
		}
	}
	return out
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9:]([-A-Za-z0-9._:%]*[A-Za-z0-9])?$`)

func (c *checker) endpoint(e *typesv1.Endpoint) {
	const at = "spec.endpoint"
	switch {
	case e.GetHost() == "":
		c.fail(at+".host", "is required")
	case len(e.GetHost()) > 253 || !hostName.MatchString(e.GetHost()):
		c.fail(at+".host", "%q is not a host name or an address", e.GetHost())
	}
	if e.GetPort() < 1 || e.GetPort() > 65535 {
		c.fail(at+".port", "must be 1 to 65535")
	}
}

// database checks what only a database has.
func (c *checker) database(e *typesv1.Endpoint) {
	const at = "spec.endpoint"
	if e.GetSsh() != nil {
		c.fail(at+".ssh", "is for protocol ssh")
	}
	if e.GetDatabase() == "" {
		c.fail(at+".database", "is required: the only database that sessions may use")
	}
	if err := checkText(e.GetDatabase(), 63); err != nil {
		c.fail(at+".database", "%s", err)
	}
	c.tls(e)
}

// tls checks how a resource is verified.
func (c *checker) tls(e *typesv1.Endpoint) {
	const at = "spec.endpoint"
	mode := c.oneOf(at+".tls.mode", e.GetTls().GetMode(), "verify-full", "verify-full", "verify-ca", "disable")
	ca := e.GetTls().GetCa()
	switch {
	case mode == "disable" && !loopback(e.GetHost()):
		c.fail(at+".tls.mode", "disable is for loopback alone; a credential would cross the network in clear")
	case ca.GetSecret() != "":
		c.fail(at+".tls.ca.secret", "secrets do not leave the control plane, and a CA is none: give its text as pem")
	case ca.GetPem() != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca.GetPem())):
		c.fail(at+".tls.ca.pem", "holds no PEM certificate that can be read")
	}
}

// loopback reports whether a host is this machine by its very name.
func loopback(host string) bool {
	if host == "localhost" || host == "::1" {
		return true
	}
	parts := strings.Split(host, ".")
	if len(parts) != 4 || parts[0] != "127" {
		return false
	}
	for _, p := range parts {
		if n, err := strconv.ParseUint(p, 10, 8); err != nil || strconv.FormatUint(n, 10) != p {
			return false
		}
	}
	return true
}

func (c *checker) credential(field string, r *typesv1.CredentialRef, required bool) {
	v := r.GetVault()
	switch {
	case r.GetOauth() != nil:
		c.fail(field+".oauth", "is for HTTP resources alone")
	case v == nil && r.GetSealed() == "":
		if required || r != nil {
			c.fail(field, "is required: vault or sealed")
		}
	case v != nil && r.GetSealed() != "":
		c.fail(field, "has both vault and sealed; give one")
	case v != nil && (v.GetMount() == "" || strings.Trim(v.GetMount(), "/") != v.GetMount()):
		c.fail(field+".vault.mount", "is required, without slashes at the ends")
	case v != nil && v.GetSshRole() != "":
		if v.GetRole() != "" || v.GetPath() != "" || v.GetStaticRole() != "" {
			c.fail(field+".vault", "needs just one of role, staticRole, path and sshRole")
		}
		if !hostUser.MatchString(v.GetUser()) {
			c.fail(field+".vault.user", "is required with sshRole: the one login that a certificate is good for")
		}
	case v != nil && (vaultWays(v) != 1 || v.GetUser() != ""):
		c.fail(field+".vault", "needs just one of role, staticRole and path, or sshRole with user")
	}
}

// vaultWays are how many of a role, a static role and a path a reference names.
func vaultWays(v *typesv1.VaultRef) int {
	n := 0
	for _, name := range []string{v.GetRole(), v.GetStaticRole(), v.GetPath()} {
		if name != "" {
			n++
		}
	}
	return n
}

func (c *checker) level(l *typesv1.Level) postern.Level {
	const field = "spec.level.want"
	c.credential("spec.level.admin", l.GetAdmin(), false)
	switch c.oneOf(field, l.GetWant(), "source", "native", "source", "result") {
	case "native":
		if l.GetAdmin() == nil {
			c.fail("spec.level.admin", "is required: level native makes roles and views on the target")
		}
		return postern.LevelNative
	case "source":
		return postern.LevelSource
	case "result":
		return postern.LevelResult
	}
	return postern.LevelNone
}

// hostUser is a login on a host: one, for a comma would make two principals of it.
var hostUser = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`)

// pins checks the settings that the resource holds fixed.
func (c *checker) pins(pin map[string]*structpb.Value) map[string]string {
	pins := make(map[string]string, len(pin))
	for _, name := range slices.Sorted(maps.Keys(pin)) {
		field := "spec.pin." + name
		key := strings.ToLower(name)
		if !settingName.MatchString(name) {
			c.fail("spec.pin", "%q is not the name of a setting", name)
		}
		if _, twice := pins[key]; twice {
			c.fail(field, "stands twice")
		}
		value, ok := pinText(pin[name])
		if !ok {
			c.fail(field, "must be a text, a number, a boolean or a list of texts")
		}
		pins[key] = value
		switch key {
		case "role", "session_authorization":
			c.fail(field, "cannot be pinned: the login decides who the session is")
		case "standard_conforming_strings":
			if !isOn(value) {
				c.fail(field, "is always on: literals must mean what the parser reads")
			}
		case "client_encoding":
			if !isUTF8(value) {
				c.fail(field, "is always UTF8: texts must mean what the parser reads")
			}
		}
	}
	return pins
}

func pinText(v *structpb.Value) (string, bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, checkText(k.StringValue, MaxText) == nil
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(k.NumberValue, 'f', -1, 64), true
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(k.BoolValue), true
	case *structpb.Value_ListValue:
		var words []string
		for _, e := range k.ListValue.GetValues() {
			w, ok := e.GetKind().(*structpb.Value_StringValue)
			if !ok || w.StringValue == "" || checkText(w.StringValue, MaxText) != nil {
				return "", false
			}
			words = append(words, w.StringValue)
		}
		return strings.Join(words, ", "), len(words) > 0
	}
	return "", false
}
