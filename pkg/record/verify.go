package record

import (
	"crypto"
	"errors"
	"fmt"
	"iter"

	"github.com/posterngate/postern/pkg/postern"
)

// A Chain checks that chunks follow each other: one session and one key, indexes without
// a gap, hashes that match, events without a gap by what the headers say, and nothing
// after the seal. It needs no key. The zero Chain stands before chunk 0 of any session;
// a reader that kept one may go on later. It is for one goroutine.
type Chain struct {
	Session  postern.SessionID
	Next     uint32 // index of the chunk that must follow
	Previous Hash   // of the chunk before
	Span     Span   // of the chunk before
	Sealed   bool
}

// Add parses and checks the next chunk. After an error the Chain is as it was.
func (c *Chain) Add(data []byte) (*Chunk, error) {
	chunk, err := ParseChunk(data)
	if err != nil {
		return nil, err
	}
	return chunk, c.Follow(chunk)
}

// Follow checks that a parsed chunk is the next one. After an error the Chain is as it was.
func (c *Chain) Follow(chunk *Chunk) error {
	if err := c.follows(chunk); err != nil {
		return err
	}
	next := Chain{Session: chunk.Session, Next: chunk.Index + 1, Previous: chunk.Hash, Span: c.Span, Sealed: chunk.Sealing}
	if !chunk.Sealing {
		next.Span = chunk.span()
	}
	*c = next
	return nil
}

func (c *Chain) follows(chunk *Chunk) error {
	switch {
	case c.Sealed:
		return fmt.Errorf("record: chunk %d follows the seal", chunk.Index)
	case c.Session != "" && chunk.Session != c.Session:
		return fmt.Errorf("record: chunk %d is of session %q, not of %q", chunk.Index, chunk.Session, c.Session)
	case chunk.Index != c.Next:
		return fmt.Errorf("record: chunk %d stands where chunk %d must", chunk.Index, c.Next)
	case chunk.Previous != c.Previous:
		return fmt.Errorf("record: chunk %d does not follow the chunk before it", chunk.Index)
	case !chunk.Sealing:
		if want := c.Span.Follower(); chunk.First != want || chunk.Last < chunk.First {
			return fmt.Errorf("record: chunk %d says that it holds events %d to %d, and must begin with %d", chunk.Index, chunk.First, chunk.Last, want)
		}
		return nil
	}
	s := chunk.Seal
	if s.Session != chunk.Session || s.Chunks != c.Next || s.Previous != c.Previous || s.Last != c.Span.Last {
		return fmt.Errorf("record: the seal is not that of these chunks")
	}
	if c.Span.Open && !s.Truncated {
		return fmt.Errorf("record: the last event is incomplete, and the seal does not say so")
	}
	return nil
}

// A Reader opens the chunks of one recording in order, once a Chain has found that they
// follow each other. The zero Reader with a Key stands before chunk 0. It is for one
// goroutine.
type Reader struct {
	Chain
	Key     *DataKey
	decoder Decoder
}

// Read checks the next chunk and calls fn with every event that ends in it. After an
// error the Reader is of no use.
func (r *Reader) Read(data []byte, fn func(*Event) error) (*Chunk, error) {
	before := r.Span
	chunk, err := r.Add(data)
	if err != nil || chunk.Sealing {
		return chunk, err
	}
	return chunk, r.open(chunk, before, fn)
}

func (r *Reader) open(chunk *Chunk, before Span, fn func(*Event) error) error {
	frames, err := chunk.OpenFrames(r.Key, before)
	if err != nil {
		return err
	}
	return r.decoder.Decode(frames, fn)
}

// OpenFrames is Frames, once they are found to be the events that the header promises
// behind those of the chunk before.
func (c *Chunk) OpenFrames(key *DataKey, before Span) ([]byte, error) {
	frames, err := c.Frames(key)
	if err != nil {
		return nil, err
	}
	span, err := before.Next(frames)
	if err != nil {
		return nil, err
	}
	if span != c.span() {
		return nil, fmt.Errorf("record: chunk %d says that it holds events %d to %d, and holds %d to %d", c.Index, c.First, c.Last, span.First, span.Last)
	}
	return frames, nil
}

// State is how a recording ends.
type State string

// The states.
const (
	StateOpen      State = "open"      // no seal: the session lives, or its end has not arrived
	StateSealed    State = "sealed"    // sealed at the session's end
	StateTruncated State = "truncated" // sealed by a node that had been stopped
)

