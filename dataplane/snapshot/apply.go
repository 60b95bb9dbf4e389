package snapshot

import (
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Apply makes an update the policy, whole. An object that does not compile is rejected
// in the ack and whatever needs it is denied; the rest applies. The answer is nil, and
// nothing has changed, for an update that does not follow: the node must then ask for
// a snapshot.
func (h *Holder) Apply(u *nodev1.Update) *nodev1.SyncAck {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.current.Load()
	v := version(u.GetVersion())
	if !follows(now.covered, v, u.GetSnapshot()) {
		return nil
	}
	rules, locks, err := h.merge(u)
	if err != nil {
		return nil
	}
	if now.covered.Epoch != v.Epoch {
		now = &view{policy: now.policy, updates: now.updates} // of another store; none of it counts
	}
	next := &view{
		policy: now.policy, rejections: now.rejections, covered: v, updates: now.updates + 1,
		hash: hashOf(rules, locks), ended: endings(now, u), keys: keys(now, u), clientCAs: clientCAs(now, u), userCAs: userCAs(now, u), issuers: issuers(now, u),
	}
	switch {
	case u.GetSnapshot() || says(u, false):
		next.policy, next.rejections = compile(v, now, rules, locks)
	case says(u, true): // locks alone cost no more than themselves
		next.policy, next.rejections = lock(v, now, locks)
	}
	h.rules, h.locks = rules, locks
	h.swap(next)
	return &nodev1.SyncAck{Version: u.GetVersion(), ContentHash: next.hash[:], Rejections: next.rejections}
}

// Advance notes that nothing up to v changed what is enforced. It is ignored where v
// does not follow.
func (h *Holder) Advance(v postern.Version) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.current.Load()
	if now.covered.IsZero() || !v.Covers(now.covered) || v == now.covered {
		return
	}
	next := *now
	next.covered = v
	h.current.Store(&next)
	h.announce()
}

func (h *Holder) swap(v *view) {
	h.current.Store(v)
	h.announce()
	for ch := range h.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// announce wakes those who wait for a version.
func (h *Holder) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// follows reports whether an update to v may be applied over what is covered. Versions
// never go back within an epoch, and between epochs only a snapshot leads.
func follows(covered, v postern.Version, snapshot bool) bool {
	switch {
	case v.Epoch == "" || v.Revision <= 0:
		return false
	case covered.Epoch != v.Epoch:
		return snapshot
	}
	return v.Covers(covered)
}

// merge is what is held after u. An update that says nothing is a question whether both
// sides hold the same, and so every hash is found anew.
func (h *Holder) merge(u *nodev1.Update) (rules, locks set, err error) {
	rules, locks = h.rules, h.locks
	switch said := len(u.GetObjects()) + len(u.GetRemoved()); {
	case u.GetSnapshot():
		rules, locks = set{}, set{}
	case said+len(u.GetEndedGrants())+len(u.GetGrantKeys()) == 0:
		if rules, err = rules.rehash(); err != nil {
			return rules, locks, err
		}
		locks, err = locks.rehash()
		return rules, locks, err
	}
	if rules, err = rules.with(u, false); err != nil {
		return rules, locks, err
	}
	if locks, err = locks.with(u, true); err != nil {
		return rules, locks, err
	}
	if n := len(rules.refs) + len(locks.refs); n > maxObjects {
		return rules, locks, fmt.Errorf("%d objects are more than %d", n, maxObjects)
	}
	return rules, locks, nil
}

// compile makes a policy of what is held; what was in that of now is not compiled again.
func compile(v postern.Version, now *view, rules, locks set) (*policy.Snapshot, []*nodev1.Rejection) {
	compiled, rejected := now.policy.Next(v, append(rules.objects(), locks.objects()...))
	return compiled, rejections(nil, rejected)
}

// lock puts other locks into the policy of now.
func lock(v postern.Version, now *view, locks set) (*policy.Snapshot, []*nodev1.Rejection) {
	locked, rejected := now.policy.WithLocks(v, locks.objects())
	stay := slices.DeleteFunc(slices.Clone(now.rejections), func(r *nodev1.Rejection) bool { return isLock(r.GetObject()) })
	return locked, rejections(stay, rejected)
}

func rejections(out []*nodev1.Rejection, rejected []policy.Rejection) []*nodev1.Rejection {
	for _, r := range rejected {
		out = append(out, &nodev1.Rejection{Object: r.Object, Reason: r.Reason})
	}
	slices.SortFunc(out, func(a, b *nodev1.Rejection) int { return cmp.Compare(a.GetObject(), b.GetObject()) })
	return out
}

// endings are the ended grants after u: those of before too, until their end.
func endings(now *view, u *nodev1.Update) map[postern.GrantID]ending {
	if len(u.GetEndedGrants()) == 0 && len(now.ended) == 0 {
		return now.ended
	}
	old := time.Now().Add(-endSlack)
	ended := map[postern.GrantID]ending{}
	for id, e := range now.ended {
		if e.until.After(old) {
			ended[id] = e
		}
	}
	for _, e := range u.GetEndedGrants() {
		ended[postern.GrantID(e.GetGrant())] = ending{e.GetReason(), e.GetEndTime().AsTime()}
	}
	return ended
}

// keys are the keys that sign grants after u. A key of a wrong size verifies nothing.
func keys(now *view, u *nodev1.Update) map[string]ed25519.PublicKey {
	if len(u.GetGrantKeys()) == 0 {
		return now.keys
	}
	keys := make(map[string]ed25519.PublicKey, len(u.GetGrantKeys()))
	for id, k := range u.GetGrantKeys() {
		if len(k) == ed25519.PublicKeySize {
			keys[id] = k
		}
	}
	return keys
}

// clientCAs are the CAs of grant certificates after u. One that cannot be read verifies
// nothing.
func clientCAs(now *view, u *nodev1.Update) *x509.CertPool {
	if len(u.GetClientCas()) == 0 {
		return now.clientCAs
	}
	var pool *x509.CertPool
	for _, der := range u.GetClientCas() {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if pool == nil {
			pool = x509.NewCertPool()
		}
		pool.AddCert(ca)
	}
	return pool
}

// userCAs are the CAs of SSH grant certificates after u, as clientCAs.
func userCAs(now *view, u *nodev1.Update) []ssh.PublicKey {
	if len(u.GetSshUserCas()) == 0 {
		return now.userCAs
	}
	var cas []ssh.PublicKey
	for _, wire := range u.GetSshUserCas() {
		if ca, err := ssh.ParsePublicKey(wire); err == nil {
			cas = append(cas, ca)
		}
	}
	return cas
}

// issuers are those at which people sign in after u.
func issuers(now *view, u *nodev1.Update) []*nodev1.Issuer {
	if len(u.GetGrantKeys()) == 0 {
		return now.issuers
	}
	return u.GetIssuers()
}

func version(v *typesv1.Version) postern.Version {
	return postern.Version{Epoch: v.GetEpoch(), Revision: v.GetRevision()}
}
