package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/run"
)

const (
	kindLeader  = "leader"
	leaseTTL    = 10 * time.Second // a leader that vanished is replaced after this
	resignWait  = 2 * time.Second
	retryLeader = time.Second
)

// Lead implements store.Store.
func (s *Store) Lead(ctx context.Context, name string, fn func(ctx context.Context, guard store.Op) error) error {
	for ctx.Err() == nil {
		if err := s.lead(ctx, name, fn); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "leadership ended", "election", name, "error", err)
		}
		run.Pause(ctx, retryLeader/2+rand.N(retryLeader))
	}
	return context.Cause(ctx)
}

// lead waits to be elected, runs fn once, and resigns.
func (s *Store) lead(ctx context.Context, name string, fn func(context.Context, store.Op) error) error {
	lease, err := s.client.Grant(ctx, int64(leaseTTL/time.Second))
	if err != nil {
		return fmt.Errorf("etcd: lease: %w", err)
	}
	defer s.revoke(ctx, lease.ID)
	session, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("etcd: keep the lease alive: %w", err)
	}
	defer session.Orphan() // revoke above ends the lease

	// A campaign must not outlive its lease: it would wait for a place that it no longer has.
	campaign, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := run.New(campaign)
	watch.Go("lease", func(ctx context.Context) error {
		select {
		case <-session.Done():
			cancel(errors.New("etcd: the lease has ended"))
		case <-ctx.Done():
		}
		return nil
	})
	defer func() { cancel(nil); _ = watch.Wait() }() // it returns no error

	election := concurrency.NewElection(session, prefix+kindLeader+"/"+name)
	host, _ := os.Hostname() // only for people who look
	if err := election.Campaign(campaign, host); err != nil {
		return fmt.Errorf("etcd: campaign: %w", err)
	}
	key, _ := keyOf([]byte(election.Key()))
	guard := store.Op{Key: key, Check: true, If: election.Rev()}

	// The key is written once, so that its revision is the one of its making: gone or made
	// anew, the guard fails.
	parts := run.New(campaign)
	parts.Go(strings.TrimSpace(name), func(ctx context.Context) error { return fn(ctx, guard) })
	err = parts.Wait()
	if err == nil && campaign.Err() != nil {
		err = context.Cause(campaign)
	}
	return err
}

// revoke gives the lease, and with it the election, back even when ctx is done.
func (s *Store) revoke(ctx context.Context, id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignWait)
	defer cancel()
	if _, err := s.client.Revoke(ctx, id); err != nil {
		s.logger.DebugContext(ctx, "lease not given back", "error", err)
	}
}
