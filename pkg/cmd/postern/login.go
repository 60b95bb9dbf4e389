package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/posterngate/postern/pkg/conf"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// loginTimeout is how long a person may take.
const loginTimeout = 5 * time.Minute

func (a *app) loginCmd() *cobra.Command {
	var device bool
	var issuer string
	c := &cobra.Command{
		Use: "login", Short: "Sign in at the organisation's identity provider",
		Example: "  postern login\n  postern login --device",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), loginTimeout)
			defer cancel()
			return a.login(ctx, issuer, device)
		},
	}
	c.Flags().BoolVar(&device, "device", false, "sign in on another device, with a code")
	c.Flags().StringVar(&issuer, "issuer", "", "name of the issuer, where there are several")
	return c
}

func (a *app) login(ctx context.Context, name string, device bool) error {
	if _, err := a.settings(); err != nil {
		return err
	}
	api, err := a.dial(ctx, true)
	if err != nil {
		return err
	}
	opts, err := api.access.LoginOptions(ctx, connect.NewRequest(&apiv1.LoginOptionsRequest{}))
	if err != nil {
		return err
	}
	is, err := pickIssuer(opts.Msg.GetIssuers(), name)
	if err != nil {
		return err
	}
	hc, err := a.issuerClient()
	if err != nil {
		return err
	}
	meta, err := discover(ctx, hc, is.GetIssuer())
	if err != nil {
		return err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, hc)
	all := &tokens{Addr: a.addr, Issuer: is.GetIssuer()}
	signIn := a.signInBrowser
	if device {
		signIn = a.signInDevice
	}
	if all.API, err = signIn(ctx, meta, is.GetApiClientId(), is.GetScopes(), "the API"); err != nil {
		return err
	}
	all.Data = all.API
	if is.GetDataClientId() != is.GetApiClientId() {
		if all.Data, err = signIn(ctx, meta, is.GetDataClientId(), is.GetScopes(), "listeners"); err != nil {
			return err
		}
	}
	if err := a.saveTokens(ctx, all); err != nil {
		return err
	}
	return a.whoami(ctx)
}

func pickIssuer(all []*apiv1.LoginIssuer, name string) (*apiv1.LoginIssuer, error) {
	var names []string
	for _, is := range all {
		if name == is.GetName() || name == "" && len(all) == 1 {
			return is, nil
		}
		names = append(names, is.GetName())
	}
	return nil, usage("which issuer? --issuer %s", strings.Join(names, " or "))
}

// metadata is what discovery says.
type metadata struct {
	Issuer    string `json:"issuer"`
	AuthURL   string `json:"authorization_endpoint"`
	TokenURL  string `json:"token_endpoint"`
	DeviceURL string `json:"device_authorization_endpoint"`
	IssParam  bool   `json:"authorization_response_iss_parameter_supported"`
}

// maxMetadata bounds a discovery document.
const maxMetadata = 1 << 20

func discover(ctx context.Context, hc *http.Client, issuer string) (*metadata, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, unanswered(fmt.Errorf("reach the issuer: %w", err))
	}
	defer resp.Body.Close()
	var m metadata
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMetadata)).Decode(&m); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer %s does not describe itself (%s)", issuer, resp.Status)
	}
	if m.Issuer != issuer {
		return nil, fmt.Errorf("the issuer calls itself %q, and the control plane trusts %q", m.Issuer, issuer)
	}
	page, err := url.Parse(m.AuthURL) // which a browser opens, and not we
	if err == nil {
		err = encrypted(page)
	}
	if err != nil {
		return nil, fmt.Errorf("where the issuer lets people sign in: %w", err)
	}
	return &m, nil
}

func (m *metadata) config(clientID string, scopes []string) *oauth2.Config {
	return &oauth2.Config{ClientID: clientID, Scopes: scopes, Endpoint: oauth2.Endpoint{
		AuthURL: m.AuthURL, TokenURL: m.TokenURL, DeviceAuthURL: m.DeviceURL, AuthStyle: oauth2.AuthStyleInParams}}
}

