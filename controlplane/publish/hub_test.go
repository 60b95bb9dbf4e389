package publish_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

func TestANodeGetsItsShare(t *testing.T) {
	inHouse(t, func(h *house) {
		withMask := task("masked", "p", "near")
		withMask.GetTask().Spec.Permit[0].Mask = map[string]string{"id": "used"}
		withMask.GetTask().Spec.Approval = &typesv1.ApprovalRequirement{Scope: "session", Rule: "leads"}
		served := task("served", "p", "any") // of masks and rules that nothing else names
		served.GetTask().Spec.Permit = []*typesv1.Permit{{Path: "/mcp", Methods: []string{"POST"}, Detect: map[string]string{"email": "detected"}, Mcp: &typesv1.MCPPermit{Review: "reviewers"}}}
		labelled := task("labelled", "p")
		labelled.GetTask().Spec.Resources = &typesv1.ResourceSelector{Labels: map[string]string{"env": "prod"}}
		near := resource("near", map[string]string{"region": "eu-1"})
		near.GetResource().Metadata.Labels = map[string]string{"env": "prod"}
		near.GetResource().Metadata.Annotations = map[string]string{"note": "stays at home"}
		near.GetResource().Metadata.CreatedBy = "ada"
		binding := object.Bare("binding", "offer")
		binding.GetBinding().Spec = &typesv1.BindingSpec{Tasks: []string{"masked"}, Approval: &typesv1.ApprovalRequirement{Scope: "statement", Rule: "bosses"}}
		var masks []*typesv1.Object
		for _, n := range []string{"used", "detected", "unused"} {
			m := object.Bare("mask", n)
			m.GetMask().Spec = &typesv1.MaskSpec{Method: "null"}
			masks = append(masks, m)
		}
		var rules []*typesv1.Object
		for _, n := range []string{"leads", "bosses", "reviewers", "nobody"} {
			r := object.Bare("approvalrule", n)
			r.GetApprovalRule().Spec = &typesv1.ApprovalRuleSpec{All: []*typesv1.ApprovalQuorum{{Group: n, AtLeast: 1}}}
			rules = append(rules, r)
		}
		h.put(slices.Concat([]*typesv1.Object{
			near, resource("far", map[string]string{"region": "us-1"}), resource("any", nil),
			withMask, served, labelled, task("elsewhere", "p", "far"), binding,
			lockOn("mallory", &typesv1.LockSpec{Subject: "mallory", Reason: "gone"}),
			object.Bare("workload", "w"), object.Bare("rolebinding", "r"), node("n1", "eu-1", nil),
		}, masks, rules)...)

		p := h.connect("n1", snapshot.New())
		defer p.close()
		u := p.apply()
		got := refs(u)
		slices.Sort(got)
		want := []string{"approvalrule/bosses", "approvalrule/leads", "approvalrule/reviewers", "lock/mallory", "mask/detected", "mask/used", "resource/any", "resource/near", "task/labelled", "task/masked", "task/served"}
		if !slices.Equal(got, want) {
			t.Errorf("the node got %v, want %v", got, want)
		}
		if !u.GetSnapshot() || len(u.GetGrantKeys()) != 1 || len(u.GetClientCas()) != 1 || string(u.GetClientCas()[0]) != "a CA" {
			t.Errorf("snapshot %v with %d keys, want a snapshot with the key", u.GetSnapshot(), len(u.GetGrantKeys()))
		}
		for _, o := range u.GetObjects() {
			if m := object.Meta(o); m.GetCreatedBy() != "" || m.GetEtag() != "" || len(m.GetAnnotations()) > 0 {
				t.Errorf("%s left the house with %v", object.Ref(o), m)
			}
		}
	})
}

func TestDeltasFollowASnapshot(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "one", "db"), task("b", "one", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()

		v := h.put(task("a", "two", "db"))
		if u := p.apply(); u.GetSnapshot() || !slices.Equal(refs(u), []string{"task/a"}) || u.GetVersion().GetRevision() != v.Revision {
			t.Errorf("after a change: %v", u)
		}
		h.remove("task", "b")
		if u := p.apply(); !slices.Equal(u.GetRemoved(), []string{"task/b"}) || len(u.GetObjects()) > 0 {
			t.Errorf("after a removal: %v", u)
		}
		// What does not concern the node moves its version all the same.
		v = h.put(object.Bare("binding", "x"))
		if u := p.apply(); len(u.GetObjects()) > 0 || u.GetVersion().GetRevision() != v.Revision {
			t.Errorf("after a change elsewhere: %v", u)
		}
		if p.holder.Version() != v {
			t.Errorf("the node is at %s, want %s", p.holder.Version(), v)
		}
	})
}

