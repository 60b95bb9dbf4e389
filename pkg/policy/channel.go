package policy

import (
	"encoding/base64"
	"fmt"
	"path"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
)

// A channel is what a permit for ssh allows.
type channel struct {
	verbs        []ssh.Verb
	argv         []string // of exec: a path, then patterns
	rest         bool     // any further arguments
	terminal     bool
	guard        bool
	env          []string
	paths        []string // patterns
	destinations map[string]bool
}

// channels are the values of Permit.channel, with the verbs that each may have. The
// first of an exec, shell or guard is its only one.
var channels = map[string][]ssh.Verb{
	"exec": {ssh.Exec}, "shell": {ssh.Shell}, "guard": {ssh.Shell},
	"files": {ssh.Read, ssh.Write, ssh.Delete}, "forward": {ssh.Connect, ssh.Listen},
}

func (c *checker) channelPermit(at string, p *typesv1.Permit, out *permit) {
	kind := p.GetChannel()
	verbs, known := channels[kind]
	if !known {
		c.fail(at+".channel", "%q must be exec, shell, guard, files or forward", kind)
		return
	}
	ch := &channel{terminal: p.GetPty() || kind == "shell" || kind == "guard", guard: kind == "guard", destinations: map[string]bool{}}
	out.channel = ch
	c.channelVerbs(at, p, ch, verbs)
	belongs := func(field string, set bool, kinds ...string) {
		if set && !slices.Contains(kinds, kind) {
			c.fail(at+"."+field, "does not belong to channel %s", kind)
		}
	}
	belongs("argv", len(p.GetArgv()) > 0, "exec")
	belongs("pty", p.GetPty(), "exec")
	belongs("env", len(p.GetEnv()) > 0, "exec", "shell", "guard")
	belongs("paths", len(p.GetPaths()) > 0, "files")
	belongs("destinations", len(p.GetDestinations()) > 0, "forward")
	belongs("detect", len(p.GetDetect()) > 0, "exec", "shell", "guard")
	out.content = c.content(at, p)
	switch kind {
	case "exec":
		c.argv(at+".argv", p.GetArgv(), ch)
	case "files":
		if len(p.GetPaths()) == 0 {
			c.fail(at+".paths", "is required: the files that may be reached")
		}
		for i, pattern := range p.GetPaths() {
			if err := checkPath(pattern); err != nil {
				c.fail(fmt.Sprintf("%s.paths[%d]", at, i), "%s", err)
			}
		}
		ch.paths = slices.Clone(p.GetPaths())
	case "forward":
		if len(p.GetDestinations()) == 0 {
			c.fail(at+".destinations", "is required: host:port")
		}
		for i, d := range p.GetDestinations() {
			host, port, ok := strings.Cut(d, ":")
			if !ok || !hostName.MatchString(host) || port == "" || strings.Trim(port, "0123456789") != "" || len(port) > 5 {
				c.fail(fmt.Sprintf("%s.destinations[%d]", at, i), "%q must be host:port", d)
			}
			ch.destinations[d] = true
		}
	}
	for i, name := range p.GetEnv() {
		if !variableName(name) || steers(name) {
			c.fail(fmt.Sprintf("%s.env[%d]", at, i), "%q is not the name of a harmless variable", name)
		}
		ch.env = append(ch.env, name)
	}
	if out.approval != nil && len(out.approval.Verbs) > 0 {
		c.fail(at+".approval.verbs", "are for SQL: a permit for ssh is asked for as a whole")
	}
}

func variableName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (c *checker) channelVerbs(at string, p *typesv1.Permit, ch *channel, known []ssh.Verb) {
	if len(known) == 1 {
		if len(p.GetVerbs()) > 0 {
			c.fail(at+".verbs", "does not belong to channel %s", p.GetChannel())
		}
		ch.verbs = known
		return
	}
	if len(p.GetVerbs()) == 0 {
		c.fail(at+".verbs", "is required: %s", join(known))
	}
	for i, v := range p.GetVerbs() {
		if !slices.Contains(known, ssh.Verb(v)) {
			c.fail(fmt.Sprintf("%s.verbs[%d]", at, i), "%q must be one of %s", v, join(known))
		}
		ch.verbs = append(ch.verbs, ssh.Verb(v))
	}
	c.unique(at+".verbs", p.GetVerbs())
}