// signInBrowser is the authorization code flow with PKCE; the answer comes to a
// listener on loopback that serves one request.
func (a *app) signInBrowser(ctx context.Context, m *metadata, clientID string, scopes []string, what string) (token, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return token{}, err
	}
	defer ln.Close()
	cfg := m.config(clientID, scopes)
	cfg.RedirectURL = "http://" + ln.Addr().String() + "/callback"
	state, verifier, nonce := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	link := cfg.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", nonce))
	a.say("Sign in for %s in the browser:\n  %s", what, link)
	a.browse(ctx, link)

	answer, err := a.callback(ctx, ln, state)
	if err != nil {
		return token{}, err
	}
	if iss := answer.Get("iss"); iss != "" && iss != m.Issuer || iss == "" && m.IssParam {
		return token{}, fmt.Errorf("the answer is from issuer %q, not from %q", iss, m.Issuer)
	}
	tok, err := cfg.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return token{}, fmt.Errorf("exchange the code: %w", err)
	}
	t := token{ClientID: clientID, TokenURL: m.TokenURL}
	if err := t.take(tok); err != nil {
		return token{}, err
	}
	if got := claim(t.ID, "nonce"); got != nonce {
		return token{}, errors.New("the token was not made for this login")
	}
	return t, nil
}

// callback waits for the one answer that carries our state; anything else is told to
// go away and changes nothing.
func (a *app) callback(ctx context.Context, ln net.Listener, state string) (url.Values, error) {
	type result struct {
		values url.Values
		err    error
	}
	got := make(chan result, 1)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/callback" || q.Get("state") != state {
			http.Error(w, "this is not the login that was started", http.StatusBadRequest)
			return
		}
		res := result{values: q}
		text := "You are signed in. This page can be closed."
		if e := q.Get("error"); e != "" {
			res.err = fmt.Errorf("the issuer refused: %s %s", e, q.Get("error_description"))
			text = "The login was refused. This page can be closed."
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, text)
		select {
		case got <- res:
		default: // answered already
		}
	})}
	stop := serve(srv, ln)
	defer stop()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("nobody signed in: %w", context.Cause(ctx))
	case r := <-got:
		return r.values, r.err
	}
}

// signInDevice is the device flow, for places without a browser.
func (a *app) signInDevice(ctx context.Context, m *metadata, clientID string, scopes []string, what string) (token, error) {
	if m.DeviceURL == "" {
		return token{}, errors.New("the issuer offers no device flow: postern login without --device")
	}
	cfg := m.config(clientID, scopes)
	da, err := cfg.DeviceAuth(ctx)
	if err != nil {
		return token{}, fmt.Errorf("start the device flow: %w", err)
	}
	link := da.VerificationURIComplete
	if link == "" {
		link = da.VerificationURI
	}
	a.say("Sign in for %s on any device:\n  %s\nand see that it shows the code %s", what, link, da.UserCode)
	tok, err := cfg.DeviceAccessToken(ctx, da)
	if err != nil {
		return token{}, fmt.Errorf("device flow: %w", err)
	}
	t := token{ClientID: clientID, TokenURL: m.TokenURL}
	return t, t.take(tok)
}

// browse opens a link where there is a desktop; it is printed in any case.
func (a *app) browse(ctx context.Context, link string) {
	program := "xdg-open"
	switch {
	case a.env.Getenv("BROWSER") != "":
		program = a.env.Getenv("BROWSER")
	case runtime.GOOS == "darwin":
		program = "open"
	case a.env.Getenv("DISPLAY") == "" && a.env.Getenv("WAYLAND_DISPLAY") == "":
		return
	}
	cmd := exec.CommandContext(ctx, program, link)
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}