func TestChangesAreMerged(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "first", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		synctest.Wait()
		began := time.Now()
		h.put(task("a", "0", "db"))
		if u := p.apply(); time.Since(began) != 0 || u.GetObjects()[0].GetTask().GetSpec().GetPurpose() != "0" {
			t.Errorf("after %s: %v, want the first change at once", time.Since(began), u)
		}
		var v postern.Version
		for i := range 4 {
			time.Sleep(time.Millisecond)
			v = h.put(task("a", fmt.Sprint(i+1), "db"))
		}
		u := p.apply()
		if u.GetVersion().GetRevision() != v.Revision || u.GetObjects()[0].GetTask().GetSpec().GetPurpose() != "4" {
			t.Errorf("got %v, want all that followed it in one", u)
		}
		if took := time.Since(began); took != 5*time.Millisecond {
			t.Errorf("it came %s after the first change", took)
		}
	})
}

func TestALockOvertakes(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		synctest.Wait()

		// Behind a change that waits, for one was published just now.
		h.put(task("a", "0.5", "db"))
		p.apply()
		before := p.holder.Version()
		h.put(task("a", "1", "db"))
		began := time.Now()
		h.put(lockOn("l1", &typesv1.LockSpec{Subject: "mallory", Reason: "gone"}))
		u := p.apply()
		if waited := time.Since(began); waited != 0 || !slices.Equal(refs(u), []string{"lock/l1"}) {
			t.Errorf("after %s: %v, want the lock at once and alone", waited, u)
		}
		if u.GetVersion().GetRevision() != before.Revision {
			t.Errorf("the lock promises revision %d, whose changes still wait", u.GetVersion().GetRevision())
		}
		if u := p.apply(); !slices.Equal(refs(u), []string{"task/a"}) {
			t.Errorf("then %v, want the task", u)
		}

		// Behind an update that the node does not confirm.
		h.put(task("a", "2", "db"))
		slow := p.update()
		h.put(task("a", "3", "db"))
		time.Sleep(time.Second)
		h.put(lockOn("l2", &typesv1.LockSpec{Subject: "eve", Reason: "gone"}))
		h.endGrant("g-1", "revoked", time.Now().Add(time.Hour))
		one := p.update()
		if !slices.Equal(refs(one), []string{"lock/l2"}) {
			t.Errorf("unconfirmed: %v, want the lock", one)
		}
		all := []*nodev1.Update{slow, one}
		if len(one.GetEndedGrants()) == 0 {
			two := p.update()
			if len(two.GetEndedGrants()) != 1 || two.GetEndedGrants()[0].GetReason() != "revoked" {
				t.Errorf("unconfirmed: %v, want the ended grant", two)
			}
			all = append(all, two)
		}
		for _, u := range all {
			p.ack(p.holder.Apply(u))
		}
		if u := p.apply(); !slices.Equal(refs(u), []string{"task/a"}) {
			t.Errorf("confirmed: %v, want the task", u)
		}
		if _, ended := p.holder.Ended("g-1"); !ended {
			t.Error("the grant lives on")
		}
	})
}

func TestASlowNodeSlowsNobody(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"), node("quick", "eu-1", nil), node("slow", "eu-1", nil))
		quick, slow := h.connect("quick", snapshot.New()), h.connect("slow", snapshot.New())
		defer quick.close()
		defer slow.close()
		ended := quick.live()
		synctest.Wait()
		// The slow one never reads, so that its window fills up and a send blocks.
		big := make([]byte, 60<<10)
		for i := range big {
			big[i] = 'a' + byte(i%26)
		}
		for i := range 20 {
			h.put(task(fmt.Sprintf("t%d", i), string(big), "db"))
			h.put(lockOn(fmt.Sprintf("l%d", i), &typesv1.LockSpec{Subject: string(big[:30<<10]), Reason: "x"}))
			time.Sleep(100 * time.Millisecond)
			if v := h.hub.Version(); quick.holder.Version() != v {
				t.Fatalf("round %d: the quick node is at %s, want %s", i, quick.holder.Version(), v)
			}
		}
		if n := status1(h, "slow"); n.GetLag().AsDuration() < time.Second {
			t.Errorf("the slow node's lag is %s", n.GetLag().AsDuration())
		}
		time.Sleep(30 * time.Second)
		if n := status1(h, "slow"); n.GetConnected() {
			t.Error("a node that takes nothing keeps its stream")
		}
		if n := status1(h, "quick"); !n.GetConnected() || n.GetLag().AsDuration() != 0 {
			t.Errorf("the quick node: %v", n)
		}
		select {
		case err := <-ended:
			t.Errorf("the quick node lost its stream: %v", err)
		default:
		}
	})
}

func TestANodeThatNeverAcks(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.holder.Apply(p.update())
		for i := range 100 {
			h.put(task("a", fmt.Sprint(i), "db"))
			time.Sleep(100 * time.Millisecond)
		}
		for i := range 100 {
			h.put(lockOn("l", &typesv1.LockSpec{Subject: fmt.Sprint(i), Reason: "x"}))
			time.Sleep(time.Millisecond)
		}
		got := 0
		recv := make(chan *nodev1.SyncResponse)
		go func() {
			defer close(recv)
			for {
				m, err := p.conn.Recv()
				if err != nil {
					return
				}
				recv <- m
			}
		}()
		for quiet := false; !quiet; {
			select {
			case m := <-recv:
				if len(m.GetUpdate().GetObjects()) > 0 && m.GetUpdate().GetObjects()[0].GetTask() != nil {
					t.Errorf("an unconfirmed node was sent %v", refs(m.GetUpdate()))
				}
				got++
			case <-time.After(time.Minute):
				quiet = true
			}
		}
		if got != 15 {
			t.Errorf("%d updates on top of the first, want 15 locks and no more", got)
		}
		if n := status1(h, "n1"); n.GetLag().AsDuration() < 10*time.Second || !n.GetConnected() {
			t.Errorf("status %v, want a connected node that lags", n)
		}
		p.close()
		for range recv {
		}
	})
}

