package recording

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// refusal is why a chunk is refused for good.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// attempts bounds how often a chunk is tried again because another replica stored one
// of the same session at the same time.
const attempts = 3

// Ingest stores one chunk that a node shipped; node is whom its certificate names. It
// may be called again with the same chunk, and for several sessions at a time. A chunk
// that can never be stored is refused in the response; an error means that it may be
// sent again later.
func (s *Service) Ingest(ctx context.Context, node postern.NodeName, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error) {
	next, err := s.take(ctx, node, c)
	var r *refusal
	if errors.As(err, &r) {
		if err := s.cfg.Rejected(ctx, Rejection{Node: node, Session: c.GetSession(), Index: c.GetIndex(), Reason: r.why}); err != nil {
			return nil, fmt.Errorf("recording: tell of a rejected chunk: %w", err)
		}
		s.log.ErrorContext(ctx, "chunk rejected", "node", node, "session", c.GetSession(), "index", c.GetIndex(), "reason", r.why)
		return &nodev1.ShipResponse{Session: c.GetSession(), NextIndex: next, Reject: r.why, RejectedIndex: c.GetIndex()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recording: chunk %d of session %s: %w", c.GetIndex(), c.GetSession(), err)
	}
	return &nodev1.ShipResponse{Session: c.GetSession(), NextIndex: next}, nil
}

func (s *Service) take(ctx context.Context, node postern.NodeName, c *nodev1.ShipRequest) (next uint32, err error) {
	chunk, err := record.ParseChunk(c.GetChunk())
	if err != nil {
		return 0, refuse("%v", err)
	}
	if string(chunk.Session) != c.GetSession() || chunk.Index != c.GetIndex() {
		return 0, refuse("it is chunk %d of session %s", chunk.Index, chunk.Session)
	}
	for range attempts {
		next, err = s.store(ctx, node, chunk, c.GetChunk())
		if !errors.Is(err, index.ErrConflict) {
			break
		}
	}
	return next, err
}

// store checks one chunk against what is stored of its session, and stores it: the
// blob, then the rows.
func (s *Service) store(ctx context.Context, node postern.NodeName, chunk *record.Chunk, data []byte) (next uint32, err error) {
	head, row, err := s.standing(ctx, chunk.Session)
	if err != nil {
		return 0, err
	}
	if head.Next > 0 && head.Node != node {
		return 0, refuse("the session is recorded by another node") // its state is not this node's to know
	}
	if chunk.Index < head.Next {
		stored, err := s.cfg.Index.Chunk(ctx, chunk.Session, chunk.Index)
		if err != nil {
			return head.Next, err
		}
		if stored != chunk.Hash {
			return head.Next, refuse("another chunk is stored under its index")
		}
		return head.Next, nil
	}
	if head.Next > 0 && chunk.Index > head.Next {
		if head, err = s.catchUp(ctx, head, chunk); err != nil {
			return head.Next, err
		}
		row = nil
	}
	chain := record.Chain{Session: chunk.Session, Next: head.Next, Previous: head.Previous, Span: head.Span, Sealed: head.Sealed}
	if err := chain.Follow(chunk); err != nil {
		return head.Next, refuse("%v", err)
	}
	u, decoder, err := s.update(ctx, node, head, row, chain, chunk)
	if err != nil {
		return head.Next, err
	}
	u.Size = len(data)
	if err := s.create(ctx, blobName(chunk.Session, u.Session.GetStartTime().AsTime(), chunk.Index), data); err != nil {
		return head.Next, err
	}
	if err := s.tell(ctx, u, chunk); err != nil {
		return head.Next, err
	}
	if s.cfg.Alerted != nil && len(u.Alerts) > 0 {
		if err := s.cfg.Alerted(ctx, u.Session, u.Alerts); err != nil {
			return head.Next, err
		}
	}
	if _, raw := record.RawOf(chunk.Session); s.cfg.Export != nil && !raw {
		if err := s.cfg.Export(u); err != nil {
			return head.Next, err
		}
	}
	if err := s.cfg.Index.Commit(ctx, u); err != nil {
		return head.Next, err
	}
	s.keepOpen(chunk.Session, u.Head, decoder)
	if u.Head.Sealed {
		s.forgetKey(chunk.Session)
	} else {
		s.leave(chunk.Session, u)
	}
	return u.Head.Next, nil
}

// standing is how a recording stands: as this process has left it, or as the index says. The
// row is nil where it is to be read.
func (s *Service) standing(ctx context.Context, id postern.SessionID) (index.Head, *typesv1.Session, error) {
	s.mu.Lock()
	was, ok := s.stood[id]
	delete(s.stood, id) // until the next chunk is committed
	s.mu.Unlock()
	if ok {
		return was.head, was.row, nil
	}
	head, err := s.cfg.Index.Head(ctx, id)
	return head, nil, err
}

// leave remembers how a recording was left; of raw ones nothing is, for they have other rows.
func (s *Service) leave(id postern.SessionID, u *index.Update) {
	if _, raw := record.RawOf(id); raw {
		return
	}
	left := standing{u.Head, u.Session}
	left.head.Lost = false // it goes on
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stood) >= maxStood {
		for any := range s.stood {
			delete(s.stood, any)
			break
		}
	}
	s.stood[id] = left
}

