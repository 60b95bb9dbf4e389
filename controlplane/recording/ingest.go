package recording

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// refusal is why a chunk is refused for good, or the seal that came with it.
type refusal struct {
	why  string
	seal bool
}

func (r *refusal) Error() string { return r.why }

func refuse(format string, args ...any) error { return &refusal{why: fmt.Sprintf(format, args...)} }

// attempts bounds how often a chunk is tried again because another replica stored one
// of the same session at the same time.
const attempts = 3

// Ingest stores one chunk that a node shipped, and the seal where it came with it; node is
// whom its certificate names. It may be called again with the same chunk, with its seal or
// without, and for several sessions at a time. A chunk that can never be stored is refused in
// the response, also where a store says so; an error means that it may be sent again later.
func (s *Service) Ingest(ctx context.Context, node postern.NodeName, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error) {
	next, err := s.take(ctx, node, c)
	if errors.Is(err, index.ErrRefused) || errors.Is(err, blob.ErrRefused) {
		err = refuse("it cannot be stored: %v", err)
	}
	var r *refusal
	if errors.As(err, &r) {
		rejected := c.GetIndex()
		if r.seal {
			rejected++
		}
		if err := s.cfg.Rejected(ctx, Rejection{Node: node, Session: c.GetSession(), Index: rejected, Reason: r.why}); err != nil {
			return nil, fmt.Errorf("recording: tell of a rejected chunk: %w", err)
		}
		s.log.ErrorContext(ctx, "chunk rejected", "node", node, "session", c.GetSession(), "index", rejected, "reason", r.why)
		return &nodev1.ShipResponse{Session: c.GetSession(), NextIndex: next, Reject: r.why, RejectedIndex: rejected}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recording: chunk %d of session %s: %w", c.GetIndex(), c.GetSession(), err)
	}
	return &nodev1.ShipResponse{Session: c.GetSession(), NextIndex: next}, nil
}

func (s *Service) take(ctx context.Context, node postern.NodeName, c *nodev1.ShipRequest) (next uint32, err error) {
	p, err := parsePiece(c)
	if err == nil {
		next, err = s.storeIn(ctx, node, p)
	}
	var r *refusal
	if errors.As(err, &r) && r.seal { // what is wrong with a seal is no reason to be without its chunk
		p.seal = nil
		var failed error
		if next, failed = s.storeIn(ctx, node, p); failed != nil {
			err = failed
		}
	}
	return next, err
}

// storeIn is store, tried again where another replica was faster.
func (s *Service) storeIn(ctx context.Context, node postern.NodeName, p piece) (next uint32, err error) {
	for range attempts {
		next, err = s.store(ctx, node, p)
		if !errors.Is(err, index.ErrConflict) {
			break
		}
	}
	return next, err
}

// store checks a piece against what is stored of its session, and stores it: the blob, then
// the rows.
func (s *Service) store(ctx context.Context, node postern.NodeName, p piece) (next uint32, err error) {
	head, row, err := s.standing(ctx, p.Session)
	if err != nil {
		return 0, err
	}
	if p.Index > head.Next && (head.Next == 0 || head.Node == node) {
		if head, err = s.catchUp(ctx, head, p.Chunk); err != nil {
			return head.Next, err
		}
		row = nil
	}
	if head.Next > 0 && head.Node != node {
		return 0, refuse("the session is recorded by another node") // its state is not this node's to know
	}
	if p.Index < head.Next {
		return s.again(ctx, node, head, p)
	}
	chain := record.Chain{Session: p.Session, Next: head.Next, Previous: head.Previous, Span: head.Span, Sealed: head.Sealed}
	if err := chain.Follow(p.Chunk); err != nil {
		return head.Next, refuse("%v", err)
	}
	u, decoder, err := s.update(ctx, node, head, row, chain, p.part)
	if err != nil {
		return head.Next, err
	}
	if err := s.doubt(ctx, u, p.again); err != nil {
		return head.Next, err
	}
	sealed := p.seal
	if err := s.addSeal(ctx, u, &chain, sealed); err != nil {
		return head.Next, ofSeal(err)
	}
	if err := s.create(ctx, u.Session.GetStartTime().AsTime(), &p); err != nil {
		return head.Next, err
	}
	if p.seal != sealed { // it was stored with the chunk before, and is not shipped yet
		if err := s.addSeal(ctx, u, &chain, p.seal); err != nil {
			return head.Next, err
		}
	}
	if err := s.tell(ctx, u); err != nil {
		return head.Next, err
	}
	if s.cfg.Alerted != nil && len(u.Alerts) > 0 {
		if err := s.cfg.Alerted(ctx, u.Session, u.Alerts); err != nil {
			return head.Next, err
		}
	}
	if _, raw := record.RawOf(p.Session); s.cfg.Export != nil && !raw {
		if err := s.cfg.Export(u); err != nil {
			return head.Next, err
		}
	}
	if err := s.cfg.Index.Commit(ctx, u); err != nil {
		return head.Next, err
	}
	if u.Head.Sealed {
		s.forget(p.Session)
	} else {
		s.keepOpen(p.Session, u.Head, decoder)
		s.leave(p.Session, u)
	}
	return u.Head.Next, nil
}

