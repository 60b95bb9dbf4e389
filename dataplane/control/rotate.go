package control

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/run"
)

const (
	renewRetry = time.Minute // at most, after a renewal that failed
	renewWait  = 20 * time.Second
	// renewLook is how often it is looked whether a renewal is due.
	renewLook = time.Minute
	// renewSpread is over how long the nodes of a fleet renew when the CAs have changed.
	renewSpread = 5 * time.Second
)

// renewAt is when to renew a certificate: at half of its life, a tenth of it sooner or
// later.
func renewAt(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life/2 - life/10 + rand.N(life/5+1))
}

// outdated tells whether other keys sign now, or are trusted now, than this identity knows.
func (id *Identity) outdated(u *nodev1.Update) bool {
	now := id.current.Load()
	if ca := u.GetCa(); len(ca) > 0 && !bytes.Equal(ca, now.CA) {
		return true
	}
	if len(u.GetSshHostCa()) == 0 || len(now.host) == 0 {
		return false
	}
	host, ok := now.host[0].PublicKey().(*ssh.Certificate)
	return ok && !bytes.Equal(host.SignatureKey.Marshal(), u.GetSshHostCa())
}

// rotate renews the identity for as long as the node runs.
func (c *Client) rotate(ctx context.Context) error {
	id := c.cfg.Identity
	if !maps.Equal(id.current.Load().Endpoints, c.cfg.Endpoints) || len(id.current.Load().NextKey) > 0 || id.current.Load().host == nil {
		c.renewUntil(ctx) // addresses have changed, an answer was lost, or it enrolled before nodes had SSH host keys
	}
	for ctx.Err() == nil {
		c.awaitRenewal(ctx, renewAt(id.current.Load().client.Leaf))
		if ctx.Err() != nil {
			return nil
		}
		c.renewUntil(ctx)
	}
	return nil
}

// awaitRenewal waits until wall time is at, or the CAs have changed. It looks at the time again
// and again: a timer stands still while the machine is suspended, and heeds no clock that is
// set, so that a certificate would end before it is renewed, and the node with it.
func (c *Client) awaitRenewal(ctx context.Context, at time.Time) {
	for ctx.Err() == nil {
		left := at.Sub(c.now())
		if left <= 0 {
			return
		}
		look := time.NewTimer(min(left, renewLook))
		select {
		case <-look.C:
		case <-c.renewal:
			c.log.Info("the CAs have changed, certificates are renewed")
			run.Pause(ctx, rand.N(renewSpread))
			look.Stop()
			return
		case <-ctx.Done():
		}
		look.Stop()
	}
}

// renewUntil tries until it has worked.
func (c *Client) renewUntil(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		err := c.renew(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.log.Error("certificate not renewed", "expires", c.cfg.Identity.Expires(), "error", err)
		run.Pause(ctx, min(renewRetry, time.Second+jitter(failures)))
	}
}

// renew trades the current certificate for a new one with a new key, and makes the
// stream begin anew with it.
func (c *Client) renew(ctx context.Context) error {
	id := c.cfg.Identity
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.current.Load().stored
	if len(next.NextKey) == 0 {
		_, der, err := newKey()
		if err != nil {
			return err
		}
		next.NextKey = der
		if len(next.SSHHostKey) == 0 {
			if _, next.SSHHostKey, err = newHostKey(); err != nil {
				return err
			}
		}
		if err := id.save(next); err != nil {
			return err
		}
	}
	key, err := parseKey(next.NextKey)
	if err != nil {
		return err
	}
	csr, err := request(key)
	if err != nil {
		return err
	}
	host, err := parseHostKey(next.SSHHostKey)
	if err != nil {
		return err
	}
	resp, err := c.askRenewal(ctx, &nodev1.RenewRequest{
		Csr: csr, HpkeKey: id.HPKEKey().PublicKey(), Endpoints: c.cfg.Endpoints, SshHostKey: host.PublicKey().Marshal(),
	})
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	next.Key, next.NextKey = next.NextKey, nil
	next.Certificate, next.ServerCertificate, next.CA = resp.GetCertificate(), resp.GetServerCertificate(), resp.GetCa()
	next.SSHHostCertificate = resp.GetSshHostCertificate()
	next.Endpoints = c.cfg.Endpoints
	if err := id.save(next); err != nil {
		return err
	}
	c.log.Info("certificate renewed", "expires", id.Expires())
	select {
	case c.rotated <- struct{}{}:
	default:
	}
	return nil
}

// askRenewal asks one address after another, on a connection of its own: the current
// one may be refused by now.
func (c *Client) askRenewal(ctx context.Context, req *nodev1.RenewRequest) (resp *nodev1.RenewResponse, err error) {
	for _, addr := range c.cfg.Addrs {
		resp, err = c.askRenewalAt(ctx, addr, req)
		if code := fault.CodeOf(err); err == nil || code != codes.Unavailable && code != codes.DeadlineExceeded {
			return resp, err
		}
	}
	return nil, err
}

func (c *Client) askRenewalAt(ctx context.Context, addr string, req *nodev1.RenewRequest) (*nodev1.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	conn, err := c.connect(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return nodev1.NewEnrolServiceClient(conn).Renew(ctx, req)
}