func join(verbs []ssh.Verb) string {
	var out []string
	for _, v := range verbs {
		out = append(out, string(v))
	}
	return strings.Join(out, ", ")
}

// argv checks a command: its program by path, so that it is that and not what a search
// path finds, and no freedom for programs that would run anything.
func (c *checker) argv(field string, argv []string, ch *channel) {
	if len(argv) == 0 {
		c.fail(field, "is required: the path of a program, and its arguments")
		return
	}
	if !path.IsAbs(argv[0]) || path.Clean(argv[0]) != argv[0] || strings.ContainsAny(argv[0], "*\\\n\x00") || argv[0] == "/" {
		c.fail(field+"[0]", "%q must be the absolute path of a program", argv[0])
	}
	ch.argv = slices.Clone(argv)
	if last := len(argv) - 1; last > 0 && argv[last] == "..." {
		ch.argv, ch.rest = ch.argv[:last], true
	}
	for i, a := range ch.argv[1:] {
		if err := checkText(a, MaxText); err != nil || strings.ContainsAny(a, "\\\n") || a == "..." {
			c.fail(fmt.Sprintf("%s[%d]", field, i+1), "%q cannot be an argument", a)
		}
		if strings.HasPrefix(a, "-") && strings.HasPrefix(strings.TrimLeft(a, "-"), "*") {
			c.fail(fmt.Sprintf("%s[%d]", field, i+1), "%q lets in every option, also one that runs or writes something: say how it begins, such as -n* or --lines=*", a)
		}
	}
	if why := asShell(path.Base(argv[0]), argv[1:], ch.terminal); why != "" {
		c.fail(field, "%s", why)
	}
}

// programs checks that nobody may write what a permit runs, and so have it run anything.
func (c *checker) programs(t *task) {
	for _, p := range t.channels {
		for _, file := range files(p.channel.argv) {
			for _, w := range t.channels {
				if slices.Contains(w.channel.verbs, ssh.Write) && w.channel.reaches(file) {
					c.fail(fmt.Sprintf("spec.permit[%d].argv", p.index), "%s may be written by spec.permit[%d], and then runs anything: keep it elsewhere, or permit the channel shell", file, w.index)
				}
			}
		}
	}
}

func checkPath(pattern string) error {
	inner := strings.TrimSuffix(pattern, "/**")
	switch {
	case !path.IsAbs(pattern):
		return fmt.Errorf("%q must be an absolute path", pattern)
	case inner != "" && path.Clean(inner) != inner:
		return fmt.Errorf("%q must be a path in its shortest form", pattern)
	case strings.Contains(inner, "**"):
		return fmt.Errorf("%q: ** stands last, for everything below", pattern)
	}
	return checkText(pattern, MaxText)
}

// summary is how people read the permit.
func (ch *channel) summary(kind string) (verbs, on string) {
	switch kind {
	case "exec":
		words := slices.Clone(ch.argv)
		if ch.rest {
			words = append(words, "...")
		}
		return "exec", strings.Join(words, " ")
	case "files":
		return join(ch.verbs), some(ch.paths)
	case "forward":
		var all []string
		for d := range ch.destinations {
			all = append(all, d)
		}
		slices.Sort(all)
		return join(ch.verbs), some(all)
	}
	return kind, "this host"
}

// runs reports whether the permit allows a command, and the path of what it runs. A
// pattern that begins with * matches no argument that begins with -, which would be an
// option that the author did not think of, and none with a * matches one that climbs out
// of a folder; nor does a free argument.
func (ch *channel) runs(argv []string) (program string, ok bool) {
	if len(ch.argv) == 0 || len(argv) < len(ch.argv) || (len(argv) > len(ch.argv) && !ch.rest) {
		return "", false
	}
	if argv[0] != ch.argv[0] && (strings.Contains(argv[0], "/") || argv[0] != path.Base(ch.argv[0])) {
		return "", false
	}
	for i, a := range argv[1:] {
		pattern := "*"
		if i+1 < len(ch.argv) {
			pattern = ch.argv[i+1]
		}
		switch {
		case strings.HasPrefix(pattern, "*") && (a == "" || a[0] == '-'),
			strings.Contains(pattern, "*") && climbs(a), !like(pattern, a):
			return "", false
		}
	}
	return ch.argv[0], true
}