// tell tells of the first chunk of a recording, and of its seal.
func (s *Service) tell(ctx context.Context, u *index.Update, chunk *record.Chunk) error {
	if s.cfg.Told == nil || chunk.Index > 0 && !chunk.Sealing {
		return nil
	}
	m := Mark{Node: u.Head.Node, Session: u.Session, Chunks: u.Head.Next, Hash: chunk.Hash}
	if chunk.Sealing {
		key, err := x509.ParsePKIXPublicKey(u.Head.NodeKey)
		if err != nil {
			return fmt.Errorf("key of node %s: %w", u.Head.Node, err)
		}
		m.NodeKey, m.Truncated = key, chunk.Seal.Truncated
	}
	return s.cfg.Told(ctx, m)
}

// catchUp indexes chunks before this one whose blobs are stored: an index that went over
// to a standby may have lost what it had acknowledged.
func (s *Service) catchUp(ctx context.Context, head index.Head, chunk *record.Chunk) (index.Head, error) {
	row, err := s.cfg.Index.Session(ctx, chunk.Session)
	if err != nil {
		return head, err
	}
	for n := head.Next; n < chunk.Index; n++ {
		err := s.retake(ctx, blobName(chunk.Session, row.GetStartTime().AsTime(), n))
		if errors.Is(err, blob.ErrNotFound) {
			break
		}
		if err != nil {
			return head, fmt.Errorf("index chunk %d again: %w", n, err)
		}
	}
	return s.cfg.Index.Head(ctx, chunk.Session)
}

// create stores the blob, which an earlier attempt may have stored already.
func (s *Service) create(ctx context.Context, name string, data []byte) error {
	err := s.cfg.Blobs.Create(ctx, name, data)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	stored, err := s.cfg.Blobs.Read(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, data) {
		return refuse("another chunk is stored under its index")
	}
	return nil
}

// update works out what a chunk changes; chain stands behind it already.
func (s *Service) update(ctx context.Context, node postern.NodeName, head index.Head, row *typesv1.Session, chain record.Chain, chunk *record.Chunk) (*index.Update, *record.Decoder, error) {
	h := head
	h.Next, h.Previous, h.Span, h.Sealed, h.Node = chain.Next, chain.Previous, chain.Span, chain.Sealed, node
	if of, raw := record.RawOf(chunk.Session); raw {
		u, err := s.updateRaw(ctx, h, of, chunk)
		return u, nil, err
	}
	switch {
	case head.Next == 0:
		row = &typesv1.Session{Id: string(chunk.Session), Node: string(node), Recording: string(record.StateOpen)}
	case row == nil:
		var err error
		if row, err = s.cfg.Index.Session(ctx, chunk.Session); err != nil {
			return nil, nil, err
		}
		if head.Lost {
			found(row)
		}
	}
	if chain.Span.Open && !(head.Span.Open && head.Span.Last == chain.Span.Last) {
		h.OpenFrom = chunk.Index
	}
	u := &index.Update{Session: row, Head: h, Hash: chunk.Hash, Earlier: head.Tally.Statement}
	if chunk.Sealing {
		if err := s.sealed(u, chunk.Seal); err != nil || s.cfg.Ended == nil {
			return u, nil, err
		}
		return u, nil, s.cfg.Ended(ctx, node, chunk.Session)
	}
	decoder, err := s.decoder(ctx, row, head)
	if err != nil {
		return nil, nil, err
	}
	frames, err := s.frames(ctx, row, chunk, head.Span)
	if err != nil {
		return nil, nil, err
	}
	// Most statements are two events, and what a chunk says of its events has been held
	// against the frames.
	most := int(chunk.Last-chunk.First)/2 + 1
	u.Statements, u.Outcomes = make([]index.Statement, 0, most), make([]index.Outcome, 0, most)
	b := builder{update: u, node: node, said: map[string]*judged{}, short: map[string]string{}}
	if err := decoder.Briefly(frames, b.take); err != nil {
		return nil, nil, refuse("%v", err)
	}
	if u.Session.GetStartTime() == nil {
		return nil, nil, refuse("the recording does not begin with who opened the session")
	}
	b.finish()
	return u, decoder, nil
}

