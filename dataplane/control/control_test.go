package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock(func() (least, most time.Duration) { return 0, 0 })
		time.Sleep(time.Minute)
		if c.staleness() != math.MaxInt64 {
			t.Error("something is known before the first echo")
		}
		sent := c.ping()
		time.Sleep(3 * time.Second) // on its way there and back
		c.echoed(sent, 2*time.Second)
		if got := c.staleness(); got != 5*time.Second {
			t.Errorf("staleness %s, want the way and the replica's own", got)
		}
		c.echoed(sent+int64(time.Hour), 0) // never sent
		c.echoed(0, 0)
		c.echoed(c.ping(), -time.Second)
		if got := c.staleness(); got != 5*time.Second {
			t.Errorf("staleness %s after echoes that cannot be", got)
		}
		c.echoed(c.ping(), time.Hour) // of a replica that is far behind: what is known stays known
		if got := c.staleness(); got != 5*time.Second {
			t.Errorf("staleness %s after a worse echo", got)
		}
		c.deny()
		if c.staleness() != math.MaxInt64 {
			t.Error("a denied node goes on")
		}
		c.echoed(c.ping(), 0)
		if got := c.staleness(); got != 0 {
			t.Errorf("staleness %s once it is let in again", got)
		}
		c.forget()
		if c.staleness() != math.MaxInt64 {
			t.Error("another epoch counts")
		}
		c.echoed(c.ping(), math.MaxInt64) // of a replica that knows nothing
		time.Sleep(time.Second)
		if got := c.staleness(); got < endless {
			t.Errorf("staleness %s by a replica that is endlessly behind", got)
		}
	})
}

// What the machine was suspended counts, though the monotonic clock stood still.
func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept time.Duration
		c := newClock(func() (least, most time.Duration) { return time.Hour + slept, time.Hour + slept })
		sleep := func(d time.Duration, wall time.Duration) {
			slept += d
			c.ahead -= wall // wall time has gone on by so much more since
		}
		time.Sleep(time.Second)
		c.echoed(c.ping(), 0)
		sleep(10*time.Minute, 10*time.Minute)
		if got := c.staleness(); got != 10*time.Minute {
			t.Errorf("staleness %s after a suspension of ten minutes", got)
		}
		sent := c.ping()
		sleep(time.Minute, time.Minute)
		c.echoed(sent, 0) // it waited all that time
		if got := c.staleness(); got != time.Minute {
			t.Errorf("staleness %s by an echo of a minute ago", got)
		}
		sleep(0, time.Hour)
		if got := c.staleness(); got != time.Minute {
			t.Errorf("staleness %s where only wall time was set", got)
		}
		sleep(time.Minute, 0) // wall time was set back meanwhile
		c.ping()
		if got := c.staleness(); got != 2*time.Minute {
			t.Errorf("staleness %s at the next ping, want both minutes", got)
		}
	})
}

// To look how long the machine was suspended takes a while, now more and now less: the policy
// is never younger by that.
func TestLookingTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := 5 * time.Millisecond
		var slept time.Duration
		c := newClock(func() (least, most time.Duration) { return slept - took, slept + took })
		took = 9 * time.Millisecond
		c.echoed(c.ping(), 0)
		time.Sleep(time.Second)
		took = 2 * time.Millisecond
		c.ping()
		if got := c.staleness(); got < time.Second {
			t.Errorf("staleness %s after a second", got)
		}
		slept = time.Minute
		c.ping()
		if got := c.staleness(); got < time.Minute+time.Second {
			t.Errorf("staleness %s after a second, and a minute of suspension", got)
		}
	})
}

func TestJitter(t *testing.T) {
	for failures := range 100 {
		bound := min(maxBackoff, minBackoff<<min(failures, 20))
		for range 100 {
			if d := jitter(failures); d < 0 || d > bound {
				t.Fatalf("after %d failures %s", failures, d)
			}
		}
	}
}

