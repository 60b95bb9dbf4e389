// Package arch holds the house to its plan: who may import whom, what a binary links,
// and that goroutines are started where they are waited for. Imports are parsed here
// and now, so that no cached result can hide a change.
package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/posterngate/postern/"

// A rule says that packages under from must not import anything under deny, but for
// those under except, and for the imports that allow names.
type rule struct {
	from, deny, except, allow []string
	why                       string
}

var planes = []string{module + "controlplane", module + "dataplane"}

var rules = []rule{
	{from: []string{"pkg"}, deny: planes, why: "shared packages know no plane"},
	{from: []string{"controlplane"}, deny: []string{module + "dataplane"}, why: "the planes meet on the wire alone"},
	{from: []string{"dataplane"}, deny: []string{module + "controlplane"}, why: "the planes meet on the wire alone"},
	{from: []string{"pkg", "controlplane", "dataplane"}, deny: []string{module + "test", module + "deploy", module + "bench"}, why: "production code imports no test, bench or development house"},
	{from: []string{"pkg/postern"}, deny: []string{"."}, why: "the nouns import the standard library alone"},
	{from: []string{"pkg/policy"}, deny: []string{"net", "os", "os/exec", "database/sql"}, allow: []string{"net/url"}, why: "policy is pure"},
	{from: []string{"pkg/sql", "pkg/mask", "pkg/detect", "pkg/content", "pkg/mcp"}, deny: []string{"net", "os", "os/exec"}, except: []string{"pkg/sql/worker"}, why: "analysis is pure; only the worker's parent starts a process"},
	{from: []string{"pkg/record"}, deny: []string{"net", "google.golang.org/grpc"}, why: "the format knows no transport"},
	{from: []string{"pkg/wire"}, deny: []string{module + "pkg/sql", module + "pkg/policy", "github.com/jackc/pgx"}, why: "the wire verbs know no protocol"},
	{from: []string{"pkg/secret"}, deny: []string{"."}, why: "secrets know nothing that could carry them off"},
	{from: []string{"dataplane/engine"}, deny: []string{module + "dataplane/gate", module + "dataplane/lease", module + "dataplane/control", module + "dataplane/spool", module + "dataplane/session", module + "dataplane/snapshot", "os"}, why: "all that an engine can reach is its Session"},
	{from: []string{"dataplane/session", "dataplane/gate"}, deny: []string{module + "dataplane/engine/"}, why: "sessions and gate know the contract, and no protocol"},
	{from: []string{"dataplane/lease"}, deny: []string{"os"}, why: "leases live in memory alone"},
	{from: []string{"controlplane/publish", "controlplane/identity", "controlplane/approve"}, deny: []string{module + "controlplane/credential"}, why: "who lends credentials is told by interfaces"},
	{from: []string{"controlplane/credential"}, deny: []string{module + "controlplane/api", module + "controlplane/publish"}, why: "credentials know no caller"},
}

// only says that a module may be imported from these places and nowhere else.
var only = []struct {
	imports, from []string
	why           string
}{
	{[]string{"go.etcd.io/etcd"}, []string{"controlplane/store/etcd", "test"}, "one store implementation"},
	{[]string{"github.com/coreos/go-oidc"}, []string{"controlplane/identity", "deploy/dev/idp", "test"}, "tokens are verified in one place"},
	{[]string{"github.com/hashicorp/vault"}, []string{"controlplane/credential/vault", "test"}, "one source, one package"},
	{[]string{"github.com/zitadel/oidc"}, []string{"deploy/dev", "test"}, "the provider is for development and tests"},
	{[]string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters"}, []string{"pkg/telemetry"}, "telemetry is set up in one place"},
	{[]string{"github.com/pganalyze/pg_query_go"}, []string{"pkg/sql"}, "one parser, one owner"},
	{[]string{"gocloud.dev", "github.com/aws/aws-sdk-go-v2/config", "github.com/aws/aws-sdk-go-v2/service", "github.com/aws/aws-sdk-go-v2/feature"}, []string{"controlplane/recording/blob", "test"}, "object stores are reached in one place"},
	{[]string{"github.com/aws"}, []string{"controlplane/recording/blob", "dataplane/engine/http", "test"}, "requests are signed in one place"},
	{[]string{"modernc.org/sqlite"}, []string{"controlplane/recording/index", "test"}, "one index, one package"},
	// CVE-2023-42820: a code that came of what could be guessed.
	{[]string{"math/rand"}, []string{"controlplane/audit", "controlplane/store", "controlplane/credential/vault", "controlplane/recording/index/indextest", "dataplane/spool", "dataplane/control", "pkg/sql/postgres", "bench", "test"}, "what can be guessed is for pauses and templates; names and tokens are crypto/rand's"},
}

// grpcFree lists where grpc-go must not be imported within dataplane; its messages are
// exempt everywhere.
var grpcAllowed = []string{"dataplane/control"}

type file struct {
	path    string // slash-separated, relative to the root
	dir     string
	test    bool
	imports []string
	ast     *ast.File
	fset    *token.FileSet
}

func load(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			switch {
			case strings.HasPrefix(d.Name(), ".") && rel != ".", d.Name() == "node_modules", d.Name() == "testdata", rel == "test/tools", rel == "bin":
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out := file{path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), ast: f, fset: fset}
		for _, im := range f.Imports {
			s, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			out.imports = append(out.imports, s)
		}
		files = append(files, out)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files were found below %s", len(files), root)
	}
	return files
}

func under(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		if p == "." { // anything outside the standard library
			return strings.Contains(strings.SplitN(path, "/", 2)[0], ".")
		}
		return path == strings.TrimSuffix(p, "/") && !strings.HasSuffix(p, "/") || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/")
	})
}

