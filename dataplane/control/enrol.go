package control

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/secret"
)

// controlURI is in the control plane's certificate, and tells it from the certificate
// of a node's listener, which the same CA has signed.
const controlURI = "postern://control"

const enrolWait = 20 * time.Second // for one address

// EnrolConfig says where a node enrols and as whom.
type EnrolConfig struct {
	Addrs      []string // of the control plane, host:port
	ServerName string   // in its certificate; empty for the host of the address
	JoinToken  secret.Bytes
	Name       string            // must be the one that the token is for
	Dir        string            // where the identity is kept
	Endpoints  map[string]string // public address by protocol
	// DialOptions are further ones, such as a stats handler for traces.
	DialOptions []grpc.DialOption
}

// OpenIdentity loads the identity that a directory holds, or enrols with the join token of
// a file where there is none; cfg's Dir and JoinToken are set here.
func OpenIdentity(ctx context.Context, dir, joinTokenFile string, cfg EnrolConfig) (*Identity, error) {
	id, err := LoadIdentity(dir)
	if err == nil && string(id.Name()) != cfg.Name {
		return nil, fmt.Errorf("%s holds the identity of %q, and the configuration says %q: each has a dataDir of its own", dir, id.Name(), cfg.Name)
	}
	if !errors.Is(err, ErrNotEnrolled) {
		return id, err
	}
	if joinTokenFile == "" {
		return nil, fmt.Errorf("%w: postern nodes enrol %s, and set joinTokenFile", err, cfg.Name)
	}
	token, err := os.ReadFile(joinTokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the join token: %w", err)
	}
	cfg.Dir, cfg.JoinToken = dir, secret.New(bytes.TrimSpace(token))
	return Enrol(ctx, cfg)
}

// Enrol trades a join token for an identity, which it keeps in the directory. Nothing
// is sent before the server has shown the CA that the token names.
func Enrol(ctx context.Context, cfg EnrolConfig) (*Identity, error) {
	pin, err := joinPin(cfg.JoinToken)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	key, keyDER, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	hpke, err := secret.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	csr, err := request(key)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	host, hostDER, err := newHostKey()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	req := &nodev1.RegisterRequest{
		JoinToken: string(cfg.JoinToken.Reveal()), Name: cfg.Name, Csr: csr,
		HpkeKey: hpke.PublicKey(), Endpoints: cfg.Endpoints, SshHostKey: host.PublicKey().Marshal(),
	}
	resp, err := register(ctx, cfg, pin, req)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if resp.GetName() != cfg.Name {
		return nil, fmt.Errorf("enrol: the control plane made this node %q and not %q", resp.GetName(), cfg.Name)
	}
	if !holdsPinned(resp.GetCa(), pin) {
		return nil, errors.New("enrol: the CA that the control plane sent is not the one that the join token names")
	}
	raw, err := hpke.Marshal()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	id := &Identity{dir: cfg.Dir}
	id.mu.Lock()
	defer id.mu.Unlock()
	err = id.save(stored{
		Name: resp.GetName(), Region: resp.GetRegion(), Labels: resp.GetLabels(), Endpoints: cfg.Endpoints, CA: resp.GetCa(),
		Certificate: resp.GetCertificate(), ServerCertificate: resp.GetServerCertificate(), Key: keyDER, HPKEKey: raw.Reveal(),
		SSHHostKey: hostDER, SSHHostCertificate: resp.GetSshHostCertificate(),
	})
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	return id, nil
}

// register asks one address after another. A token is used once, so an answer that
// is not "cannot be reached" is the last.
func register(ctx context.Context, cfg EnrolConfig, pin [sha256.Size]byte, req *nodev1.RegisterRequest) (*nodev1.RegisterResponse, error) {
	last := errors.New("no address of the control plane was given")
	for _, addr := range cfg.Addrs {
		name, err := serverName(cfg.ServerName, addr)
		if err != nil {
			return nil, err
		}
		resp, err := registerAt(ctx, cfg, addr, req, &tls.Config{
			MinVersion: tls.VersionTLS13,
			ServerName: name,
			// There is no CA to verify by yet but the one that the token pins, and
			// VerifyConnection does all that is skipped here by that one.
			InsecureSkipVerify: true, //nolint:gosec // verified by pin below
			VerifyConnection:   func(cs tls.ConnectionState) error { return verifyPinned(cs, pin, name) },
		})
		if err == nil {
			return resp, nil
		}
		last = fmt.Errorf("%s: %w", addr, err)
		if code := fault.CodeOf(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			return nil, last
		}
	}
	return nil, last
}

func registerAt(ctx context.Context, cfg EnrolConfig, addr string, req *nodev1.RegisterRequest, config *tls.Config) (*nodev1.RegisterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolWait)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}, cfg.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return nodev1.NewEnrolServiceClient(conn).Register(ctx, req)
}

// verifyPinned accepts only a control plane whose chain ends with the pinned CA.
func verifyPinned(cs tls.ConnectionState, pin [sha256.Size]byte, name string) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range cs.PeerCertificates[1:] {
		if sha256.Sum256(c.Raw) == pin {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return errors.New("the server did not show the CA that the join token names: this is another control plane, or somebody in between")
	}
	leaf := cs.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return err
	}
	return isControl(leaf)
}

// isControl tells the control plane's certificate from that of a node.
func isControl(leaf *x509.Certificate) error {
	for _, u := range leaf.URIs {
		if u.String() == controlURI {
			return nil
		}
	}
	return errors.New("the server's certificate is not that of the control plane")
}

const (
	joinPrefix   = "pst_join_"
	maxJoinBytes = 256
)

// joinPin is the SHA-256 of the CA that a join token names. The token's other parts
// are the control plane's.
func joinPin(token secret.Bytes) (pin [sha256.Size]byte, err error) {
	text := string(token.Reveal())
	if len(text) > maxJoinBytes {
		return pin, errors.New("this is not a join token: it is too long")
	}
	rest, ok := strings.CutPrefix(text, joinPrefix)
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 || len(parts[2]) != 2*len(pin) {
		return pin, errors.New("this is not a join token: make one with: postern nodes enrol NAME")
	}
	if _, err := hex.Decode(pin[:], []byte(parts[2])); err != nil {
		return pin, errors.New("this is not a join token: make one with: postern nodes enrol NAME")
	}
	return pin, nil
}

func holdsPinned(bundle []byte, pin [sha256.Size]byte) bool {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if sha256.Sum256(block.Bytes) == pin {
			return true
		}
	}
	return false
}

// request is a certificate request for a key. It asks for nothing by itself: the control
// plane says what a node is.
func request(key crypto.Signer) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return csr, nil
}

func serverName(configured, addr string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("address of the control plane: %w", err)
	}
	return host, nil
}
