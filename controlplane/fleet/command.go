package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// command is what one replica has for the nodes of others.
type command struct {
	From    string           `json:"from"`           // the replica
	Node    postern.NodeName `json:"node,omitempty"` // empty for all
	Made    time.Time        `json:"made"`
	Command []byte           `json:"command"` // nodev1.Command
	// Await asks, instead of a command, which nodes enforce a version once all do, or
	// after Wait.
	Await *postern.Version `json:"await,omitempty"`
	Wait  time.Duration    `json:"wait,omitempty"`
}

// answer is what came of it at one replica.
type answer struct {
	Made   time.Time        `json:"made"`
	Node   postern.NodeName `json:"node,omitempty"`   // that had the thing
	Result []byte           `json:"result,omitempty"` // nodev1.CommandResult, of a command to one node
	Error  string           `json:"error,omitempty"`
	// Enforced is which nodes enforce the version, and since when, in Unix milliseconds.
	Enforced map[postern.NodeName]int64 `json:"enforced,omitempty"`
}

// Command tells a connected node to do something now, and waits for its result, whichever
// replica has its stream. Errors are *fault.Error.
func (f *Fleet) Command(ctx context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	mine, _ := f.cfg.Hub.Last(node)
	p := f.presence(node)
	if p == nil || mine.Connected {
		return f.cfg.Hub.Command(ctx, node, cmd)
	}
	if last, ok := p.status(); !ok || !f.alive(p, last) {
		return f.cfg.Hub.Command(ctx, node, cmd)
	}
	var got *nodev1.CommandResult
	c, err := told(node, cmd)
	if err != nil {
		return nil, err
	}
	err = f.ask(ctx, c, []string{p.Replica}, func(a answer) (bool, error) {
		if a.Error != "" {
			return true, fault.New(codes.Unavailable, "%s", a.Error)
		}
		got = &nodev1.CommandResult{}
		return true, proto.Unmarshal(a.Result, got)
	})
	if errors.Is(err, errNoAnswer) {
		err = fault.New(codes.Unavailable, "node %q did not answer in time", node)
	}
	return got, err
}

// Wall has a connected wall of the resource do something, and waits for its result, as
// Command does.
func (f *Fleet) Wall(ctx context.Context, r postern.ResourceName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	name, ok := f.WallFor(r)
	if !ok {
		return nil, fault.New(codes.Unavailable, "no wall that keeps resource %q is connected", r)
	}
	return f.Command(ctx, name, cmd)
}

// Broadcast tells every connected node, of all replicas at once, and returns one that had the
// thing that the command is about. The name is empty where none had it; an error says that
// somebody did not answer, who may have it too.
func (f *Fleet) Broadcast(ctx context.Context, cmd *nodev1.Command) (postern.NodeName, error) {
	c, err := told("", cmd)
	if err != nil {
		return "", err
	}
	var here, there postern.NodeName
	var hereErr, thereErr error
	g := run.New(ctx)
	g.Go("own nodes", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, nodeWait)
		defer cancel()
		here, hereErr = f.cfg.Hub.Broadcast(ctx, cmd)
		return nil
	})
	if others := f.others(); len(others) > 0 {
		g.Go("nodes of other replicas", func(ctx context.Context) error {
			var errs []error
			errs = append(errs, f.ask(ctx, c, others, func(a answer) (bool, error) {
				there = cmp.Or(there, a.Node)
				if a.Error != "" {
					errs = append(errs, fault.New(codes.Unavailable, "%s", a.Error))
				}
				return false, nil
			}))
			thereErr = errors.Join(errs...)
			return nil
		})
	}
	err = g.Wait()
	return cmp.Or(here, there), errors.Join(err, hereErr, thereErr)
}

// Tell has a node do something, and waits for nothing.
func (f *Fleet) Tell(node postern.NodeName, cmd *nodev1.Command) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		return
	}
	f.calls.Go("tell a node", func(ctx context.Context) error {
		if _, err := f.Command(ctx, node, cmd); err != nil {
			f.cfg.Logger.DebugContext(ctx, "node was not told", "node", node, "error", err)
		}
		return nil
	})
}

// told is a command to one node, or to all, as other replicas take it.
func told(node postern.NodeName, cmd *nodev1.Command) (command, error) {
	raw, err := proto.Marshal(cmd)
	return command{Node: node, Command: raw}, err
}

// errNoAnswer is that of a replica, for its nodes.
var errNoAnswer = fault.New(codes.Unavailable, "not every replica of the control plane answered in time")

