package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

const canary = "canary-91d4c2"

// control lends for a minute, and extends by a minute up to its bound.
type control struct {
	mu       sync.Mutex
	key      []byte
	bound    time.Time
	fail     error // of RenewLease
	lose     error // of Release
	renewed  int
	released map[string]int
	change   func(*nodev1.LeaseResponse)
}

func (c *control) Lease(_ context.Context, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := "l-" + req.GetSession()
	plain, err := proto.Marshal(&nodev1.Credential{Account: "app", Password: []byte(canary), Certificate: []byte("C"), PrivateKey: []byte(canary)})
	if err != nil {
		return nil, err
	}
	sealed, err := secret.SealTo(c.key, secret.CredentialInfo("node-1", id, req.GetSession()), plain)
	if err != nil {
		return nil, err
	}
	resp := &nodev1.LeaseResponse{Lease: id, Sealed: sealed}
	resp.ExpireTime, resp.RenewTime = c.times()
	if c.change != nil {
		c.change(resp)
	}
	return resp, nil
}

func (c *control) times() (expire, renew *timestamppb.Timestamp) {
	end := time.Now().Add(time.Minute)
	if !end.Before(c.bound) {
		return timestamppb.New(c.bound), nil
	}
	return timestamppb.New(end), timestamppb.New(time.Now().Add(40 * time.Second))
}

func (c *control) RenewLease(context.Context, *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewed++
	if c.fail != nil {
		return nil, c.fail
	}
	r := &nodev1.RenewLeaseResponse{}
	r.ExpireTime, r.RenewTime = c.times()
	return r, nil
}

func (c *control) Release(_ context.Context, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lose != nil {
		return nil, c.lose
	}
	c.released[req.GetLease()]++
	return &nodev1.ReleaseResponse{}, nil
}

func (c *control) set(change func(*control)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *control) renewals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

// newBook is a Book that runs until the test ends.
func newBook(t testing.TB) (*Book, *control, *bytes.Buffer, *run.Group) {
	t.Helper()
	key, err := secret.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &control{key: key.PublicKey(), bound: time.Now().Add(time.Hour), released: map[string]int{}}
	var log bytes.Buffer
	b := NewBook(Config{Node: "node-1", Key: func() *secret.PrivateKey { return key }, Control: c, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	g := run.New(context.Background())
	g.Go("leases", b.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if strings.Contains(log.String(), canary) {
			t.Errorf("the log holds a secret: %s", log.String())
		}
	})
	return b, c, &log, g
}

func take(t testing.TB, b *Book, session postern.SessionID) *Lease {
	t.Helper()
	l, err := b.Take(context.Background(), session, "g-1", "crm", engine.PurposeSession)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUseGivesACopyAndWipesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c, _, _ := newBook(t)
		l := take(t, b, "s-1")
		var kept []byte
		for range 2 {
			err := l.Use(func(cr *engine.Credential) error {
				if cr.Account != "app" || string(cr.Password.Reveal()) != canary || string(cr.PrivateKey.Reveal()) != canary || string(cr.Certificate) != "C" {
					t.Errorf("credential = %v", cr)
				}
				kept = cr.Password.Reveal()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(kept, make([]byte, len(kept))) {
				t.Error("the copy was not wiped")
			}
		}
		if l.Err() != nil || b.Len() != 1 {
			t.Errorf("error %v, %d leases", l.Err(), b.Len())
		}
		held := l.held.Password.Reveal()
		for range 2 {
			if err := l.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		<-l.Done()
		if !bytes.Equal(held, make([]byte, len(held))) {
			t.Error("the credential was not wiped")
		}
		if err := l.Use(func(*engine.Credential) error { return nil }); err == nil || b.Len() != 0 || c.released["l-s-1"] != 1 {
			t.Errorf("after Release: use %v, %d leases, %v", err, b.Len(), c.released)
		}
		if s := fmt.Sprintf("%v %+v", l.held, l.held); strings.Contains(s, canary) {
			t.Error("a lease prints its secret")
		}
	})
}

func TestRenewsUntilTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c, _, _ := newBook(t)
		first := take(t, b, "s-1")
		time.Sleep(30 * time.Minute)
		second := take(t, b, "s-2")
		time.Sleep(29*time.Minute + 59*time.Second)
		if first.Err() != nil || second.Err() != nil {
			t.Fatalf("ended before their bound: %v, %v", first.Err(), second.Err())
		}
		time.Sleep(2 * time.Second)
		<-first.Done()
		<-second.Done()
		var r *postern.Refusal
		if !errors.As(first.Err(), &r) || r.Code != postern.CodeKilled || !strings.Contains(r.Reason, "expired") {
			t.Errorf("error = %v", first.Err())
		}
		if n := c.renewals(); n < 100 || n > 200 {
			t.Errorf("%d renewals for 90 minutes", n)
		}
	})
}

func TestExpiresWhenItCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c, _, _ := newBook(t)
		c.set(func(c *control) { c.fail = fault.New(codes.Unavailable, "away") })
		l := take(t, b, "s-1")
		time.Sleep(59 * time.Second)
		if l.Err() != nil {
			t.Errorf("ended while it was good: %v", l.Err())
		}
		if n := c.renewals(); n < 3 || n > 25 {
			t.Errorf("%d tries in 20 seconds", n)
		}
		time.Sleep(2 * time.Second)
		<-l.Done()
	})
}

func TestComesBackWhenTheControlPlaneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c, _, _ := newBook(t)
		c.set(func(c *control) { c.fail = fault.New(codes.Unavailable, "away") })
		l := take(t, b, "s-1")
		time.Sleep(50 * time.Second)
		c.set(func(c *control) { c.fail = nil })
		time.Sleep(10 * time.Minute)
		if l.Err() != nil {
			t.Errorf("ended: %v", l.Err())
		}
	})
}

func TestEndsWhenRevoked(t *testing.T) {
	for _, err := range []error{
		fault.New(codes.FailedPrecondition, "the lease has ended").WithKind("killed"),
		fault.New(codes.PermissionDenied, "grant is over"),
		&postern.Refusal{Code: postern.CodeKilled, Reason: "the lease has ended"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, c, _, _ := newBook(t)
			c.set(func(c *control) { c.fail = err })
			l := take(t, b, "s-1")
			time.Sleep(41 * time.Second)
			select {
			case <-l.Done():
			default:
				t.Errorf("%v: the lease lives on", err)
			}
		})
	}
}

func TestTheSameLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _, _ := newBook(t)
		if first, again := take(t, b, "s-1"), take(t, b, "s-1"); first != again || b.Len() != 1 {
			t.Error("one session has two leases")
		}
	})
}

func TestStoppingEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c, _, g := newBook(t)
		l, lost := take(t, b, "s-1"), take(t, b, "s-2")
		c.set(func(c *control) { c.lose = fault.New(codes.Unavailable, "away") })
		if err := lost.Release(t.Context()); err == nil {
			t.Error("a release that did not arrive is nil")
		}
		c.set(func(c *control) { c.lose = nil })
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		<-l.Done()
		if c.released["l-s-1"] != 1 {
			t.Errorf("released %v", c.released)
		}
		if err := lost.Release(t.Context()); err != nil || c.released["l-s-2"] != 1 {
			t.Errorf("released again: %v, %v", err, c.released)
		}
		if _, err := b.Take(t.Context(), "s-3", "g-1", "crm", engine.PurposeSession); err == nil || c.released["l-s-3"] != 1 {
			t.Errorf("taken after the stop: %v, %v", err, c.released)
		}
	})
}

func TestAnswersThatAreRefused(t *testing.T) {
	other, err := secret.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*nodev1.LeaseResponse){
		"no id":       func(r *nodev1.LeaseResponse) { r.Lease = "" },
		"long id":     func(r *nodev1.LeaseResponse) { r.Lease = strings.Repeat("l", maxID+1) },
		"another id":  func(r *nodev1.LeaseResponse) { r.Lease = "l-other" },
		"no end":      func(r *nodev1.LeaseResponse) { r.ExpireTime = nil },
		"past":        func(r *nodev1.LeaseResponse) { r.ExpireTime = timestamppb.New(time.Now().Add(-time.Second)) },
		"nothing":     func(r *nodev1.LeaseResponse) { r.Sealed = nil },
		"huge":        func(r *nodev1.LeaseResponse) { r.Sealed = make([]byte, maxSealed+1) },
		"another key": func(r *nodev1.LeaseResponse) { r.Sealed, _ = secret.SealTo(other.PublicKey(), nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, c, _, _ := newBook(t)
				c.set(func(c *control) { c.change = change })
				if _, err := b.Take(t.Context(), "s-1", "g-1", "crm", engine.PurposeSession); err == nil || strings.Contains(err.Error(), canary) {
					t.Errorf("error = %v", err)
				}
			})
		})
	}
}

func FuzzOpen(f *testing.F) {
	key, err := secret.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	b := NewBook(Config{Node: "node-1", Key: func() *secret.PrivateKey { return key }, Now: func() time.Time { return now }})
	seed := func(c *nodev1.Credential) []byte {
		plain, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		return plain
	}
	f.Add([]byte(nil))
	f.Add(seed(&nodev1.Credential{Account: "app", Password: []byte(canary)}))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, plain []byte) {
		sealed, err := secret.SealTo(key.PublicKey(), secret.CredentialInfo("node-1", "l-1", "s-1"), plain)
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.open("s-1", "crm", &nodev1.LeaseResponse{Lease: "l-1", Sealed: sealed, ExpireTime: timestamppb.New(now.Add(time.Minute))})
		if err == nil && l.id != "l-1" {
			t.Error("another lease")
		}
	})
}
