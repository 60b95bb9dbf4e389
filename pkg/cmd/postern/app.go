package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpproxy"

	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/run"
)

// Env is what the command has of the world.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Keyring        Keyring // nil where there is none
}

// app is one run of the command.
type app struct {
	env    Env
	addr   string
	ca     string
	home   string
	format string

	unsealed error // why a login that was kept by this run is in no keyring
}

// Main runs the command and returns its exit code.
func Main(ctx context.Context, args []string, env Env) int {
	a := &app{env: env}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := group("postern", "Narrow, purpose-built access to databases, clusters, hosts and APIs")
	root.Version = release.Version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Long = `Postern gives people and automation tasks: narrow permissions, held while they are
needed and enforced on the way to the resource.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 denied by policy or not signed in, 4 approval
pending or refused, 5 unreachable, 6 a level of guarantee does not hold (doctor), 130
interrupted; connect, psql, ssh and curl pass the code of their client through.
With --format json or yaml the last line of standard error tells a failure as JSON: error,
exit and, where there is more, kind, rule, detail, hint and violations.
Environment: POSTERN_ADDR, POSTERN_CA, POSTERN_TOKEN, POSTERN_HOME, POSTERN_FORMAT,
POSTERN_KEYRING (off: keep the login in a file), POSTERN_PG (the node that --format pgpass names),
HTTPS_PROXY and NO_PROXY (to the control plane and the issuer), NO_COLOR.`
	root.Example = "  postern login\n  postern tasks\n  postern psql sales-report -- -c 'SELECT count(*) FROM orders'"
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", a.env.Getenv("POSTERN_ADDR"), "URL of the control plane's API")
	f.StringVar(&a.ca, "ca", a.env.Getenv("POSTERN_CA"), "PEM file of the CA that signs the API and the nodes")
	f.StringVar(&a.home, "home", a.env.Getenv("POSTERN_HOME"), "folder for tokens and settings")
	f.StringVar(&a.format, "format", a.env.Getenv("POSTERN_FORMAT"), "output: text, json or yaml")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.defaults(cmd) }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%s", err) })
	root.AddCommand(
		a.loginCmd(), a.logoutCmd(), a.whoamiCmd(), a.tokenCmd(),
		a.tasksCmd(), a.explainCmd(), a.doctorCmd(),
		a.requestCmd(), a.requestsCmd(), a.approvalsCmd(), a.approveCmd(), a.denyCmd(), a.withdrawCmd(), a.grantCmd(), a.grantsCmd(), a.revokeCmd(),
		a.connectCmd(), a.psqlCmd(), a.sshCmd(), a.curlCmd(), a.configCmd(), a.benchCmd(),
		a.sessionsCmd(), a.auditCmd(), a.usageCmd(),
		a.applyCmd(), a.diffCmd(), a.fieldsCmd(), a.getCmd(), a.deleteCmd(), a.editCmd(), a.policyCmd(), a.whoCanCmd(),
		a.lockCmd(), a.unlockCmd(), a.offboardCmd(), a.blastCmd(), a.accountsCmd(), a.rotateAccountCmd(), a.nodesCmd(), a.caCmd(), a.statusCmd(), a.demoCmd(),
	)
	typed(root)
	a.completed(root)
	return root
}

// formatsOf is the annotation of a command that has formats beside the common ones.
const formatsOf = "formats"

func (a *app) defaults(cmd *cobra.Command) error {
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return usage("%w", err)
	}
	if a.format == "" {
		a.format = "text"
	}
	formats := append([]string{"text", "json", "yaml"}, strings.Fields(cmd.Annotations[formatsOf])...)
	if !slices.Contains(formats, a.format) {
		return usage("--format %q is not one of %s", a.format, strings.Join(formats, ", "))
	}
	if dir, err := os.UserConfigDir(); a.home == "" && err == nil {
		a.home = filepath.Join(dir, "postern")
	}
	return nil
}

// settings is the folder for tokens and settings. Not everybody has one: a job, say, that gets
// its token by POSTERN_TOKEN.
func (a *app) settings() (string, error) {
	if a.home == "" {
		return "", fail(exitUsage, "set POSTERN_HOME", "there is no folder for tokens and settings: neither HOME nor XDG_CONFIG_HOME is set")
	}
	return a.home, nil
}

// group is a command that only has others below it.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := "see " + cmd.CommandPath() + " --help"
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				hint = "did you mean " + strings.Join(like, ", ") + "? " + hint
			}
			return fail(exitUsage, hint, "unknown command %q for %q", args[0], cmd.CommandPath())
		},
	}
}

func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.env.Stderr, tamed(fmt.Sprintf(format, args...)))
}

