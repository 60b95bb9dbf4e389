package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// kind is the store's kind of sessions: a typesv1.WebSession by the hash of its cookie.
	kind = "websession"

	sessionCookie = "__Host-postern"
	loginCookie   = "__Host-postern-login-" // and the sign-in's own name

	// sessionTime is how long somebody stays signed in, whatever they do: groups are those
	// of the sign-in.
	sessionTime = time.Hour
	// loginTime is how long a sign-in may take.
	loginTime = 10 * time.Minute
	// maxLogins is how many may be under way in one browser, whose cookies all go with each
	// request; one more ends them.
	maxLogins = 5
)

// session is somebody who is signed in.
type session struct {
	subject postern.Subject
	token   string // of forms
	key     store.Key
}

func (s *session) name() string {
	if s == nil {
		return ""
	}
	return s.subject.Name
}

func (s *session) form() string {
	if s == nil {
		return ""
	}
	return s.token
}

func (s *session) caller(r *http.Request) approve.Caller {
	return approve.Caller{Subject: s.subject, Address: host(r)}
}

func keyOf(cookie string) store.Key {
	sum := sha256.Sum256([]byte(cookie))
	return store.Key{Kind: kind, Name: hex.EncodeToString(sum[:])}
}

func cookie(name, value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(age.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// find is the session of a request; nil where there is none.
func (p *Pages) find(r *http.Request) (*session, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil || len(c.Value) > 64 || c.Value == "" {
		return nil, nil
	}
	key := keyOf(c.Value)
	e, err := p.cfg.Store.Get(r.Context(), key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, codes.Unavailable, "the control plane has lost its store; try again")
	}
	w := &typesv1.WebSession{}
	if err := proto.Unmarshal(e.Value, w); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if !p.cfg.Now().Before(w.GetExpireTime().AsTime()) || w.GetSubject().GetName() == "" || w.GetFormToken() == "" {
		return nil, nil
	}
	return &session{key: key, token: w.GetFormToken(), subject: subjectOf(w)}, nil
}

func subjectOf(w *typesv1.WebSession) postern.Subject {
	sub := w.GetSubject()
	return postern.Subject{Name: sub.GetName(), Email: sub.GetEmail(), Groups: sub.GetGroups(), MFA: sub.GetMfa(), Actor: sub.GetActor()}
}

// welcome says why somebody who is signed in may do nothing now.
func (p *Pages) welcome(sub postern.Subject) error {
	now := p.cfg.Policy()
	if now == nil || now.Version().IsZero() || p.cfg.Staleness != nil && p.cfg.Staleness() > maxStaleness {
		return fault.New(codes.Unavailable, "the control plane does not know its policy now; try again")
	}
	if reason, lock, locked := now.Barred(&sub, "", "", "", p.cfg.Now()); locked {
		return fault.New(codes.PermissionDenied, "lock %q stands on %s: %s", lock, sub.Name, reason)
	}
	return nil
}

// signedIn lets only who is signed in reach a page; whoever is not is sent to sign in, and
// comes back. What changes something must show the session's token.
func (p *Pages) signedIn(do func(w http.ResponseWriter, r *http.Request, s *session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, err := p.find(r)
		switch {
		case err != nil:
			p.fail(w, r, nil, err)
			return
		case s == nil && r.Method == http.MethodGet:
			http.Redirect(w, r, loginPath+"?"+url.Values{"to": {r.URL.Path}}.Encode(), http.StatusSeeOther)
			return
		case s == nil:
			p.fail(w, r, nil, fault.New(codes.Unauthenticated, "you are not signed in any more; nothing was done"))
			return
		}
		if err := p.welcome(s.subject); err != nil {
			p.fail(w, r, s, err)
			return
		}
		if r.Method != http.MethodGet {
			if err := r.ParseForm(); err != nil {
				p.fail(w, r, s, fault.New(codes.InvalidArgument, "the form cannot be read"))
				return
			}
			if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("form")), []byte(s.token)) != 1 {
				p.fail(w, r, s, fault.New(codes.PermissionDenied, "the form is not of this sign-in; load the page again"))
				return
			}
		}
		do(w, r, s)
	}
}

