// Package trail reads and verifies the audit log from its files alone: an append-only
// Merkle log in the layout of C2SP tlog-tiles, whose leaves are audit entries as they
// were written, each chained to the one before, and whose checkpoint is signed with a
// key that no database holds. It trusts nothing in the files; who writes them is the
// control plane.
package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"strconv"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// maxEntry is the most bytes of one entry; more cannot be a leaf.
const maxEntry = 1<<16 - 1

const (
	maxCheckpoint = 64 << 10
	maxBundle     = layout.EntryBundleWidth * (2 + maxEntry)
	chainDomain   = "postern/audit/v1"
)

// Actions by which entries tell of recordings; the object of all but the last is
// session/ID.
const (
	Began   = "recording.begin"  // the first chunk is stored; the detail is a Recording
	Sealed  = "recording.seal"   // the seal is stored; the detail is a Recording
	Lost    = "recording.lost"   // the rest will not come, and so no seal; the detail is a Recording
	Expired = "recording.forget" // retention deletes those that the detail lists as sessions
	Kept    = "recording.keep"   // those stay after all: somebody held them at that moment
)

// Recording is the detail of Began, Sealed and Lost, as JSON.
type Recording struct {
	Node      string `json:"node"`
	NodeKey   []byte `json:"nodeKey,omitempty"` // PKIX, DER: what the seal was verified with
	Chunks    uint32 `json:"chunks"`            // so far, the seal included
	Hash      []byte `json:"hash"`              // of the newest of them
	Truncated bool   `json:"truncated,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Task      string `json:"task,omitempty"`
	Resource  string `json:"resource,omitempty"`
	Doubt     string `json:"doubt,omitempty"` // why whose it is cannot be believed
}

// Chain is the hash of an entry and of all before it; before is that of the one before,
// empty for the first. Every field is preceded by its length, so that no two entries
// have the same form.
func Chain(before []byte, e *apiv1.AuditEntry) []byte {
	h := sha256.New()
	field := func(p []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p)))) // a hash takes everything
		_, _ = h.Write(p)
	}
	number := func(n int64) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	field([]byte(chainDomain))
	field(before)
	number(e.GetSequence())
	number(e.GetTime().GetSeconds())
	number(int64(e.GetTime().GetNanos()))
	for _, s := range []string{e.GetActor(), e.GetAddress(), e.GetAction(), e.GetObject(), e.GetOutcome(), e.GetDetail()} {
		field([]byte(s))
	}
	for _, c := range e.GetChanges() { // none: the form of before there were any
		for _, s := range []string{c.GetObject(), c.GetAction(), c.GetBefore(), c.GetAfter(), strconv.FormatBool(c.GetMore())} {
			field([]byte(s))
		}
	}
	if len(e.GetActors()) > 0 {
		number(actorsFollow) // none: the form of before there were any
		for _, s := range e.GetActors() {
			field([]byte(s))
		}
	}
	return h.Sum(nil)
}

// actorsFollow stands before the actors: as bytes it is no text, and so no change's object.
const actorsFollow = -1

// A Checkpoint is what the log's key vouches for: how many entries there are, and the
// root of the tree over all of them.
type Checkpoint struct {
	Size uint64
	Root []byte
}

// ParseCheckpoint opens a signed checkpoint with the public half of the log's key, as it
// stands in the .pub file.
func ParseCheckpoint(signed []byte, key string) (Checkpoint, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the log's key: %w", err)
	}
	c, _, n, err := log.ParseCheckpoint(signed, v.Name(), v)
	if err == nil && len(n.Sigs) != 1 {
		err = errors.New("it has several signatures of one key")
	}
	if err == nil { // one form alone is the checkpoint
		_, err = base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint was not signed with the log's key: %w", err)
	}
	return Checkpoint{c.Size, c.Hash}, nil
}

// A Log is a folder with the files of a log. It is safe for concurrent use.
type Log struct {
	files fs.FS
	close func() error
}

// Open opens a folder.
func Open(dir string) (*Log, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	return &Log{root.FS(), root.Close}, nil
}

// Close closes the folder.
func (l *Log) Close() error { return l.close() }

// Checkpoint is the newest checkpoint, still signed.
func (l *Log) Checkpoint() ([]byte, error) { return l.read(layout.CheckpointPath, maxCheckpoint) }

// Size is how many entries the newest checkpoint tells of; nothing is verified. It is 0
// where there is no log yet.
func (l *Log) Size() (uint64, error) {
	raw, err := l.Checkpoint()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var c log.Checkpoint
	if _, err := c.Unmarshal(raw); err != nil {
		return 0, fmt.Errorf("trail: the checkpoint: %w", err)
	}
	return c.Size, nil
}

func (l *Log) read(name string, limit int64) ([]byte, error) {
	st, err := fs.Stat(l.files, name)
	if err == nil && (!st.Mode().IsRegular() || st.Size() > limit) {
		err = errors.New("it is no file of a log")
	}
	if err != nil {
		return nil, fmt.Errorf("trail: %s: %w", name, err)
	}
	b, err := fs.ReadFile(l.files, name)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	return b, nil
}

// Leaves reads the leaves from index from on, up to size, which must not be more than a
// checkpoint told of. It ends after an error. The slices are the caller's.
func (l *Log) Leaves(from, size uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if from >= size {
			return
		}
		for r := range layout.Range(from, size-from, size) {
			bundle, err := l.bundle(r.Index, r.Partial)
			if err == nil && len(bundle) < int(r.First+r.N) {
				err = fmt.Errorf("trail: entries are missing behind the %d of bundle %d", len(bundle), r.Index)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, leaf := range bundle[r.First : r.First+r.N] {
				if !yield(leaf, nil) {
					return
				}
			}
		}
	}
}

// bundle reads up to 256 leaves. A part of a bundle goes once all of it is there.
func (l *Log) bundle(index uint64, partial uint8) ([][]byte, error) {
	raw, err := l.read(layout.EntriesPath(index, partial), maxBundle)
	if partial > 0 && errors.Is(err, fs.ErrNotExist) {
		raw, err = l.read(layout.EntriesPath(index, 0), maxBundle)
	}
	if err != nil {
		return nil, err
	}
	return parseBundle(raw)
}

func parseBundle(raw []byte) ([][]byte, error) {
	var leaves [][]byte
	for len(raw) > 0 {
		if len(raw) < 2 || len(raw)-2 < int(binary.BigEndian.Uint16(raw)) {
			return nil, errors.New("trail: a bundle of entries is cut short")
		}
		n := 2 + int(binary.BigEndian.Uint16(raw))
		leaves = append(leaves, raw[2:n:n])
		raw = raw[n:]
	}
	return leaves, nil
}

// A BrokenError says where the log is not what was written.
type BrokenError struct {
	Sequence int64
	Reason   string
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("audit: entry %d: %s", e.Sequence, e.Reason)
}

// Verify computes the whole log anew: the tree over all entries must have the root that
// the checkpoint, signed with the log's key, says, and each entry the hash that chains
// it to the one before. earlier are checkpoints that were seen before, which the log
// must still contain. each is called with every entry in order, before all is verified;
// it may be nil.
func (l *Log) Verify(key string, earlier []Checkpoint, each func(e *apiv1.AuditEntry) error) (Checkpoint, error) {
	signed, err := l.Checkpoint()
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint(signed, key)
	if err != nil {
		return c, err
	}
	for _, e := range earlier {
		if e.Size > c.Size {
			return c, &BrokenError{int64(c.Size) + 1, fmt.Sprintf("entries were taken away: there were %d before", e.Size)}
		}
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	var before []byte
	n := int64(0)
	for leaf, err := range l.Leaves(0, c.Size) {
		n++
		if err != nil {
			return c, &BrokenError{n, err.Error()}
		}
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
			return c, fmt.Errorf("trail: %w", err)
		}
		e := &apiv1.AuditEntry{}
		switch err := proto.Unmarshal(leaf, e); {
		case err != nil || e.GetSequence() != n:
			return c, &BrokenError{n, "it cannot be read"}
		case !bytes.Equal(e.GetHash(), Chain(before, e)):
			return c, &BrokenError{n, "its hash is not that of its content and of what came before"}
		}
		before = e.GetHash()
		for _, x := range earlier {
			if x.Size != uint64(n) {
				continue
			}
			if root, err := tree.GetRootHash(nil); err != nil || !bytes.Equal(root, x.Root) {
				return c, &BrokenError{n, "the entries up to here are not those of the earlier checkpoint"}
			}
		}
		if each != nil {
			if err := each(e); err != nil {
				return c, err
			}
		}
	}
	root, err := tree.GetRootHash(nil)
	if c.Size == 0 {
		root, err = rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	if err != nil || !bytes.Equal(root, c.Root) {
		return c, &BrokenError{n, "the entries are not those that the checkpoint was signed for"}
	}
	return c, nil
}