// api is the control plane's API as the caller.
type api struct {
	policy    apiv1connect.PolicyServiceClient
	access    apiv1connect.AccessServiceClient
	grants    apiv1connect.GrantServiceClient
	approvals apiv1connect.ApprovalServiceClient
	sessions  apiv1connect.SessionServiceClient
	audit     apiv1connect.AuditServiceClient
	answers   apiv1connect.AnswerServiceClient
	nodes     apiv1connect.NodeAdminServiceClient
	keys      apiv1connect.AuthorityServiceClient
	locks     apiv1connect.LockServiceClient
	accounts  apiv1connect.AccountServiceClient
}

// dialTimeout is how long the control plane may take to accept a connection; one that nothing
// answers for takes the system's time, which is minutes.
const dialTimeout = 10 * time.Second

// dial makes clients that send the caller's token; with anonymous set they send none.
func (a *app) dial(ctx context.Context, anonymous bool) (*api, error) {
	if a.addr == "" {
		return nil, fail(exitUsage, "set POSTERN_ADDR or --addr, such as https://postern.example:8443", "where is the control plane?")
	}
	u, err := url.Parse(a.addr)
	if err != nil || u.Host == "" || u.Scheme != "https" {
		return nil, fail(exitUsage, "such as https://postern.example:8443", "POSTERN_ADDR %q is not an https URL", a.addr)
	}
	pool, err := a.pool()
	if err != nil {
		return nil, err
	}
	hc := &http.Client{Transport: &http.Transport{
		Proxy:                 a.proxy(),
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
	}}
	var opts []connect.ClientOption
	if !anonymous {
		if _, err := a.apiToken(ctx); err != nil {
			return nil, err
		}
		opts = append(opts, connect.WithInterceptors(bearer(a.apiToken)))
	}
	return &api{
		policy:    apiv1connect.NewPolicyServiceClient(hc, a.addr, opts...),
		access:    apiv1connect.NewAccessServiceClient(hc, a.addr, opts...),
		grants:    apiv1connect.NewGrantServiceClient(hc, a.addr, opts...),
		approvals: apiv1connect.NewApprovalServiceClient(hc, a.addr, opts...),
		sessions:  apiv1connect.NewSessionServiceClient(hc, a.addr, opts...),
		audit:     apiv1connect.NewAuditServiceClient(hc, a.addr, opts...),
		answers:   apiv1connect.NewAnswerServiceClient(hc, a.addr, opts...),
		nodes:     apiv1connect.NewNodeAdminServiceClient(hc, a.addr, opts...),
		keys:      apiv1connect.NewAuthorityServiceClient(hc, a.addr, opts...),
		locks:     apiv1connect.NewLockServiceClient(hc, a.addr, opts...),
		accounts:  apiv1connect.NewAccountServiceClient(hc, a.addr, opts...),
	}, nil
}

// proxy is the way that the environment names to where only a proxy leads (HTTPS_PROXY,
// NO_PROXY); loopback is reached directly.
func (a *app) proxy() func(*http.Request) (*url.URL, error) {
	either := func(name string) string { return cmp.Or(a.env.Getenv(name), a.env.Getenv(strings.ToLower(name))) }
	by := (&httpproxy.Config{HTTPSProxy: either("HTTPS_PROXY"), NoProxy: either("NO_PROXY")}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return by(r.URL) }
}

// pool is the CA of POSTERN_CA, or the system's where it is not set (nil).
func (a *app) pool() (*x509.CertPool, error) {
	if a.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(a.ca)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", a.ca)
	}
	return pool, nil
}

// bearer sends a token with every call, renewed where it has to be: some commands outlive
// their first one.
type bearer func(ctx context.Context) (string, error)

func (t bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		token, err := t(ctx)
		if err != nil {
			return nil, err
		}
		req.Header().Set("Authorization", "Bearer "+token)
		return next(ctx, req)
	}
}

func (t bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		c := next(ctx, spec)
		if token, err := t(ctx); err == nil { // without one the API says what is wrong
			c.RequestHeader().Set("Authorization", "Bearer "+token)
		}
		return c
	}
}

func (t bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// run runs a child with the terminal of this process and passes its exit code on; one
// that a signal ended has the code that shells give it. What asks us to end is passed
// on too. An interrupt is not: the terminal sends it to both.
func (a *app) run(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.env.Stdin, a.env.Stdout, a.env.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	g := run.New(context.Background())
	g.Go("signals", func(ctx context.Context) error {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended by itself
			case <-ctx.Done():
				return nil
			}
		}
	})
	err := cmd.Wait()
	signal.Stop(signals)
	g.Stop()
	if gerr := g.Wait(); gerr != nil {
		return gerr
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return childError{128 + int(status.Signal())}
	}
	return childError{exit.ExitCode()}
}
