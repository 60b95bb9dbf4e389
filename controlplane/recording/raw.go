package recording

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A raw recording is stored, acknowledged, told of in the audit log, verified and let go as
// any other. It cannot be opened here: of what it says there is nothing in the index, and
// its row is where its chain stands, besides what its session's says.

// updateRaw works out what a chunk of a raw recording changes.
func (s *Service) updateRaw(ctx context.Context, h index.Head, of postern.SessionID, chunk part) (*index.Update, error) {
	id := chunk.Session
	if chunk.Index == 0 {
		id = of
	}
	row, err := s.cfg.Index.Session(ctx, id)
	if errors.Is(err, index.ErrNotFound) && chunk.Index == 0 { // or the index has lost it
		if _, err := s.beginAgain(ctx, of); err != nil {
			return nil, err
		}
		row, err = s.cfg.Index.Session(ctx, id)
	}
	if errors.Is(err, index.ErrNotFound) {
		return nil, refuse("session %s is not known, whose raw recording it is", of)
	}
	if err != nil {
		return nil, err
	}
	if row.GetNode() != string(h.Node) {
		return nil, refuse("session %s is recorded by another node", of)
	}
	if chunk.Index == 0 {
		row = proto.CloneOf(row)
		row.Id, row.Recording, row.EndTime, row.EndReason = string(chunk.Session), string(record.StateOpen), nil, ""
	}
	found(row)
	u := &index.Update{Session: row, Head: h, Chunks: chunk.stored()}
	if chunk.Sealing {
		return u, s.sealed(ctx, u, chunk.Seal)
	}
	return u, nil
}

// shipper is the node that ships a recording of which nothing is indexed yet, by what its
// first chunk says, or by its session where it is raw.
func (s *Service) shipper(ctx context.Context, chunk *record.Chunk) (node postern.NodeName, err error) {
	if of, raw := record.RawOf(chunk.Session); raw {
		head, err := s.cfg.Index.Head(ctx, of)
		if err == nil && head.Next == 0 {
			if _, err = s.beginAgain(ctx, of); err == nil {
				head, err = s.cfg.Index.Head(ctx, of)
			}
		}
		return head.Node, err
	}
	// Before the blob was stored, the node that shipped it was held against this.
	frames, err := s.frames(ctx, nil, chunk, record.Span{})
	if err != nil {
		return "", err
	}
	err = (&record.Decoder{}).Decode(frames, func(e *record.Event) error {
		if e.Kind == record.KindOpened && e.Session != nil {
			node = e.Session.Node
		}
		return nil
	})
	if err != nil {
		return "", refuse("%v", err)
	}
	return node, nil
}

// ReadRaw calls fn with the chunks of a session's raw recording as they are stored, and
// with the node's key as Read does. A *fault.Error says that there is none.
func (s *Service) ReadRaw(ctx context.Context, of *typesv1.Session, fn func(number uint32, data, key []byte) error) error {
	id := record.RawID(postern.SessionID(of.GetId()))
	head, err := s.cfg.Index.Head(ctx, id)
	if err != nil {
		return err
	}
	if head.Next == 0 {
		return fault.New(codes.NotFound, "of session %q nothing raw is recorded: its task does not ask for it (spec.record.storeRaw)", of.GetId())
	}
	return s.read(ctx, id, of.GetStartTime().AsTime(), 0, false, fn)
}