func grantBytes(t testing.TB, change func(*typesv1.Grant)) []byte {
	t.Helper()
	g := &typesv1.Grant{
		Id: "g", Subject: &typesv1.Subject{Name: "alice"}, Task: "t", State: typesv1.GrantState_GRANT_STATE_ACTIVE,
		EndTime: timestamppb.New(time.Now().Add(time.Hour)), MinVersion: &typesv1.Version{Epoch: "e", Revision: 1},
	}
	if change != nil {
		change(g)
	}
	b, err := proto.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignatures(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := snapshot.New()
	h.Apply(&nodev1.Update{Version: &typesv1.Version{Epoch: "e", Revision: 1}, Snapshot: true, GrantKeys: map[string][]byte{"k": public}})
	c := New(Config{Snapshot: h})
	b := grantBytes(t, nil)
	good := &typesv1.SignedGrant{Grant: b, Signature: ed25519.Sign(private, append([]byte(grantContext), b...)), KeyId: "k"}
	if g, err := c.verify(good); err != nil || g.ID != "g" {
		t.Fatalf("a good grant: %v, %v", g, err)
	}
	for name, spoil := range map[string]func(*typesv1.SignedGrant){
		"nothing":             func(s *typesv1.SignedGrant) { proto.Reset(s) },
		"no signature":        func(s *typesv1.SignedGrant) { s.Signature = nil },
		"another key":         func(s *typesv1.SignedGrant) { s.KeyId = "l" },
		"without its context": func(s *typesv1.SignedGrant) { s.Signature = ed25519.Sign(private, s.Grant) },
		"changed":             func(s *typesv1.SignedGrant) { s.Grant = grantBytes(t, func(g *typesv1.Grant) { g.Task = "u" }) },
		"over its length":     func(s *typesv1.SignedGrant) { s.Grant = make([]byte, maxGrantBytes+1) },
	} {
		s := proto.CloneOf(good)
		spoil(s)
		if g, err := c.verify(s); err == nil {
			t.Errorf("%s: %v", name, g)
		}
	}
}

func TestRefusals(t *testing.T) {
	denied := fault.New(codes.PermissionDenied, "you may not").WithKind("no-grant")
	denied.Violations = []fault.Violation{{Field: "hint", Reason: "ask"}, {Field: "rule", Reason: "r"}, {Field: "detail", Reason: "d"}}
	for name, tc := range map[string]struct {
		err  error
		want postern.Refusal
	}{
		"a refusal":     {denied, postern.Refusal{Code: postern.CodeNoGrant, Reason: "you may not", Hint: "ask", Rule: "r", Detail: "d"}},
		"over the wire": {denied.GRPCStatus().Err(), postern.Refusal{Code: postern.CodeNoGrant, Reason: "you may not", Hint: "ask", Rule: "r", Detail: "d"}},
		"unreachable":   {fault.New(codes.Unavailable, "10.0.0.1: connection refused"), postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane cannot be reached from this node"}},
		"of the node":   {fault.New(codes.PermissionDenied, "node n1 is not enrolled"), postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane could not open the grant"}},
		"anything":      {errors.New("secret"), postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane could not open the grant"}},
	} {
		var got *postern.Refusal
		if !errors.As(refuse(context.Background(), "open the grant", tc.err), &got) {
			t.Fatalf("%s is no refusal", name)
		}
		if got.Code != tc.want.Code || got.Reason != tc.want.Reason || got.Rule != tc.want.Rule || got.Detail != tc.want.Detail || tc.want.Hint != "" && got.Hint != tc.want.Hint {
			t.Errorf("%s: %+v", name, got)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	killed := &postern.Refusal{Code: postern.CodeKilled, Reason: "killed"}
	cancel(killed)
	if err := refuse(ctx, "x", denied); !errors.Is(err, killed) {
		t.Errorf("a session that was killed meanwhile is told %v", err)
	}
}

func TestJoinToken(t *testing.T) {
	pin := sha256.Sum256([]byte("ca"))
	good := "pst_join_0123456789abcdef.0123456789abcdef0123456789abcdef." + hex.EncodeToString(pin[:])
	if got, err := joinPin(secret.FromString(good)); err != nil || got != pin {
		t.Errorf("%x, %v", got, err)
	}
	for _, bad := range []string{"", "x", good[4:], good + "0", strings.Replace(good, ".", "", 1), good[:len(good)-2] + "zz", good + strings.Repeat("0", 500)} {
		if _, err := joinPin(secret.FromString(bad)); err == nil {
			t.Errorf("%.40q is taken for a join token", bad)
		} else if strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

// selfSigned is a certificate that stands for all of them.
func selfSigned(t *testing.T, key any, public any, uri string) []byte {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, DNSNames: []string{"postern-control"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestIdentityOnDisk(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotEnrolled) {
		t.Fatalf("an empty directory: %v", err)
	}
	key, keyDER, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	hpke, err := secret.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hpke.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cert := pemOf(selfSigned(t, key, key.Public(), "postern://node/n1"))
	s := stored{Name: "n1", CA: cert, Certificate: cert, ServerCertificate: cert, Key: keyDER, HPKEKey: raw.Reveal()}
	id := &Identity{dir: dir}
	if err := id.save(s); err != nil {
		t.Fatal(err)
	}
	if again, err := LoadIdentity(dir); err != nil || again.Name() != "n1" {
		t.Fatalf("read back: %v", err)
	}
	if _, err := OpenIdentity(t.Context(), dir, "", EnrolConfig{Name: "n2"}); err == nil || !strings.Contains(err.Error(), `holds the identity of "n1", and the configuration says "n2"`) {
		t.Errorf("under another name: %v", err)
	}
	if again, err := OpenIdentity(t.Context(), dir, "", EnrolConfig{Name: "n1"}); err != nil || again.Name() != "n1" {
		t.Errorf("under its own name: %v", err)
	}
	// What does not belong together is neither written nor read.
	_, other, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	bad := s
	bad.Key = other
	if err := id.save(bad); err == nil {
		t.Error("a certificate was saved with another key")
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files are left", len(files))
	}
	if err := os.Chmod(filepath.Join(dir, identityFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a file that others can read: %v", err)
	}
}

func FuzzReadGrant(f *testing.F) {
	f.Add(grantBytes(f, nil))
	f.Add([]byte{})
	now := time.Now()
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := readGrant(b, now)
		if err == nil && (g.ID == "" || g.Task == "" || g.Subject.Name == "" || !g.End.After(now) || g.MinVersion.IsZero()) {
			t.Errorf("a grant that allows too much: %+v", g)
		}
	})
}

func FuzzJoinPin(f *testing.F) {
	f.Add("pst_join_0123456789abcdef.0123456789abcdef0123456789abcdef." + strings.Repeat("ab", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := joinPin(secret.FromString(s))
		if err == nil && !strings.EqualFold(s[len(s)-64:], hex.EncodeToString(pin[:])) {
			t.Errorf("%q pins %x", s, pin)
		}
	})
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// sent is a stream of which what is sent is kept.
type sent struct {
	nodev1.SyncService_SyncClient
	all []*nodev1.SyncRequest
}

func (s *sent) Send(m *nodev1.SyncRequest) error {
	s.all = append(s.all, proto.CloneOf(m))
	return nil
}

// TestReachableIsToldFirst: who knows that a policy is enforced here knows what it can reach.
func TestReachableIsToldFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		report := &nodev1.NodeReport{Sessions: 1}
		stream := &sent{}
		s := &syncing{
			Client: &Client{cfg: Config{Report: func() *nodev1.NodeReport { return proto.CloneOf(report) }}, clock: newClock(func() (least, most time.Duration) { return 0, 0 })},
			conn:   stream, out: make(chan *nodev1.SyncRequest, outgoing),
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.send(ctx) }()
		s.out <- &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Hello{Hello: &nodev1.SyncHello{}}}
		synctest.Wait()
		ack := &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ack{Ack: &nodev1.SyncAck{}}}
		told := func() (kinds []string) {
			synctest.Wait()
			for _, m := range stream.all {
				switch {
				case m.GetReport() != nil:
					kinds = append(kinds, "report of "+strings.Join(m.GetReport().GetResources(), " "))
				case m.GetAck() != nil:
					kinds = append(kinds, "ack")
				}
			}
			stream.all = nil
			return kinds
		}
		told()
		report.Resources = []string{"warehouse"}
		s.out <- ack
		if got := told(); !slices.Equal(got, []string{"report of warehouse", "ack"}) {
			t.Errorf("a node that can reach more says %q", got)
		}
		report.Sessions = 2 // which can wait
		s.out <- ack
		if got := told(); !slices.Equal(got, []string{"ack"}) {
			t.Errorf("a node that can reach what it could says %q", got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
