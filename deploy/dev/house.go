package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane"
	controlconfig "github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/dataplane"
	nodeconfig "github.com/posterngate/postern/dataplane/config"
	"github.com/posterngate/postern/deploy/dev/idp"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/telemetry"
	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/servers"
)

type options struct {
	dir   string
	vault bool
	log   func(string)
}

//go:embed world/*.yaml
var worldFiles embed.FS

// people of the sample company; passwords are the names.
var people = []idp.Person{
	{Name: "alice", Email: "alice@sample.example", Groups: []string{"analysts"}},
	{Name: "bob", Email: "bob@sample.example", Groups: []string{"leads"}},
	{Name: "carol", Email: "carol@sample.example", Groups: []string{"contractors"}},
	{Name: "ada", Email: "ada@sample.example", Groups: []string{"admins"}},
	{Name: "nightly", Claims: map[string]any{"environment": "prod"}},
}

const nodeName = "dev-1"

// httpDomain is the node's name for HTTP: below it each task has one. Clients find it on
// loopback by themselves (RFC 6761).
const httpDomain = "postern.localhost"

// startTimeout bounds each wait for a part of the house to answer.
const startTimeout = 30 * time.Second

// lasting are the ports, which are chosen once and kept, so that what was pasted yesterday works today.
type lasting struct{ IDP, API, Nodes, PG, Debug, Vault, SSH, HTTP, Orders int }

// house is the parts as they run.
type house struct {
	options
	ports     lasting
	warehouse *warehouse
	web       *servers.SSHD // nil where it cannot be had
	orders    *ordersAPI
	tel       *telemetry.T
	group     *run.Group // everything but the node
	node      *run.Group // stopped first, so that it can give back what it borrowed
	control   *controlplane.Server
	api       *http.Client
	tokens    map[string]string
}

func (h *house) issuer() string { return fmt.Sprintf("http://127.0.0.1:%d", h.ports.IDP) }
func (h *house) addr() string   { return fmt.Sprintf("https://127.0.0.1:%d", h.ports.API) }
func (h *house) pg() string     { return fmt.Sprintf("127.0.0.1:%d", h.ports.PG) }
func (h *house) http() string   { return fmt.Sprintf("127.0.0.1:%d", h.ports.HTTP) }
func (h *house) ssh() string    { return fmt.Sprintf("127.0.0.1:%d", h.ports.SSH) }

// foreground runs the house until ctx is done.
func foreground(ctx context.Context, o options) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	release, err := claim(o)
	if err != nil {
		return err
	}
	defer release()
	defer os.Remove(readyFile(o))
	h := &house{options: o}
	if h.ports, err = keptPorts(filepath.Join(dir, "ports.json")); err != nil {
		return err
	}
	logs, err := os.OpenFile(filepath.Join(dir, "house.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close()
	if h.tel, err = telemetry.Setup(ctx, telemetry.Config{}, "postern-dev", "dev", logs); err != nil {
		return err
	}
	h.group = run.New(context.WithoutCancel(ctx))
	h.node = run.New(h.group.Context())
	if err := h.start(ctx); err != nil {
		err = errors.Join(err, h.stop())
		if ctx.Err() != nil {
			return nil // interrupted while it was starting
		}
		return err
	}
	h.banner(os.Stdout)
	if err := os.WriteFile(readyFile(o), nil, 0o644); err != nil {
		return errors.Join(err, h.stop())
	}
	select {
	case <-ctx.Done():
		o.log("stopping")
	case <-h.node.Context().Done(): // a part has failed
	}
	return h.stop()
}

// stop ends the parts in the order in which they can do without each other.
func (h *house) stop() error {
	h.node.Stop()
	err := h.node.Wait()
	h.group.Stop()
	err = errors.Join(err, h.group.Wait())
	if h.web != nil {
		h.web.Stop()
	}
	if h.warehouse != nil {
		h.warehouse.stop()
	}
	return err
}

// start brings everything up, in the order in which the parts need each other.
func (h *house) start(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"sample PostgreSQL", h.startWarehouse},
		{"sample host", h.startWeb},
		{"sample service", h.startOrders},
		{"identity provider", h.startIDP},
		{"control plane", h.startControl},
		{"people's tokens", h.signIn},
		{"sample company", h.applyWorld},
		{"node", h.startNode},
		{"everything answers", h.await},
	}
	for _, s := range steps {
		began := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		h.log(fmt.Sprintf("  %-20s %s", s.what, time.Since(began).Round(time.Millisecond)))
	}
	return h.writeEnv()
}

