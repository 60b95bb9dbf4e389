package publish_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// obey answers every command with what answer says.
func (p *peer) obey(answer func(*nodev1.Command) *nodev1.CommandResult) {
	go func() {
		for {
			m, err := p.conn.Recv()
			if err != nil {
				return
			}
			if u := m.GetUpdate(); u != nil {
				_ = p.conn.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ack{Ack: p.holder.Apply(u)}})
			}
			if c := m.GetCommand(); c != nil {
				if r := answer(c); r != nil {
					r.Id = c.GetId()
					_ = p.conn.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Result{Result: r}})
				}
			}
		}
	}()
}

func (p *peer) report(r *nodev1.NodeReport) {
	p.send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Report{Report: r}})
}

func kill(session string) *nodev1.Command {
	return &nodev1.Command{Kind: &nodev1.Command_KillSession{KillSession: &nodev1.KillSession{Session: session}}}
}

func TestCommands(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil))
		has := func(session string) func(*nodev1.Command) *nodev1.CommandResult {
			return func(c *nodev1.Command) *nodev1.CommandResult {
				return &nodev1.CommandResult{Done: c.GetKillSession().GetSession() == session}
			}
		}
		for name, answer := range map[string]func(*nodev1.Command) *nodev1.CommandResult{
			"n1": has("s1"), "n2": has("s2"), "mute": func(*nodev1.Command) *nodev1.CommandResult { return nil },
		} {
			p := h.connect(name, snapshot.New())
			defer p.close()
			p.obey(answer)
		}
		synctest.Wait()
		ctx := context.Background()
		if r, err := h.hub.Command(ctx, "n1", kill("s1")); err != nil || !r.GetDone() {
			t.Errorf("n1 answered %v, %v", r, err)
		}
		if _, err := h.hub.Command(ctx, "n9", kill("s1")); fault.CodeOf(err) != codes.Unavailable {
			t.Errorf("a node that is not there: %v", err)
		}
		began := time.Now()
		if _, err := h.hub.Command(ctx, "mute", kill("s1")); fault.CodeOf(err) != codes.DeadlineExceeded || time.Since(began) > time.Minute {
			t.Errorf("a node that does not answer: %v after %s", err, time.Since(began))
		}
		if name, err := h.hub.Broadcast(ctx, kill("s2")); fault.CodeOf(err) != codes.DeadlineExceeded || name != "n2" {
			t.Errorf("broadcast found %q, %v", name, err)
		}
		if name, err := h.hub.Broadcast(ctx, kill("s3")); fault.CodeOf(err) != codes.DeadlineExceeded || name != "" {
			t.Errorf("broadcast of an unknown session, which the mute one may have, found %q, %v", name, err)
		}
	})
}

func TestACommandEndsWithItsNode(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil))
		p := h.connect("n1", snapshot.New())
		p.obey(func(*nodev1.Command) *nodev1.CommandResult { return nil })
		synctest.Wait()
		time.AfterFunc(time.Second, p.close)
		began := time.Now()
		_, err := h.hub.Command(context.Background(), "n1", kill("s"))
		if fault.CodeOf(err) != codes.Unavailable || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

func TestNodes(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), node("n1", "eu-1", nil), node("off", "us-1", nil))
		for name, r := range map[string]*nodev1.NodeReport{
			"n1": {Resources: []string{"db"}, Sessions: 5},
			"n2": {Resources: []string{"db", "other"}, Sessions: 9},
			"n3": {Resources: []string{"db"}, Draining: true},
		} {
			p := h.connect(name, snapshot.New())
			defer p.close()
			p.apply()
			p.report(r)
		}
		synctest.Wait()
		list := h.hub.Nodes()
		if len(list) != 4 || list[3].GetName() != "off" || list[3].GetConnected() || list[3].GetRegion() != "us-1" {
			t.Fatalf("nodes: %v", list)
		}
		if n := list[0]; !n.GetConnected() || n.GetReport().GetSessions() != 5 || n.GetRelease() != "test" ||
			n.GetEndpoints()["postgres"] != "n1:5432" || n.GetVersion().GetRevision() != h.hub.Version().Revision {
			t.Errorf("n1: %v", n)
		}
	})
}

func TestRejectionsAreShown(t *testing.T) {
	inHouse(t, func(h *house) {
		bad := task("bad", "p", "db")
		bad.GetTask().Spec.Permit[0].Mask = map[string]string{"id": "nowhere"}
		h.put(resource("db", nil), bad, task("good", "p", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		synctest.Wait()
		if r := status1(h, "n1").GetRejections(); len(r) != 1 || r[0].GetObject() != "task/bad" {
			t.Errorf("rejections: %v", r)
		}
		if _, ok := p.holder.Current().Terms("good"); !ok {
			t.Error("the good task does not apply")
		}
		if _, ok := p.holder.Current().Terms("bad"); ok {
			t.Error("the bad task applies")
		}
	})
}
