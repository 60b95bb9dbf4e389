package fleet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// Change is what somebody between people and the API does to the list of nodes.
type Change struct {
	Address        string // every node has this address
	DropFirst      bool
	DropSignature  bool
	BreakSignature bool
}

// A Between is a TLS proxy before the API that reads and changes what goes through it.
// It is trusted as a server, as a load balancer that ends TLS would be.
type Between struct {
	addr, ca string
	token    string
	changed  atomic.Int64
}

// Env points "postern" at it. A login is for one address, so the token comes along.
func (b *Between) Env() []string {
	return []string{"POSTERN_ADDR=" + b.addr, "POSTERN_CA=" + b.ca, "POSTERN_TOKEN=" + b.token}
}

// Changed counts the lists that went through.
func (b *Between) Changed() int64 { return b.changed.Load() }

// Between starts one, and gives it to a person.
func (f *Fleet) Between(t testing.TB, who string, c Change) *Between {
	t.Helper()
	target, err := url.Parse(f.Addr)
	if err != nil {
		t.Fatal(err)
	}
	b := &Between{token: f.APIToken(t, who)}
	rp := httputil.NewSingleHostReverseProxy(target)
	rp.Transport = f.HTTPClient(t).Transport
	rp.ModifyResponse = func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Path, "/ListEndpoints") || r.StatusCode != http.StatusOK {
			return nil
		}
		b.changed.Add(1)
		return change(r, c)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept-Encoding", "identity") // so that answers can be changed
		rp.ServeHTTP(w, r)
	}))
	cert, own := selfSigned(t)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	real, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	b.addr = srv.URL
	b.ca = f.File(t, "between-ca.pem", string(own)+string(real))
	return b
}

// change rewrites one answer in place; the signature stays what it was unless told.
func change(r *http.Response, c Change) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	resp, list := &apiv1.ListEndpointsResponse{}, &apiv1.EndpointList{}
	if err := proto.Unmarshal(body, resp); err != nil {
		return err
	}
	if err := proto.Unmarshal(resp.GetList(), list); err != nil {
		return err
	}
	if c.DropFirst {
		list.Nodes = list.GetNodes()[1:]
	}
	for _, n := range list.GetNodes() {
		for p := range n.GetAddresses() {
			if c.Address != "" {
				n.Addresses[p] = c.Address
			}
		}
	}
	if c.Address != "" || c.DropFirst {
		if resp.List, err = proto.Marshal(list); err != nil {
			return err
		}
		resp.Endpoints = list
	}
	if c.DropSignature {
		resp.Signature = nil
	}
	if c.BreakSignature {
		resp.Signature[len(resp.Signature)-1] ^= 1
	}
	if body, err = proto.Marshal(resp); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func selfSigned(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "between"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