// again takes a chunk that is stored, and the seal that came with it where that is not.
func (s *Service) again(ctx context.Context, node postern.NodeName, head index.Head, p piece) (next uint32, err error) {
	stored, err := s.cfg.Index.Chunk(ctx, p.Session, p.Index)
	if err != nil {
		return head.Next, err
	}
	if stored != p.Hash {
		return head.Next, refuse("another chunk is stored under its index")
	}
	if p.seal == nil {
		return head.Next, nil
	}
	next, err = s.store(ctx, node, piece{part: *p.seal})
	return next, ofSeal(err)
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

// tell tells of the first chunk of a recording, or of its seal.
func (s *Service) tell(ctx context.Context, u *index.Update) error {
	if s.cfg.Told == nil || u.From() > 0 && !u.Head.Sealed {
		return nil
	}
	m := Mark{Node: u.Head.Node, Session: u.Session, Chunks: u.Head.Next, Hash: u.Head.Previous}
	if u.Head.Sealed {
		key, err := x509.ParsePKIXPublicKey(u.Head.NodeKey)
		if err != nil {
			return fmt.Errorf("key of node %s: %w", u.Head.Node, err)
		}
		m.NodeKey, m.Truncated = key, u.Session.GetRecording() == string(record.StateTruncated)
	}
	return s.cfg.Told(ctx, m)
}

// catchUp indexes chunks before this one whose blobs are stored: an index that went over
// to a standby may have lost what it had acknowledged.
func (s *Service) catchUp(ctx context.Context, head index.Head, chunk *record.Chunk) (index.Head, error) {
	if head.Next == 0 {
		found, err := s.beginAgain(ctx, chunk.Session)
		if err != nil || !found {
			return head, err
		}
		if head, err = s.cfg.Index.Head(ctx, chunk.Session); err != nil {
			return head, err
		}
	}
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

// beginAgain indexes the first chunk of a session of which the index has lost all, if it is
// stored. Such a session began a moment ago: on this day, as its node's clock has it.
func (s *Service) beginAgain(ctx context.Context, id postern.SessionID) (found bool, err error) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, on := range []time.Time{now, now.Add(-day), now.Add(day)} {
		err := s.retake(ctx, blobName(id, on, 0))
		if errors.Is(err, blob.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("index chunk 0 again: %w", err)
		}
		return true, nil
	}
	return false, nil
}

// update works out what a chunk changes; chain stands behind it already.
func (s *Service) update(ctx context.Context, node postern.NodeName, head index.Head, row *typesv1.Session, chain record.Chain, chunk part) (*index.Update, *record.Decoder, error) {
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
	u := &index.Update{Session: row, Head: h, Chunks: chunk.stored(), Earlier: head.Tally.Statement}
	if chunk.Sealing {
		return u, nil, s.sealed(ctx, u, chunk.Seal)
	}
	decoder, err := s.decoder(ctx, row, head)
	if err != nil {
		return nil, nil, err
	}
	frames, err := s.frames(ctx, row, chunk.Chunk, head.Span)
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

// addSeal lets an update go on to the seal, where there is one; chain stands before it.
func (s *Service) addSeal(ctx context.Context, u *index.Update, chain *record.Chain, seal *part) error {
	if seal == nil {
		return nil
	}
	if err := chain.Follow(seal.Chunk); err != nil {
		return refuse("%v", err)
	}
	u.Head.Next, u.Head.Previous, u.Head.Sealed = chain.Next, chain.Previous, chain.Sealed
	u.Chunks = append(u.Chunks, seal.stored()...)
	return s.sealed(ctx, u, seal.Seal)
}

// sealed ends the row, if the node signed the seal, and tells that the session is over.
func (s *Service) sealed(ctx context.Context, u *index.Update, seal *record.Seal) error {
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
	if _, raw := record.RawOf(seal.Session); raw || s.cfg.Ended == nil {
		return nil
	}
	return s.cfg.Ended(ctx, seal.Node, seal.Session)
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
		data, _, err := s.chunk(ctx, id, row.GetStartTime().AsTime(), n)
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