func TestImports(t *testing.T) {
	for _, f := range load(t) {
		if f.test || strings.HasPrefix(f.dir, "pkg/gen") {
			continue
		}
		for _, im := range f.imports {
			for _, r := range rules {
				if under(f.dir, r.from) && under(im, r.deny) && !slices.Contains(r.allow, im) && !under(f.dir, r.except) && !own(f.dir, im) {
					t.Errorf("%s imports %s: %s", f.path, im, r.why)
				}
			}
			for _, o := range only {
				if under(im, o.imports) && !under(f.dir, o.from) {
					t.Errorf("%s imports %s: %s; it may be imported in %v", f.path, im, o.why, o.from)
				}
			}
			if strings.HasPrefix(f.dir, "dataplane") && under(im, []string{"google.golang.org/grpc"}) && !under(f.dir, grpcAllowed) && im != "google.golang.org/grpc/codes" {
				t.Errorf("%s imports %s: within dataplane only control speaks gRPC", f.path, im)
			}
		}
	}
}

// own lets a package import what is below itself: engine/postgres its own parts.
func own(dir, im string) bool { return strings.HasPrefix(im, module+dir+"/") }

// TestEnginesKnowNoOther keeps each protocol in its folder.
func TestEnginesKnowNoOther(t *testing.T) {
	for _, f := range load(t) {
		rest, ok := strings.CutPrefix(f.dir, "dataplane/engine/")
		if !ok || f.test {
			continue
		}
		mine := strings.SplitN(rest, "/", 2)[0]
		for _, im := range f.imports {
			other, ok := strings.CutPrefix(im, module+"dataplane/engine/")
			if ok && strings.SplitN(other, "/", 2)[0] != mine && mine != "enginetest" {
				t.Errorf("%s imports %s: engines do not know each other", f.path, im)
			}
		}
	}
}

// TestGoroutinesAreWaitedFor bans the go statement outside pkg/run.
func TestGoroutinesAreWaitedFor(t *testing.T) {
	for _, f := range load(t) {
		if f.test || f.dir == "pkg/run" || strings.HasPrefix(f.dir, "pkg/gen") || strings.HasPrefix(f.dir, "test/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a bare go statement; use run.Group", f.fset.Position(g.Pos()))
			}
			return true
		})
	}
}

// TestLinksAreNotFollowed: who may make links where a program of ours that runs as root gives
// files away must not get others by it.
func TestLinksAreNotFollowed(t *testing.T) {
	for _, f := range load(t) {
		if f.test || strings.HasPrefix(f.dir, "test/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Chown" {
				t.Errorf("%s: Chown follows links; use os.Lchown", f.fset.Position(s.Pos()))
			}
			return true
		})
	}
}

// TestNoInit keeps start-up explicit.
func TestNoInit(t *testing.T) {
	for _, f := range load(t) {
		if f.test || strings.HasPrefix(f.dir, "pkg/gen") {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// TestPackagesSayWhatTheyAre asks every package for a comment.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	commented := map[string]bool{}
	for _, f := range load(t) {
		if f.test || strings.HasPrefix(f.dir, "pkg/gen") {
			continue
		}
		commented[f.dir] = commented[f.dir] || f.ast.Doc.Text() != ""
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

// TestNodeLinksNoStoreAndNoVault follows the imports of postern-node through the
// project's own packages.
func TestNodeLinksNoStoreAndNoVault(t *testing.T) {
	byDir := map[string][]string{}
	for _, f := range load(t) {
		if !f.test {
			byDir[f.dir] = append(byDir[f.dir], f.imports...)
		}
	}
	start := "dataplane/cmd/postern-node"
	if byDir[start] == nil {
		t.Fatalf("%s is missing", start)
	}
	seen := map[string]bool{start: true}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		for _, im := range byDir[queue[0]] {
			for _, bad := range []string{"go.etcd.io/etcd", "github.com/hashicorp/vault", "github.com/coreos/go-oidc", "modernc.org/sqlite", "gocloud.dev", "github.com/aws/aws-sdk-go-v2/config", "github.com/aws/aws-sdk-go-v2/service", module + "controlplane"} {
				if under(im, []string{bad}) {
					t.Errorf("postern-node links %s through %s", im, queue[0])
				}
			}
			if dir, ok := strings.CutPrefix(im, module); ok && !seen[dir] {
				seen[dir] = true
				queue = append(queue, dir)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d packages were followed", len(seen))
	}
}

// TestNothingLinksOutOfTheTree: a link that is committed is to a place of one machine, where it
// stands in the way of what is installed there on every other.
func TestNothingLinksOutOfTheTree(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "--stage")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list what is committed: %v", err)
	}
	if n := bytes.Count(out, []byte("\n")); n < 50 {
		t.Fatalf("only %d files are committed", n)
	}
	for line := range strings.Lines(string(out)) {
		if mode, file, _ := strings.Cut(line, " "); mode == "120000" {
			t.Errorf("a link is committed: %s", file)
		}
	}
}

// TestPlanIsTrue holds ARCHITECTURE.md to the tree: each folder that it names in its
// map exists.
func TestPlanIsTrue(t *testing.T) {
	b, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		dir, ok := strings.CutPrefix(line, "- `")
		if !ok {
			continue
		}
		dir, _, ok = strings.Cut(dir, "`")
		if !ok || !strings.Contains(dir, "/") {
			continue
		}
		n++
		if _, err := os.Stat(filepath.Join("../..", filepath.FromSlash(dir))); err != nil {
			t.Errorf("ARCHITECTURE.md names %s: %v", dir, err)
		}
	}
	if n < 20 {
		t.Errorf("ARCHITECTURE.md names only %d folders", n)
	}
}
