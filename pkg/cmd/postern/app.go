package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/run"
)

// Exit codes, as they are documented in the help.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDenied      = 3
	exitApproval    = 4
	exitUnreachable = 5
	exitWeak        = 6
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
	err := root.ExecuteContext(ctx)
	return a.exit(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "postern",
		Short:         "Narrow, purpose-built access to databases, clusters, hosts and APIs",
		Version:       release.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Postern gives people and automation tasks: narrow permissions, held while they are
needed and enforced on the way to the resource.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 denied by policy, 4 approval pending or
refused, 5 unreachable, 6 a level of guarantee does not hold (doctor); connect passes the
code of its client through.
Environment: POSTERN_ADDR, POSTERN_CA, POSTERN_TOKEN, POSTERN_NODE, POSTERN_HOME, POSTERN_FORMAT,
POSTERN_KEYRING (off: keep the login in a file).`,
		Example: "  postern login\n  postern tasks\n  postern psql sales-report -- -c 'SELECT count(*) FROM orders'",
	}
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
		a.applyCmd(), a.diffCmd(), a.getCmd(), a.deleteCmd(), a.editCmd(), a.policyCmd(), a.whoCanCmd(),
		a.lockCmd(), a.unlockCmd(), a.offboardCmd(), a.blastCmd(), a.accountsCmd(), a.rotateAccountCmd(), a.nodesCmd(), a.caCmd(), a.statusCmd(), a.demoCmd(),
	)
	return root
}

// formatsOf is the annotation of a command that has formats beside the common ones.
const formatsOf = "formats"

func (a *app) defaults(cmd *cobra.Command) error {
	if a.format == "" {
		a.format = "text"
	}
	formats := append([]string{"text", "json", "yaml"}, strings.Fields(cmd.Annotations[formatsOf])...)
	if !slices.Contains(formats, a.format) {
		return usage("--format %q is not one of %s", a.format, strings.Join(formats, ", "))
	}
	if a.home == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return fmt.Errorf("no folder for settings: %w; set POSTERN_HOME", err)
		}
		a.home = filepath.Join(dir, "postern")
	}
	return nil
}

// group is a command that only has others below it.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q for %q; see: %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
}

// usageError is a mistake in how the command was typed.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// childError carries the exit code of a client that connect ran.
type childError struct{ code int }

func (e childError) Error() string { return fmt.Sprintf("the client ended with code %d", e.code) }

// approvalError says that people have not said yes.
type approvalError struct{ error }

// exit prints what went wrong, for a reader, and picks the exit code.
func (a *app) exit(err error) int {
	var child childError
	var use usageError
	var appr approvalError
	var ce *connect.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &child):
		return child.code
	case errors.Is(err, context.Canceled):
		return 130
	case errors.As(err, &use):
		a.say("postern: %s", err)
		return exitUsage
	case errors.As(err, &appr):
		a.say("postern: %s", err)
		return exitApproval
	case errors.As(err, &ce):
		return a.exitConnect(ce)
	case errors.Is(err, errWeak):
		a.say("postern: %s", err)
		return exitWeak
	}
	if isUnknownCommand(err) {
		a.say("postern: %s", err)
		return exitUsage
	}
	a.say("postern: %s", err)
	return exitFailed
}

func (a *app) exitConnect(ce *connect.Error) int {
	f := faultOf(ce)
	a.say("postern: %s", f.Reason)
	for _, v := range f.Violations {
		if v.Field == "hint" || v.Field == "detail" {
			a.say("  %s: %s", v.Field, v.Reason)
		}
	}
	switch {
	case ce.Code() == connect.CodeUnavailable && !f.remote:
		a.say("  hint: is %s right, and running? (POSTERN_ADDR, POSTERN_CA)", a.addr)
		return exitUnreachable
	case ce.Code() == connect.CodeUnavailable:
		return exitUnreachable
	case ce.Code() == connect.CodeUnauthenticated:
		a.say("  hint: postern login")
		return exitDenied
	case ce.Code() == connect.CodePermissionDenied:
		return exitDenied
	case f.Kind == "no-grant" || f.Kind == "APPROVAL_REQUIRED":
		return exitApproval
	}
	return exitFailed
}

func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.env.Stderr, tamed(fmt.Sprintf(format, args...)))
}

func isUnknownCommand(err error) bool {
	s := err.Error()
	for _, p := range []string{"unknown command", "accepts ", "requires at least", "required flag", "unknown flag", "invalid argument"} {
		if len(s) >= len(p) && s[:len(p)] == p {
			return true
		}
	}
	return false
}

type remoteFault struct {
	fault.Error
	remote bool // whether the other side said it
}

// faultOf reads what the API said about a failure.
func faultOf(ce *connect.Error) remoteFault {
	out := remoteFault{Error: fault.Error{Reason: ce.Message()}, remote: connect.IsWireError(ce)}
	for _, d := range ce.Details() {
		readDetail(&out.Error, d)
	}
	return out
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

// dial makes clients that send the caller's token; with anonymous set they send none.
func (a *app) dial(ctx context.Context, anonymous bool) (*api, error) {
	if a.addr == "" {
		return nil, usage("where is the control plane? set POSTERN_ADDR or --addr, such as https://postern.example:8443")
	}
	u, err := url.Parse(a.addr)
	if err != nil || u.Host == "" || u.Scheme != "https" {
		return nil, usage("POSTERN_ADDR %q is not an https URL", a.addr)
	}
	pool, err := a.pool()
	if err != nil {
		return nil, err
	}
	hc := &http.Client{Transport: &http.Transport{
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
