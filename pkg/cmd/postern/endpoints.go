package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

// endpointList reads the nodes that reach a resource. The list is signed by the control
// plane's CA, so that who stands between cannot send people elsewhere.
func (a *app) endpointList(ctx context.Context, api *api, resource string) (*apiv1.EndpointList, error) {
	resp, err := api.access.ListEndpoints(ctx, connect.NewRequest(&apiv1.ListEndpointsRequest{Resource: resource}))
	if err != nil {
		return nil, err
	}
	if err := a.verifyList(resp.Msg.GetList(), resp.Msg.GetSignature()); err != nil {
		return nil, err
	}
	var list apiv1.EndpointList
	if err := proto.Unmarshal(resp.Msg.GetList(), &list); err != nil {
		return nil, fmt.Errorf("the node list: %w", err)
	}
	if age := time.Since(list.GetTime().AsTime()).Abs(); age > maxListAge {
		return nil, fmt.Errorf("the node list was signed at %s, which is %s from now: it is an old one, or a clock is wrong", when(list.GetTime()), age.Round(time.Second))
	}
	return &list, nil
}

// maxListAge is how far from now a signed list may have been made: whoever stands
// between must not be able to send people to the nodes of last month.
const maxListAge = 10 * time.Minute

func (a *app) verifyList(list, signature []byte) error {
	if a.ca == "" {
		return errors.New("the node list cannot be verified without the CA: set POSTERN_CA")
	}
	rest, err := os.ReadFile(a.ca)
	if err != nil {
		return err
	}
	h := sha256.New()
	h.Write([]byte("postern/endpoints/v1"))
	h.Write(list)
	sum := h.Sum(nil)
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok && ecdsa.VerifyASN1(key, sum, signature) {
			return nil
		}
	}
	return errors.New("the node list is not signed by the CA of POSTERN_CA")
}

// probeTimeout is how long a node may take to accept a connection.
const probeTimeout = 3 * time.Second

// near is one node and how far away it is.
type near struct {
	node *apiv1.NodeEndpoint
	addr string
	rtt  time.Duration
}

// nearest measures the nodes that reach a resource by a protocol, all at once, and returns
// those that answer, the nearest first: at least one.
func (a *app) nearest(ctx context.Context, api *api, resource, protocol string) ([]near, error) {
	list, err := a.endpointList(ctx, api, resource)
	if err != nil {
		return nil, err
	}
	var all []near
	for _, n := range list.GetNodes() {
		if addr := n.GetAddresses()[protocol]; addr != "" {
			all = append(all, near{node: n, addr: addr})
		}
	}
	if len(all) == 0 {
		return nil, fail(exitUnreachable, statusHint, "no node that is connected reaches %s by %s", resource, protocol)
	}
	silent := make([]string, len(all))
	g := run.New(ctx)
	for i := range all {
		g.Go("probe", func(ctx context.Context) error {
			d := net.Dialer{Timeout: probeTimeout}
			began := time.Now()
			c, err := d.DialContext(ctx, "tcp", resolvable(all[i].addr))
			if err != nil {
				silent[i] = all[i].node.GetNode() + ": " + err.Error()
				return nil
			}
			all[i].rtt = max(time.Since(began), 1)
			return c.Close()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n near) bool { return n.rtt == 0 })
	if len(all) == 0 {
		return nil, fail(exitUnreachable, statusHint, "no node that reaches %s answers: %s", resource, strings.Join(silent, "; "))
	}
	slices.SortFunc(all, func(x, y near) int { return int(x.rtt - y.rtt) })
	return all, nil
}

// statusHint is what to do where nodes cannot be reached.
const statusHint = "postern status lists the nodes that clients can use"

// unreachable reports whether somebody could not be reached: of nodes, whether there is none to
// go through.
func unreachable(err error) bool {
	var f failure
	return errors.As(err, &f) && f.code == exitUnreachable
}

// resolvable is the address as every resolver finds it: names below localhost are
// loopback (RFC 6761), which not all know.
func resolvable(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}
