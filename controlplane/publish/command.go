package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// commandWait bounds the wait for a result where the caller sets no deadline.
const commandWait = 10 * time.Second

// Command tells a connected node to do something now, and waits for its result. The
// command's id is given here. Errors are *fault.Error: Unavailable where the node is
// not connected to this replica or goes, DeadlineExceeded, ResourceExhausted.
func (h *Hub) Command(ctx context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	cmd = proto.CloneOf(cmd)
	cmd.Id = rand.Text()
	result := make(chan *nodev1.CommandResult, 1)
	s, err := h.order(node, cmd, result)
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandWait)
		defer cancel()
	}
	select {
	case r, ok := <-result:
		if !ok {
			return nil, fault.New(codes.Unavailable, "node %q went away before it answered", node)
		}
		return r, nil
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(s.waiting, cmd.GetId())
		s.commands = slices.DeleteFunc(s.commands, func(c *nodev1.Command) bool { return c.GetId() == cmd.GetId() })
		return nil, fault.Wrap(ctx.Err(), codes.DeadlineExceeded, "node %q did not answer in time", node)
	}
}

func (h *Hub) order(node postern.NodeName, cmd *nodev1.Command, result chan<- *nodev1.CommandResult) (*stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.nodes[node]
	switch {
	case s == nil:
		return nil, fault.New(codes.Unavailable, "node %q is not connected", node)
	case len(s.waiting) >= maxCommands:
		return nil, fault.New(codes.ResourceExhausted, "node %q has %d commands to answer already", node, len(s.waiting))
	}
	s.waiting[cmd.GetId()] = result
	s.commands = append(s.commands, cmd)
	s.nudge()
	return s, nil
}

// Broadcast tells every connected node, waits for all of them, and returns one that had the
// thing that the command is about. The name is empty where none had it; an error says that
// one did not answer, which may have it too.
func (h *Hub) Broadcast(ctx context.Context, cmd *nodev1.Command) (postern.NodeName, error) {
	g := run.New(ctx)
	var mu sync.Mutex
	var had postern.NodeName
	var errs []error
	for _, name := range h.connected() {
		g.Go("command", func(ctx context.Context) error {
			r, err := h.Command(ctx, name, cmd)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case fault.CodeOf(err) == codes.Unavailable: // a node that is gone has nothing any more
			case err != nil:
				errs = append(errs, err)
			case r.GetDone():
				had = name
			}
			return nil
		})
	}
	err := g.Wait()
	return had, errors.Join(append(errs, err)...)
}

func (h *Hub) connected() []postern.NodeName {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []postern.NodeName
	for name := range h.nodes {
		names = append(names, name)
	}
	return names
}
