// Package web is the pages on which people see what waits for them and say yes or no.
// They are made on the server, without a script; who signs in does so at their issuer, by
// a client of the pages' own. What an answer is worth is the approve package's to say,
// here as anywhere.
package web

import (
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// Path is where the holds are; the id of one follows.
	Path = "/approvals"

	loginPath    = "/web/login"
	callbackPath = "/web/callback"
	logoutPath   = "/web/logout"
	stylePath    = "/web/style.css"

	// Strangers can begin a sign-in, and bring an answer to one, each of which asks an
	// issuer: so many a second from one address, and from all from which nobody signed in.
	loginRate     = 20
	strangersRate = 40

	maxFormBytes = 16 << 10
)

// Login lets people sign in; *identity.Verifier is one.
type Login interface {
	WebIssuers() []string
	BeginWeb(ctx context.Context, issuer, redirect string) (*identity.WebLogin, string, error)
	FinishWeb(ctx context.Context, l *identity.WebLogin, redirect string, answer url.Values) (postern.Subject, time.Time, error)
}

// Appender writes to the audit log.
type Appender interface {
	Append(ctx context.Context, e audit.Entry) error
}

// Config is what the pages need; all is required but Staleness and Now.
type Config struct {
	URL   string // of the control plane, as browsers reach it
	Login Login
	Holds *approve.Service
	// Enter lets who is signed in go on to an app behind a node, by the ticket of the link
	// that led here, and says where.
	Enter func(ctx context.Context, ticket string, sub postern.Subject, address string) (string, error)
	Store store.Store
	Audit Appender
	// Policy is the policy as it stands: a lock on somebody ends what they may do here.
	Policy func() *policy.Snapshot
	// Staleness is how old Policy may be; past maxStaleness nobody is let in.
	Staleness func() time.Duration
	Now       func() time.Time // time.Now where nil
	Logger    *slog.Logger
}

const maxStaleness = 30 * time.Second

// Pages serve people. They are safe for concurrent use, and by several replicas over one
// store.
type Pages struct {
	cfg    Config
	logins *hook.Gate
	mux    *http.ServeMux
}

//go:embed pages.html style.css
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"plain": approve.Plain, "state": approve.StateText, "when": when, "value": approve.ParameterText,
}).ParseFS(files, "pages.html"))

// New makes the pages.
func New(cfg Config) *Pages {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Pages{cfg: cfg, logins: hook.NewGate(loginRate, strangersRate), mux: http.NewServeMux()}
	p.mux.HandleFunc("GET "+Path, p.signedIn(p.list))
	p.mux.HandleFunc("GET "+Path+"/{id}", p.signedIn(p.show))
	p.mux.HandleFunc("POST "+Path+"/{id}", p.signedIn(p.answer))
	p.mux.HandleFunc("GET "+loginPath, p.login)
	p.mux.HandleFunc("GET "+callbackPath, p.callback)
	p.mux.HandleFunc("POST "+logoutPath, p.signedIn(p.logout))
	p.mux.HandleFunc("GET "+entrance.Path+"{ticket}", p.signedIn(p.enter))
	p.mux.HandleFunc("GET "+stylePath, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		http.ServeFileFS(w, r, files, "style.css")
	})
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, nil, fault.New(codes.NotFound, "there is no such page"))
	})
	return p
}

// Paths are where the pages are.
func Paths() []string { return []string{Path, Path + "/", "/web/"} }

// ServeHTTP implements http.Handler.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	p.mux.ServeHTTP(w, r)
}

// view is what a page shows.
type view struct {
	Title   string
	Who     string // signed in, or empty
	Form    string // what forms must show
	Refresh int    // seconds until the page is asked for again; 0 is never
	Body    any
}

func (p *Pages) render(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, v); err != nil {
		p.cfg.Logger.DebugContext(r.Context(), "a page was not shown", "page", name, "error", err)
	}
}

// fail says what went wrong; what is not for people stays in the log.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, s *session, err error) {
	code := fault.CodeOf(err)
	text := fault.From(err).Error()
	status, known := map[codes.Code]int{
		codes.NotFound: http.StatusNotFound, codes.PermissionDenied: http.StatusForbidden, codes.Unauthenticated: http.StatusUnauthorized,
		codes.InvalidArgument: http.StatusBadRequest, codes.FailedPrecondition: http.StatusConflict, codes.AlreadyExists: http.StatusConflict,
		codes.ResourceExhausted: http.StatusTooManyRequests, codes.Unavailable: http.StatusServiceUnavailable, codes.Aborted: http.StatusConflict,
	}[code]
	if !known {
		status, text = http.StatusInternalServerError, "something went wrong here; the operators find it in the log"
		p.cfg.Logger.ErrorContext(r.Context(), "a page failed", "path", r.URL.Path, "error", err)
	}
	p.render(w, r, status, "failed", view{Title: "That did not work", Who: s.name(), Form: s.form(), Body: text})
}

func host(r *http.Request) string {
	if h, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return h
	}
	return r.RemoteAddr
}