func climbs(file string) bool { return strings.Contains("/"+file+"/", "/../") }

func like(pattern, s string) bool { return postern.Like(pattern, s) }

// reaches reports whether the permit allows a file. In a name * never stands for /.
func (ch *channel) reaches(file string) bool {
	for _, pattern := range ch.paths {
		if below, all := strings.CutSuffix(pattern, "/**"); all {
			if matchNames(below, file, true) {
				return true
			}
		} else if matchNames(pattern, file, false) {
			return true
		}
	}
	return false
}

// reachesBelow reports whether the permit allows a folder and all that is or will be in it.
func (ch *channel) reachesBelow(folder string) bool {
	return slices.ContainsFunc(ch.paths, func(pattern string) bool {
		below, all := strings.CutSuffix(pattern, "/**")
		return all && matchNames(below, folder, true)
	})
}

// meets reports whether the permit allows a folder, or anything that is or will be in it.
func (ch *channel) meets(folder string) bool {
	names := strings.Split(folder, "/")
	return ch.reaches(folder) || slices.ContainsFunc(ch.paths, func(pattern string) bool {
		want := strings.Split(strings.TrimSuffix(pattern, "/**"), "/")
		return len(want) > len(names) && matchNames(strings.Join(want[:len(names)], "/"), folder, false)
	})
}

// saysDot reports whether a pattern allows a file and says the dot with which its name at that place begins.
func (ch *channel) saysDot(file string, place int) bool {
	return slices.ContainsFunc(ch.paths, func(pattern string) bool {
		names := strings.Split(pattern, "/")
		return len(names) > place && strings.HasPrefix(names[place], ".") && (&channel{paths: []string{pattern}}).reaches(file)
	})
}

// matchNames matches name by name; below allows further ones.
func matchNames(pattern, file string, below bool) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(file, "/")
	if len(got) < len(want) || (len(got) > len(want) && !below) {
		return false
	}
	for i := range want {
		if !like(want[i], got[i]) {
			return false
		}
	}
	return true
}

// host checks a resource that speaks SSH.
func (c *checker) host(r *typesv1.Resource) *resource {
	s := r.GetSpec()
	c.labels("spec.reachableFrom", s.GetReachableFrom())
	c.credential("spec.credential", s.GetCredential(), true)
	for field, set := range map[string]bool{
		"endpoint.database": s.GetEndpoint().GetDatabase() != "", "endpoint.tls": s.GetEndpoint().GetTls() != nil, "catalog": s.GetCatalog() != nil,
		"level": s.GetLevel() != nil, "pin": len(s.GetPin()) > 0, "classify": len(s.GetClassify()) > 0,
	} {
		if set {
			c.fail("spec."+field, "is not for protocol ssh")
		}
	}
	if s.GetCredential().GetVault().GetRole() != "" {
		c.fail("spec.credential.vault.role", "makes users of a database: a host needs sshRole, or path")
	}
	known := s.GetEndpoint().GetSsh()
	if len(known.GetHostKeys())+len(known.GetHostCas()) == 0 {
		c.fail("spec.endpoint.ssh", "is required: hostKeys or hostCas, by which the host is known; an unknown host is refused")
	}
	for field, keys := range map[string][]string{"hostKeys": known.GetHostKeys(), "hostCas": known.GetHostCas()} {
		for i, k := range keys {
			if !publicKey(k) {
				c.fail(fmt.Sprintf("spec.endpoint.ssh.%s[%d]", field, i), "must be a public key, such as \"ssh-ed25519 AAAA...\"")
			}
		}
	}
	return &resource{object: r, level: postern.LevelSource}
}

// publicKey reports whether a text has the form of an SSH public key, whose blob begins
// with the name of its kind (RFC 4253, 6.6).
func publicKey(text string) bool {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return false
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	return err == nil && len(blob) > 4+len(fields[0]) && string(blob[4:4+len(fields[0])]) == fields[0]
}