func keptPorts(file string) (lasting, error) {
	var p lasting
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	for _, port := range []*int{&p.IDP, &p.API, &p.Nodes, &p.PG, &p.Debug, &p.Vault, &p.SSH, &p.HTTP, &p.Orders} {
		if *port != 0 {
			continue
		}
		if *port, err = ports.Take(); err != nil {
			return p, err
		}
	}
	if b, err = json.Marshal(p); err != nil {
		return p, err
	}
	return p, os.WriteFile(file, b, 0o644)
}

func (h *house) startIDP(context.Context) error {
	provider, err := idp.New(h.issuer(), filepath.Join(h.dir, "idp.key"), people)
	if err != nil {
		return err
	}
	provider.Web(h.addr())
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", h.ports.IDP))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: provider, ReadHeaderTimeout: 10 * time.Second}
	h.group.Go("idp", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

func (h *house) startControl(ctx context.Context) error {
	rawKey, err := h.rawKey()
	if err != nil {
		return err
	}
	cfg := controlconfig.Config{
		DataDir: filepath.Join(h.dir, "control"),
		API:     controlconfig.Listener{Addr: fmt.Sprintf("127.0.0.1:%d", h.ports.API), Hosts: []string{"localhost"}},
		Nodes:   controlconfig.Listener{Addr: fmt.Sprintf("127.0.0.1:%d", h.ports.Nodes)},
		Debug:   fmt.Sprintf("127.0.0.1:%d", h.ports.Debug),
		Issuers: []controlconfig.Issuer{{
			Name: "sample", URL: h.issuer(), APIAudience: idp.SharedClient, DataAudience: idp.SharedClient, AllowSharedAudience: true,
			Scopes: []string{"openid", "profile", "email", "groups", "offline_access"},
		}},
		Admins: []controlconfig.Admin{{Group: "admins"}},
		Vault:  h.warehouse.vaultConfig(),
	}
	cfg.Recordings.RawKey = rawKey
	if err := cfg.Check(); err != nil {
		return err
	}
	if h.control, err = controlplane.New(ctx, cfg, h.tel); err != nil {
		return err
	}
	h.group.Go("control plane", h.control.Run)
	if err := os.WriteFile(filepath.Join(h.dir, "ca.pem"), h.control.CA(), 0o644); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.control.CA())
	h.api = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}}
	return h.control.Ready(ctx)
}

// signIn gets a token for everybody, the way people get them.
func (h *house) signIn(ctx context.Context) error {
	h.tokens = map[string]string{}
	for _, p := range people {
		t, err := idp.SignIn(ctx, h.issuer(), idp.SharedClient, p.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		h.tokens[p.Name] = t
	}
	return nil
}

// as makes a header with somebody's token.
func (h *house) as(name string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+h.tokens[name])
			return next(ctx, req)
		}
	}))
}

// applyWorld applies the sample company through the public API, as ada.
func (h *house) applyWorld(ctx context.Context) error {
	entries, err := fs.Glob(worldFiles, "world/*.yaml")
	if err != nil {
		return err
	}
	slices.Sort(entries)
	req := &apiv1.ApplyRequest{Objects: append(h.warehouse.secrets(), h.ordersSecret())}
	if h.web != nil {
		req.Objects = append(req.Objects, h.webSecret())
	} else {
		entries = slices.DeleteFunc(entries, func(e string) bool { return e == webWorld })
	}
	for _, e := range entries {
		b, err := worldFiles.ReadFile(e)
		if err != nil {
			return err
		}
		text := h.expandOrders(h.warehouse.expand(strings.ReplaceAll(string(b), "${ISSUER}", h.issuer())))
		if h.web != nil {
			text = h.expandWeb(text)
		}
		objects, err := object.ParseYAML(bytes.NewReader([]byte(text)))
		if err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
		req.Objects = append(req.Objects, objects...)
	}
	_, err = apiv1connect.NewPolicyServiceClient(h.api, h.addr(), h.as("ada")).Apply(ctx, connect.NewRequest(req))
	return err
}