func status1(h *house, name string) *apiv1.NodeStatus {
	h.t.Helper()
	for _, n := range h.hub.Nodes() {
		if n.GetName() == name {
			return n
		}
	}
	h.t.Fatalf("node %s is not listed", name)
	return nil
}

func TestANodeThatMoves(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(node("n1", "eu-1", nil), resource("eu", map[string]string{"region": "eu-1"}), resource("us", map[string]string{"region": "us-1"}), task("both", "p", "eu", "us"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		h.put(node("n1", "us-1", nil))
		if u := p.apply(); u.GetSnapshot() || !slices.Equal(refs(u), []string{"resource/us"}) || !slices.Equal(u.GetRemoved(), []string{"resource/eu"}) {
			t.Errorf("got %v, want one resource for the other", u)
		}
		h.remove("node", "n1")
		for {
			if _, err := p.conn.Recv(); err != nil {
				if status.Code(err) != codes.PermissionDenied {
					t.Errorf("a node that is gone got %v", err)
				}
				return
			}
		}
	})
}

func TestALockedNodeHearsOfItAndIsCutOff(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), node("n1", "eu-1", nil))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		h.put(lockOn("l", &typesv1.LockSpec{Node: "n1", Reason: "stolen"}))
		if u := p.apply(); !slices.Equal(refs(u), []string{"lock/l"}) {
			t.Errorf("got %v, want the lock", u)
		}
		began := time.Now()
		_, err := p.conn.Recv()
		if status.Code(err) != codes.PermissionDenied || time.Since(began) > 5*time.Second {
			t.Errorf("after %s: %v, want to be cut off", time.Since(began), err)
		}
	})
}

func TestASupersededCertificateIsCutOff(t *testing.T) {
	enrolled := func(serial string) *typesv1.Object {
		o := node("n1", "eu-1", nil)
		o.GetNode().Spec.Serial = serial
		return o
	}
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), enrolled("1"))
		time.Sleep(h.settle)
		old := h.dial("n1", "1", snapshot.New(), false)
		defer old.close()
		cut := old.live()
		synctest.Wait()
		// Enrolled anew: the new one is at another replica, and so nothing here replaces the old.
		h.put(enrolled("2"))
		time.Sleep(5 * time.Second)
		select {
		case err := <-cut:
			if !fault.Is(err, fault.KindSuperseded) {
				t.Errorf("cut off by %v", err)
			}
		default:
			t.Error("the old certificate is still told of policy")
		}
		// One that comes before this replica has heard of its certificate stays.
		next := h.dial("n1", "3", snapshot.New(), false)
		defer next.close()
		ended := next.live()
		synctest.Wait()
		h.put(enrolled("3"))
		time.Sleep(time.Minute)
		select {
		case err := <-ended:
			t.Errorf("the newest certificate was cut off: %v", err)
		default:
		}
	})
}

func TestTheNewerStreamStays(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil))
		a := h.connect("n1", snapshot.New())
		defer a.close()
		a.apply()
		b := h.connect("n1", snapshot.New())
		defer b.close()
		b.apply()
		if _, err := a.conn.Recv(); status.Code(err) != codes.Aborted {
			t.Errorf("the older stream ended with %v", err)
		}
		synctest.Wait()
		if n := status1(h, "n1"); !n.GetConnected() {
			t.Error("the node is not connected")
		}
	})
}

func TestKeysAreTold(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		h.mu.Lock()
		h.keys = map[string][]byte{"k1": make([]byte, 32), "k2": make([]byte, 32)}
		h.mu.Unlock()
		u := p.apply()
		for id := range h.keys {
			if _, ok := p.holder.GrantKey(id); !ok || len(u.GetGrantKeys()) != len(h.keys) {
				t.Errorf("got %v, without %s", u, id)
			}
		}
	})
}

func TestSnapshotOfTheControlPlane(t *testing.T) {
	inHouse(t, func(h *house) {
		changed, unsubscribe := h.hub.Subscribe()
		defer unsubscribe()
		if _, ok := h.hub.Snapshot().Terms("a"); ok {
			t.Error("there is a task before anything was read")
		}
		v := h.put(resource("db", nil), task("a", "0", "db"))
		for !h.hub.Snapshot().Version().Covers(v) {
			<-changed
		}
		if _, ok := h.hub.Snapshot().Terms("a"); !ok {
			t.Error("the task is missing")
		}
	})
}