// under is a login as the browser keeps it while it is under way.
type under struct {
	identity.WebLogin
	To string `json:"to"` // the page to go to
}

// home lets only pages of ours be gone to after a sign-in.
func home(to string) string {
	if t, ok := strings.CutPrefix(to, entrance.Path); ok && len(t) <= maxTicket && ticketForm.MatchString(t) {
		return to
	}
	id, ok := strings.CutPrefix(to, Path+"/")
	if !ok || id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return Path
	}
	return to
}

// maxTicket bounds a ticket, which browsers keep in a cookie while they sign in.
const maxTicket = 2 << 10

// ticketForm is what tickets of apps are made of; what they say is verified where they are used.
var ticketForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// enter sends who is signed in on to an app.
func (p *Pages) enter(w http.ResponseWriter, r *http.Request, s *session) {
	to, err := p.cfg.Enter(r.Context(), r.PathValue("ticket"), s.subject, host(r))
	if err != nil {
		p.fail(w, r, s, err)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// loginName is the cookie of one sign-in, by its state: each tab of a browser has its own.
func loginName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return loginCookie + hex.EncodeToString(sum[:4])
}

// login sends the browser to an issuer; where there are several, people choose.
func (p *Pages) login(w http.ResponseWriter, r *http.Request) {
	to, issuer := home(r.FormValue("to")), r.FormValue("issuer")
	all := p.cfg.Login.WebIssuers()
	if len(all) != 1 && issuer == "" {
		p.render(w, r, http.StatusOK, "issuers", view{Title: "Sign in", Body: struct {
			Issuers []string
			To      string
		}{all, to}})
		return
	}
	if issuer == "" {
		issuer = all[0]
	}
	if err := p.mayAsk(r); err != nil {
		p.fail(w, r, nil, err)
		return
	}
	l, where, err := p.cfg.Login.BeginWeb(r.Context(), issuer, p.cfg.URL+callbackPath)
	if err != nil {
		p.fail(w, r, nil, err)
		return
	}
	value, err := json.Marshal(under{*l, to})
	if err != nil {
		p.fail(w, r, nil, err)
		return
	}
	begun := slices.DeleteFunc(r.Cookies(), func(c *http.Cookie) bool { return !strings.HasPrefix(c.Name, loginCookie) })
	if len(begun) >= maxLogins {
		for _, c := range begun {
			http.SetCookie(w, cookie(c.Name, "", 0))
		}
	}
	http.SetCookie(w, cookie(loginName(l.State), base64.RawURLEncoding.EncodeToString(value), loginTime))
	http.Redirect(w, r, where, http.StatusSeeOther)
}

// mayAsk bounds how often an issuer is asked for somebody whom we do not know: at the
// beginning and, for nobody needs to have begun, at the end.
func (p *Pages) mayAsk(r *http.Request) error {
	if !p.logins.Allow(r, p.cfg.Now()) {
		return fault.New(codes.ResourceExhausted, "too many people sign in at this moment; try again")
	}
	return nil
}

// callback is where an issuer sends the browser back to.
func (p *Pages) callback(w http.ResponseWriter, r *http.Request) {
	var l under
	name := loginName(r.URL.Query().Get("state"))
	c, err := r.Cookie(name)
	if err == nil {
		var value []byte
		if value, err = base64.RawURLEncoding.DecodeString(c.Value); err == nil {
			err = json.Unmarshal(value, &l)
		}
	}
	http.SetCookie(w, cookie(name, "", 0))
	if err != nil {
		p.fail(w, r, nil, fault.New(codes.Unauthenticated, "this sign-in did not begin in this browser, or took too long; begin again"))
		return
	}
	if err := p.mayAsk(r); err != nil {
		p.fail(w, r, nil, err)
		return
	}
	sub, until, err := p.cfg.Login.FinishWeb(r.Context(), &l.WebLogin, p.cfg.URL+callbackPath, r.URL.Query())
	if err != nil {
		p.fail(w, r, nil, err)
		return
	}
	if err := p.welcome(sub); err != nil {
		p.fail(w, r, nil, err)
		return
	}
	p.logins.Good(r)
	secret, err := p.begin(r, sub, until)
	if err != nil {
		p.fail(w, r, nil, err)
		return
	}
	http.SetCookie(w, cookie(sessionCookie, secret, sessionTime))
	http.Redirect(w, r, home(l.To), http.StatusSeeOther)
}

// begin keeps a session, no longer than the token that it stands for, and returns its
// cookie.
func (p *Pages) begin(r *http.Request, sub postern.Subject, until time.Time) (string, error) {
	end := p.cfg.Now().Add(sessionTime)
	if until.Before(end) {
		end = until
	}
	subject := &typesv1.Subject{Name: sub.Name, Email: sub.Email, Groups: sub.Groups, Mfa: sub.MFA, Actor: sub.Actor}
	value, err := proto.Marshal(&typesv1.WebSession{Subject: subject, ExpireTime: timestamppb.New(end), FormToken: rand.Text()})
	if err != nil {
		return "", fmt.Errorf("sign in: %w", err)
	}
	if err := p.sweep(r.Context()); err != nil {
		return "", err
	}
	if err := p.cfg.Audit.Append(r.Context(), audit.Entry{Actor: sub.Name, Address: host(r), Action: "web.signin", Object: "web", Outcome: "ok"}); err != nil {
		return "", fault.Wrap(err, codes.Unavailable, "the sign-in could not be written to the audit log, and so did not happen; try again")
	}
	person, err := proto.Marshal(&typesv1.WebSession{Subject: subject, ExpireTime: timestamppb.New(p.cfg.Now().Add(personTime))})
	if err != nil {
		return "", fmt.Errorf("sign in: %w", err)
	}
	secret := rand.Text()
	if _, err := p.cfg.Store.Commit(r.Context(), store.Op{Key: keyOf(secret), Value: value}, store.Op{Key: personKey(sub.Name), Value: person, If: store.AnyRevision}); err != nil {
		return "", fault.Wrap(err, codes.Unavailable, "the sign-in could not be kept; try again")
	}
	return secret, nil
}

// sweep forgets sessions that are over, and who has signed in long ago.
func (p *Pages) sweep(ctx context.Context) error {
	all, _, err := p.cfg.Store.List(ctx, kind, "", 0)
	people, _, perr := p.cfg.Store.List(ctx, personKind, "", 0)
	if err = errors.Join(err, perr); err != nil {
		return fault.Wrap(err, codes.Unavailable, "the sign-in could not be kept; try again")
	}
	for _, e := range append(all, people...) {
		w := &typesv1.WebSession{}
		if err := proto.Unmarshal(e.Value, w); err == nil && p.cfg.Now().Before(w.GetExpireTime().AsTime()) {
			continue
		}
		if _, err := p.cfg.Store.Commit(ctx, store.Op{Key: e.Key, Delete: true, If: store.AnyRevision}); err != nil {
			return fault.Wrap(err, codes.Unavailable, "the sign-in could not be kept; try again")
		}
	}
	return nil
}

// logout ends a session, and what lets its person answer in a chat.
func (p *Pages) logout(w http.ResponseWriter, r *http.Request, s *session) {
	err := p.cfg.Audit.Append(r.Context(), audit.Entry{Actor: s.subject.Name, Address: host(r), Action: "web.signout", Object: "web", Outcome: "ok"})
	if err == nil {
		_, err = p.cfg.Store.Commit(r.Context(), store.Op{Key: s.key, Delete: true, If: store.AnyRevision},
			store.Op{Key: personKey(s.subject.Name), Delete: true, If: store.AnyRevision})
	}
	if err != nil {
		p.fail(w, r, s, fault.Wrap(err, codes.Unavailable, "you are still signed in: the store does not answer; try again"))
		return
	}
	http.SetCookie(w, cookie(sessionCookie, "", 0))
	p.render(w, r, http.StatusOK, "out", view{Title: "Signed out"})
}