func (h *house) startNode(ctx context.Context) error {
	cfg := nodeconfig.Config{
		Name: nodeName, DataDir: filepath.Join(h.dir, "node"),
		ControlPlane:  []string{fmt.Sprintf("127.0.0.1:%d", h.ports.Nodes)},
		JoinTokenFile: filepath.Join(h.dir, "join-token"),
		Listeners: map[postern.Protocol]nodeconfig.Listener{
			postern.Postgres: {Addr: h.pg()}, postern.SSH: {Addr: h.ssh()},
			postern.HTTP: {Addr: h.http(), Public: fmt.Sprintf("%s:%d", httpDomain, h.ports.HTTP)},
		},
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	if !dataplane.Enrolled(cfg) {
		resp, err := apiv1connect.NewNodeAdminServiceClient(h.api, h.addr(), h.as("ada")).CreateJoinToken(ctx,
			connect.NewRequest(&apiv1.CreateJoinTokenRequest{Name: nodeName, Region: "local"}))
		if err != nil {
			return err
		}
		if err := os.WriteFile(cfg.JoinTokenFile, []byte(resp.Msg.GetToken()), 0o600); err != nil {
			return err
		}
		defer os.Remove(cfg.JoinTokenFile)
	}
	node, err := dataplane.New(ctx, cfg, h.tel)
	if err != nil {
		return err
	}
	h.node.Go("node", node.Run)
	return nil
}

// await returns once the node enforces the sample company and serves its resource.
func (h *house) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	nodes := apiv1connect.NewNodeAdminServiceClient(h.api, h.addr(), h.as("ada"))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := "no answer yet"
	for {
		resp, err := nodes.ListNodes(ctx, connect.NewRequest(&apiv1.ListNodesRequest{}))
		if err == nil {
			for _, n := range resp.Msg.GetNodes() {
				last = fmt.Sprintf("node %s: connected %v, resources %v, rejected %v", n.GetName(), n.GetConnected(), n.GetReport().GetResources(), n.GetRejections())
				if n.GetName() == nodeName && n.GetConnected() && slices.Contains(n.GetReport().GetResources(), "warehouse") {
					return nil
				}
			}
		} else {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s (%w)", last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (h *house) writeEnv() error {
	home := filepath.Join(h.dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	var out strings.Builder
	set := func(name, value string) { fmt.Fprintf(&out, "export %s='%s'\n", name, value) }
	set("POSTERN_ADDR", h.addr())
	set("POSTERN_CA", filepath.Join(h.dir, "ca.pem"))
	set("POSTERN_NODE", "127.0.0.1")
	set("POSTERN_HOME", home)
	set("POSTERN_PG", h.pg())
	set("POSTERN_SSH", h.ssh())
	set("POSTERN_HTTP", h.http())
	set("POSTERN_HTTP_DOMAIN", fmt.Sprintf("%s:%d", httpDomain, h.ports.HTTP))
	set("POSTERN_TOKEN", h.tokens["ada"])
	for _, p := range people {
		set("POSTERN_TOKEN_"+strings.ToUpper(p.Name), h.tokens[p.Name])
	}
	return os.WriteFile(filepath.Join(h.dir, "env"), []byte(out.String()), 0o600)
}

func (h *house) banner(w *os.File) {
	fmt.Fprintf(w, `
Postern is up. The sample company: alice (analysts), bob (leads), carol (contractors), ada (admins).

  API       %s
  approve   %s/approvals   (the page; its certificate is by ca.pem)
  sign in   %s   (passwords are the names)
  log       %s

  source %s
  PGPASSWORD=$POSTERN_TOKEN_ALICE psql "host=127.0.0.1 port=%d user=sales-report.warehouse dbname=warehouse sslmode=verify-full sslrootcert=$POSTERN_CA"
  %s
  curl --cacert $POSTERN_CA -H "Authorization: Bearer $POSTERN_TOKEN_ALICE" https://read-orders--orders-api.$POSTERN_HTTP_DOMAIN/api/orders/8
  make demo

`, h.addr(), h.addr(), h.issuer(), filepath.Join(h.dir, "house.log"), filepath.Join(h.dir, "env"), h.ports.PG, h.webLine())
}

func randomPassword() string { return rand.Text() }