// ask puts a command to other replicas, and takes answers until each has answered, or each
// says that it is enough. Where time is up before, the error is errNoAnswer.
func (f *Fleet) ask(ctx context.Context, c command, replicas []string, each func(answer) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	id := rand.Text()
	c.From, c.Made = f.id, f.cfg.Now()
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	answers := make(chan answer, len(replicas))
	f.mu.Lock()
	f.waiting[id] = answers
	f.mu.Unlock()
	defer f.retract(ctx, id, replicas)
	if _, err := f.cfg.Store.Commit(ctx, store.Op{Key: store.Key{Kind: kindCommand, Name: id}, Value: value}); err != nil {
		return fault.Wrap(err, codes.Unavailable, "the command could not be passed on")
	}
	for range replicas {
		select {
		case a := <-answers:
			if enough, err := each(a); enough || err != nil {
				return err
			}
		case <-ctx.Done():
			return errNoAnswer
		}
	}
	return nil
}

// retract removes a command and its answers.
func (f *Fleet) retract(ctx context.Context, id string, replicas []string) {
	f.mu.Lock()
	delete(f.waiting, id)
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	ops := []store.Op{{Key: store.Key{Kind: kindCommand, Name: id}, Delete: true, If: store.AnyRevision}}
	for _, r := range replicas {
		ops = append(ops, store.Op{Key: store.Key{Kind: kindAnswer, Name: id + "." + r}, Delete: true, If: store.AnyRevision})
	}
	_ = f.commit(ctx, ops) // what stays is found by clean
}

// relay follows the commands of others and the answers to its own.
func (f *Fleet) relay(ctx context.Context) error {
	g := run.New(ctx)
	for ctx.Err() == nil {
		if err := f.follow(ctx, g); err != nil && ctx.Err() == nil {
			f.cfg.Logger.WarnContext(ctx, "commands of other replicas are not followed; retrying", "error", err)
			run.Pause(ctx, look)
		}
	}
	return errors.Join(g.Wait(), ctx.Err())
}

func (f *Fleet) follow(ctx context.Context, g *run.Group) error {
	w, err := f.cfg.Store.Watch(ctx, 0, kindCommand, kindAnswer)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range b.Events {
			switch {
			case e.Deleted:
			case e.Kind == kindAnswer:
				f.answered(e.Entry)
			case e.Kind == kindCommand:
				f.obey(g, e.Entry)
			}
		}
	}
}

func (f *Fleet) answered(e store.Entry) {
	id, _, _ := strings.Cut(e.Name, ".")
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := f.waiting[id]
	var a answer
	if ch == nil || json.Unmarshal(e.Value, &a) != nil {
		return
	}
	select {
	case ch <- a:
	default: // more answers than were asked for
	}
}

// obey passes a command of another replica on to the nodes of this one.
func (f *Fleet) obey(g *run.Group, e store.Entry) {
	var c command
	cmd := &nodev1.Command{}
	if json.Unmarshal(e.Value, &c) != nil || c.From == f.id || proto.Unmarshal(c.Command, cmd) != nil {
		return
	}
	if mine, _ := f.cfg.Hub.Last(c.Node); c.Node != "" && !mine.Connected {
		return
	}
	g.Go("command", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, relayWait)
		defer cancel()
		within, done := context.WithTimeout(ctx, nodeWait)
		a := f.carryOut(within, c, cmd)
		done()
		a.Made = f.cfg.Now()
		value, err := json.Marshal(a)
		if err != nil {
			return nil // of a result too strange to be told
		}
		// Only while the command is wanted still, or the answer would stay.
		_, err = f.cfg.Store.Commit(ctx,
			store.Op{Key: e.Key, Check: true, If: e.Revision},
			store.Op{Key: store.Key{Kind: kindAnswer, Name: e.Name + "." + f.id}, Value: value, If: store.AnyRevision})
		if err != nil && !store.IsConflict(err) && ctx.Err() == nil {
			f.cfg.Logger.WarnContext(ctx, "the answer to a command was not passed back", "error", err)
		}
		return nil
	})
}

func (f *Fleet) carryOut(ctx context.Context, c command, cmd *nodev1.Command) answer {
	if c.Await != nil {
		return answer{Enforced: f.enforced(ctx, *c.Await, c.Wait)}
	}
	if c.Node == "" {
		had, err := f.cfg.Hub.Broadcast(ctx, cmd)
		return answer{Node: had, Error: text(err)}
	}
	r, err := f.cfg.Hub.Command(ctx, c.Node, cmd)
	if err != nil {
		return answer{Error: text(err)}
	}
	raw, err := proto.Marshal(r)
	return answer{Node: c.Node, Result: raw, Error: text(err)}
}

// text is what may be said of an error to another replica's caller.
func text(err error) string {
	var f *fault.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &f):
		return f.Reason
	}
	return "the command failed"
}