// Report is what Verify found.
type Report struct {
	Session postern.SessionID
	Node    postern.NodeName // that signed the seal
	KeyID   string           // of the recording key
	Raw     bool             // it says that there is a raw recording too; false where there was no data key
	Chunks  int              // intact ones, the seal included
	Last    uint64           // seq of the last event
	Tally                    // zero where there was no data key
	State   State
	Reason  string  // why the recording was cut short, from the seal
	Hash    Hash    // of the last intact chunk: once sealed, that of the whole recording
	Errors  []error // empty where the recording is what the node wrote
}

const maxReported = 100

// Verify checks a whole recording, from chunk 0 on in order, and the signature of its
// seal by the node's public key. It needs no data key, which may be nil: with it, what
// is inside the chunks is checked and counted too. The error is that of chunks; what is
// wrong with the recording itself is in the report, at most a hundred findings. A
// recording whose end was taken away is open: only its seal can tell that it is whole.
func Verify(chunks iter.Seq2[[]byte, error], node crypto.PublicKey, key *DataKey) (Report, error) {
	r := Report{State: StateOpen}
	found := func(at int, err error) {
		if len(r.Errors) < maxReported {
			r.Errors = append(r.Errors, fmt.Errorf("chunk %d: %w", at, err))
		}
	}
	reader := Reader{Key: key}
	at := -1
	for data, err := range chunks {
		at++
		if err != nil {
			return r, fmt.Errorf("read chunk %d: %w", at, err)
		}
		before := reader.Span
		chunk, err := reader.Add(data)
		if err != nil {
			found(at, err)
			// Go on behind the damage, so that one report tells all of it.
			reader = Reader{Chain: resume(reader.Chain, data), Key: key}
			continue
		}
		r.Chunks++
		r.Session, r.Hash, r.Last = chunk.Session, chunk.Hash, chunk.Last
		if chunk.Sealing {
			r.seal(chunk.Seal)
			if err := chunk.Seal.Verify(node); err != nil {
				found(at, err)
			}
			continue
		}
		r.KeyID = chunk.Key.ID
		if key == nil {
			continue
		}
		if err := reader.open(chunk, before, r.count); err != nil {
			found(at, err)
			reader.decoder = Decoder{}
		}
	}
	if at < 0 {
		r.Errors = append(r.Errors, errors.New("the recording is empty"))
	}
	return r, nil
}

func (r *Report) count(e *Event) error {
	r.Tally.Add(e)
	if e.Kind == KindOpened && e.Session != nil {
		r.Raw = e.Session.Raw
	}
	return nil
}

func (r *Report) seal(s *Seal) {
	r.Node, r.Reason, r.State = s.Node, s.Reason, StateSealed
	if s.Truncated {
		r.State = StateTruncated
	}
}

// Tally counts what a session did. The zero Tally stands before the first event.
type Tally struct {
	Events     int64
	Statements int64  // executions judged
	Denied     int64  // by policy or by people
	Rows       int64  // returned
	Bytes      int64  // of rows returned
	Statement  uint64 // number of the last statement that was counted
}

// Add counts one event; events come in order.
func (t *Tally) Add(e *Event) {
	t.Events++
	if e.Statement > t.Statement || e.Statement == 0 && e.Kind == KindDenied {
		t.Statements++
		t.Statement = max(t.Statement, e.Statement)
	}
	switch e.Kind {
	case KindDenied:
		t.Denied++
	case KindSettled:
		if e.Statement != 0 && e.Verdict == postern.VerdictDeny {
			t.Denied++
		}
	case KindFinished:
		t.Rows += e.Rows
		t.Bytes += e.Bytes
	}
}

// resume is the chain as it would be had data been right.
func resume(c Chain, data []byte) Chain {
	chunk, err := ParseChunk(data)
	if err != nil {
		c.Next++
		return c
	}
	return Chain{Session: chunk.Session, Next: chunk.Index + 1, Previous: chunk.Hash, Span: chunk.span(), Sealed: chunk.Sealing}
}

// Events reads the events of a recording from chunk 0 on, checking that the chunks
// follow each other, and ends at the first error. The end that a truncated recording
// lacks is told as a Closed event with Seq 0. The signature is Verify's business.
func Events(chunks iter.Seq2[[]byte, error], key *DataKey) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		reader := Reader{Key: key}
		for data, err := range chunks {
			var chunk *Chunk
			if err == nil {
				chunk, err = reader.Read(data, func(e *Event) error {
					if !yield(e, nil) {
						return errStop
					}
					return nil
				})
			}
			if errors.Is(err, errStop) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !chunk.Sealing {
				continue
			}
			if chunk.Seal.Truncated {
				yield(&Event{Kind: KindClosed, Time: chunk.Seal.Time, Reason: chunk.Seal.Reason}, nil)
			}
			return
		}
	}
}

var errStop = errors.New("record: stop")
