package session

import (
	"context"
	"sync"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// vouchTimeout bounds one asking, so that a lost control plane is told in time.
	vouchTimeout = 5 * time.Second
	// vouchLeast is for how long a token must be good still when it is used.
	vouchLeast = 5 * time.Second
	maxVouched = 8 << 10 // bytes of a token
)

// voucher keeps the token that tells the resource who asks, and renews it when it is used.
type voucher struct {
	mu           sync.Mutex // held while the control plane is asked: others wait for its answer
	token        string
	renew, until time.Time
}

// Vouch is the token; where the control plane is not heard, the last one while it is good.
func (s *Session) Vouch(ctx context.Context) (string, error) {
	v := &s.voucher
	v.mu.Lock()
	defer v.mu.Unlock()
	now := s.k.cfg.Now()
	if now.Before(v.renew) {
		return v.token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, vouchTimeout)
	defer cancel()
	resp, err := s.k.cfg.Control.Vouch(ctx, &nodev1.VouchRequest{Grant: string(s.grant.ID), Resource: string(s.terms.Resource), Session: string(s.id)})
	unheard := err != nil && postern.AsRefusal(err).Code == postern.CodeUnavailable
	switch {
	case unheard && now.Add(vouchLeast).Before(v.until):
		v.renew = now.Add(vouchTimeout) // the requests that come next do not wait as well
		return v.token, nil
	case err != nil:
		return "", err
	case resp.GetToken() == "" || len(resp.GetToken()) > maxVouched:
		return "", &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane did not say who asks in a form that can be sent", Hint: "tell the operators"}
	}
	v.token, v.renew, v.until = resp.GetToken(), resp.GetRenewTime().AsTime(), resp.GetExpireTime().AsTime()
	return v.token, nil
}