// sealed ends the row, if the node signed the seal.
func (s *Service) sealed(u *index.Update, seal *record.Seal) error {
	if seal.Node != u.Head.Node {
		return refuse("the seal names node %q", seal.Node)
	}
	if u.Session.GetStartTime() == nil || timestamppb.New(seal.Time).CheckValid() != nil {
		return refuse("the seal is of no session, or has no valid time")
	}
	keys, err := s.keys(seal.Node)
	if err != nil {
		return err
	}
	var wrong error
	at := slices.IndexFunc(keys, func(key crypto.PublicKey) bool {
		err := seal.Verify(key)
		wrong = errors.Join(wrong, err)
		return err == nil
	})
	if at < 0 {
		return refuse("%v", wrong)
	}
	if u.Head.NodeKey, err = x509.MarshalPKIXPublicKey(keys[at]); err != nil {
		return fmt.Errorf("key of node %s: %w", seal.Node, err)
	}
	endRow(u.Session, seal)
	return nil
}

// decoder stands where the event begins that the chunk before left open.
func (s *Service) decoder(ctx context.Context, row *typesv1.Session, head index.Head) (*record.Decoder, error) {
	id := postern.SessionID(row.GetId())
	s.mu.Lock()
	kept := s.open[id]
	delete(s.open, id)
	s.mu.Unlock()
	if !head.Span.Open {
		return &record.Decoder{}, nil
	}
	if kept.decoder != nil && kept.next == head.Next {
		return kept.decoder, nil
	}
	d := &record.Decoder{}
	for n := head.OpenFrom; n < head.Next; n++ {
		data, err := s.cfg.Blobs.Read(ctx, blobName(id, row.GetStartTime().AsTime(), n))
		if err != nil {
			return nil, fmt.Errorf("read chunk %d again: %w", n, err)
		}
		chunk, err := record.ParseChunk(data)
		if err != nil {
			return nil, fmt.Errorf("read chunk %d again: %w", n, err)
		}
		key, err := s.dataKey(ctx, row, chunk)
		if err != nil {
			return nil, err
		}
		frames, err := chunk.Frames(key)
		if err != nil {
			return nil, fmt.Errorf("read chunk %d again: %w", n, err)
		}
		if n == head.OpenFrom {
			if frames, err = lastEvent(frames); err != nil {
				return nil, fmt.Errorf("read chunk %d again: %w", n, err)
			}
		}
		if err := d.Decode(frames, func(*record.Event) error { return nil }); err != nil {
			return nil, fmt.Errorf("read chunk %d again: %w", n, err)
		}
	}
	return d, nil
}

// lastEvent is the frames of the event that a chunk leaves open.
func lastEvent(frames []byte) ([]byte, error) {
	start, more := 0, false
	for at := 0; at < len(frames); {
		f, err := record.NextFrame(frames[at:])
		if err != nil {
			return nil, err
		}
		if !more {
			start = at
		}
		more = f.More
		at += f.Size
	}
	return frames[start:], nil
}

func (s *Service) keepOpen(id postern.SessionID, head index.Head, d *record.Decoder) {
	if d == nil || !head.Span.Open {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) < maxOpen {
		s.open[id] = openEvent{next: head.Next, decoder: d}
	}
}

// keyOf is the key that the seal was verified with, or while there is none that of the
// node as it is now.
func (s *Service) keyOf(h index.Head) ([]byte, error) {
	if h.Sealed {
		return h.NodeKey, nil
	}
	keys, err := s.keys(h.Node)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return x509.MarshalPKIXPublicKey(keys[0])
}

// keys are those with which a node may have sealed; there is at least one.
func (s *Service) keys(node postern.NodeName) ([]crypto.PublicKey, error) {
	keys, err := s.cfg.NodeKeys(string(node))
	if err == nil && len(keys) == 0 {
		err = errors.New("none is known")
	}
	if err != nil {
		return nil, fmt.Errorf("keys of node %s: %w", node, err)
	}
	return keys, nil
}