func (a *app) logoutCmd() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the login", Example: "  postern logout", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.forgetTokens(cmd.Context()); err != nil {
				return err
			}
			a.say("Signed out.")
			return nil
		},
	}
}

func (a *app) whoamiCmd() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Who Postern thinks I am", Example: "  postern whoami --format json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.whoami(cmd.Context()) },
	}
}

func (a *app) whoami(ctx context.Context) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	resp, err := api.access.WhoAmI(ctx, connect.NewRequest(&apiv1.WhoAmIRequest{}))
	if err != nil {
		return err
	}
	return a.print(resp.Msg, func(w io.Writer) {
		s := resp.Msg.GetSubject()
		fmt.Fprintln(w, s.GetName())
		rows := [][2]string{{"email", s.GetEmail()}, {"groups", strings.Join(s.GetGroups(), ", ")}, {"workload", s.GetWorkload()}, {"roles", strings.Join(resp.Msg.GetRoles(), ", ")}, {"until", when(resp.Msg.GetExpireTime())}, {"token in", a.where()}}
		for _, r := range rows {
			field(w, 11, "  "+r[0], r[1])
		}
	})
}

func (a *app) tokenCmd() *cobra.Command {
	return &cobra.Command{
		Use: "token", Short: "Print a token for listeners, for use as a password",
		Example: `  PGPASSWORD=$(postern token) psql "host=node user=sales-report dbname=warehouse sslmode=verify-full"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.dataToken(cmd.Context())
			if err != nil {
				return err
			}
			return a.printValue(map[string]string{"token": t}, func(w io.Writer) { fmt.Fprintln(w, t) })
		},
	}
}

// issuerClient trusts the system's CAs and that of POSTERN_CA.
func (a *app) issuerClient() (*http.Client, error) {
	pool, err := a.pool()
	if err != nil {
		return nil, err
	}
	if pool != nil {
		all, err := x509.SystemCertPool()
		if err != nil {
			all = x509.NewCertPool()
		}
		pem, err := os.ReadFile(a.ca)
		if err != nil {
			return nil, err
		}
		all.AppendCertsFromPEM(pem)
		pool = all
	}
	return &http.Client{Timeout: 30 * time.Second, Transport: private{&http.Transport{Proxy: a.proxy(), TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}}, nil
}

// private sends nothing where others could read it, whoever has named the address: the control
// plane, the issuer's description of itself, or an answer that leads elsewhere.
type private struct{ http.RoundTripper }

func (p private) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := encrypted(r.URL); err != nil {
		return nil, err
	}
	return p.RoundTripper.RoundTrip(r)
}

// encrypted lets https through, and plain http on loopback.
func encrypted(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && conf.Loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s://%s is not https: %w", u.Scheme, u.Host, errInClear)
}

var errInClear = errors.New("a login would be read on its way")

// unanswered tells an issuer that could not be reached from one that has answered: the login may
// be good.
func unanswered(err error) error {
	var lost *url.Error
	if errors.As(err, &lost) && !errors.Is(err, errInClear) {
		return failure{err, exitUnreachable, "is the issuer running, and can it be reached from here?"}
	}
	return err
}

// payload decodes a token's claims without verifying it: the other side does that.
func payload(idToken string) (map[string]any, error) {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return nil, errors.New("the issuer's ID token is not a JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("the issuer's ID token is not a JWT: %w", err)
	}
	var m map[string]any
	return m, json.Unmarshal(b, &m)
}

func claim(idToken, name string) string {
	m, _ := payload(idToken)
	s, _ := m[name].(string)
	return s
}

func expiry(idToken string) (time.Time, error) {
	m, err := payload(idToken)
	if err != nil {
		return time.Time{}, err
	}
	exp, ok := m["exp"].(float64)
	if !ok {
		return time.Time{}, errors.New("the issuer's ID token has no end")
	}
	return time.Unix(int64(exp), 0), nil
}
