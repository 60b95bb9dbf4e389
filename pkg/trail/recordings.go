package trail

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A Finding is what is wrong with one recording.
type Finding struct {
	Session string `json:"session"`
	Problem string `json:"problem"`
}

// Summary is what VerifyRecordings found.
type Summary struct {
	Entries uint64 `json:"entries"` // of the audit log
	Sealed  int    `json:"sealed"`  // recordings that are whole
	// Truncated recordings were sealed by a node that had been stopped, or their rest was
	// lost and the log tells how much there was; Open ones have no seal: their session
	// lives, or their node is away.
	Truncated int        `json:"truncated"`
	Open      []Unsealed `json:"open,omitempty"`
	Expired   int        `json:"expired"` // deleted by retention, which the log tells
	Findings  []Finding  `json:"findings,omitempty"`
}

// Unsealed is what is known of a recording without a seal.
type Unsealed struct {
	Session string    `json:"session"`
	Began   time.Time `json:"began"`
	Chunks  int       `json:"chunks"`
	Last    uint64    `json:"last"` // seq of the last event
	Recording
}

// known is what the log tells of one recording.
type known struct {
	at           time.Time
	began, ended *Recording
	lost         *Recording // as it stood when it was given up last
	expired      bool
	doubt        string // what was told first: later the grant may be forgotten
}

// VerifyRecordings verifies the log, and every recording of a folder against it: that
// each is what its node wrote, and that none which the log tells of is missing. only
// names those that are looked at, with what is raw of them; empty means all. No recording is opened.
func (l *Log) VerifyRecordings(key string, earlier []Checkpoint, folder fs.FS, only ...string) (Summary, error) {
	var s Summary
	sessions := map[string]*known{}
	c, err := l.Verify(key, earlier, func(e *apiv1.AuditEntry) error { return s.learn(sessions, e) })
	if err != nil {
		return s, err
	}
	s.Entries = c.Size
	stored, err := s.list(folder)
	if err != nil {
		return s, err
	}
	wanted := func(id string) bool {
		of, _ := record.RawOf(postern.SessionID(id))
		return len(only) == 0 || slices.Contains(only, id) || slices.Contains(only, string(of))
	}
	for id, k := range sessions {
		if !wanted(id) {
			continue
		}
		if err := s.compare(folder, id, k, stored[id]); err != nil {
			return s, err
		}
	}
	for id := range stored {
		if sessions[id] == nil && wanted(id) {
			s.found(id, "the log does not tell of it")
		}
	}
	for _, id := range only {
		if sessions[id] == nil && stored[id] == nil {
			s.found(id, "neither the log nor the folder tells of it")
		}
	}
	slices.SortFunc(s.Findings, func(a, b Finding) int { return cmp.Compare(a.Session, b.Session) })
	slices.SortFunc(s.Open, func(a, b Unsealed) int { return cmp.Compare(a.Session, b.Session) })
	return s, nil
}

func (s *Summary) found(id, format string, args ...any) {
	s.Findings = append(s.Findings, Finding{id, fmt.Sprintf(format, args...)})
}

// learn takes what an entry tells of a recording.
func (s *Summary) learn(sessions map[string]*known, e *apiv1.AuditEntry) error {
	if e.GetAction() == Expired || e.GetAction() == Kept {
		return expire(sessions, e, e.GetAction() == Expired)
	}
	id, ok := strings.CutPrefix(e.GetObject(), "session/")
	if !ok || e.GetAction() != Began && e.GetAction() != Sealed && e.GetAction() != Lost {
		return nil
	}
	k := sessions[id]
	if k == nil {
		k = &known{}
		sessions[id] = k
	}
	var r Recording
	if err := json.Unmarshal([]byte(e.GetDetail()), &r); err != nil {
		return &BrokenError{e.GetSequence(), "what it tells of a recording cannot be read"}
	}
	k.doubt = cmp.Or(k.doubt, r.Doubt)
	if e.GetAction() == Lost { // what comes after all is told of by a seal, or another loss
		k.lost = &r
		return nil
	}
	slot := &k.ended
	if e.GetAction() == Began {
		slot = &k.began
		k.at = e.GetTime().AsTime()
	}
	if *slot != nil && !bytes.Equal((*slot).Hash, r.Hash) {
		s.found(id, "the log tells of it twice, and not the same: entry %d", e.GetSequence())
	}
	*slot = &r
	return nil
}

// expire takes what an entry tells of recordings that retention deletes.
func expire(sessions map[string]*known, e *apiv1.AuditEntry, gone bool) error {
	var d struct{ Sessions []string }
	if err := json.Unmarshal([]byte(e.GetDetail()), &d); err != nil {
		return &BrokenError{e.GetSequence(), "which recordings were deleted cannot be read"}
	}
	for _, id := range d.Sessions {
		if k := sessions[id]; k != nil {
			k.expired = gone
		}
	}
	return nil
}

// list finds the files of every recording in a folder, in order of their names.
func (s *Summary) list(folder fs.FS) (map[string][]string, error) {
	stored := map[string][]string{}
	err := fs.WalkDir(folder, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		id := path.Base(path.Dir(name))
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err != nil || len(e.Name()) != 10 || record.CheckSession(postern.SessionID(id)) != nil {
			return nil // the folder may hold other things
		}
		if before := stored[id]; len(before) > 0 && path.Dir(before[0]) != path.Dir(name) {
			s.found(id, "it is stored twice: in %s too", path.Dir(name))
			return nil
		}
		stored[id] = append(stored[id], name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the recordings: %w", err)
	}
	return stored, nil
}

// compare holds one recording against what the log tells of it.
func (s *Summary) compare(folder fs.FS, id string, k *known, files []string) error {
	if len(files) == 0 {
		switch {
		case k.expired:
			s.Expired++
		case k.ended != nil:
			s.found(id, "all of it is missing: %d chunks of node %s, which was sealed", k.ended.Chunks, k.ended.Node)
		case k.lost != nil:
			s.found(id, "all of it is missing: %d chunks of node %s, which lost the rest", k.lost.Chunks, k.lost.Node)
		default:
			s.found(id, "all of it is missing: it began at %s on node %s", k.at.Format(time.RFC3339), k.began.Node)
		}
		return nil
	}
	var node crypto.PublicKey
	if k.ended != nil {
		var err error
		if node, err = x509.ParsePKIXPublicKey(k.ended.NodeKey); err != nil {
			s.found(id, "the log tells no key of node %s: %v", k.ended.Node, err)
			return nil
		}
	}
	if k.doubt != "" {
		s.found(id, "whose it is cannot be believed: %s", k.doubt)
	}
	r, err := record.Verify(read(folder, files), node, nil)
	if err != nil {
		return fmt.Errorf("session %s: %w", id, err)
	}
	for _, err := range r.Errors {
		s.found(id, "%v", err)
	}
	switch {
	case len(r.Errors) > 0:
	case k.began != nil && !bytes.Equal(k.began.Hash, firstHash(folder, files)):
		s.found(id, "it does not begin with the chunk that the log tells of")
	case k.ended == nil && r.State != record.StateOpen:
		s.found(id, "it is sealed, and the log does not tell of that")
	case k.ended == nil && k.lost != nil && r.Chunks < int(k.lost.Chunks):
		s.found(id, "%d of the %d chunks are there that its node had shipped before it lost the rest", r.Chunks, k.lost.Chunks)
	case k.ended == nil && k.lost != nil && r.Chunks == int(k.lost.Chunks):
		if r.Hash != record.Hash(pad(k.lost.Hash)) {
			s.found(id, "it is not the recording whose loss the log tells of")
			break
		}
		s.Truncated++
	case k.ended == nil:
		o := Unsealed{Session: id, Began: k.at, Chunks: r.Chunks, Last: r.Last}
		if k.began != nil {
			o.Recording = *k.began
		}
		s.Open = append(s.Open, o)
	case r.State == record.StateOpen:
		s.found(id, "its end is missing: %d of %d chunks are there", r.Chunks, k.ended.Chunks)
	case r.Hash != record.Hash(pad(k.ended.Hash)) || r.Chunks != int(k.ended.Chunks):
		s.found(id, "it is not the recording whose seal the log tells of")
	case r.State == record.StateTruncated:
		s.Truncated++
	default:
		s.Sealed++
	}
	return nil
}

// pad makes 32 bytes of a hash of any length, of which no other has the same.
func pad(h []byte) []byte {
	if len(h) != len(record.Hash{}) {
		return make([]byte, len(record.Hash{}))
	}
	return h
}

func firstHash(folder fs.FS, files []string) []byte {
	for data, err := range read(folder, files[:1]) {
		if err != nil || len(data) < len(record.Hash{}) {
			break
		}
		return data[len(data)-len(record.Hash{}):]
	}
	return nil
}

// read reads the chunks that are in files; of a file that is longer than may be, so much
// that it is seen to hold none.
func read(folder fs.FS, files []string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, name := range files {
			f, err := folder.Open(name)
			var data []byte
			if err == nil {
				data, err = io.ReadAll(io.LimitReader(f, record.MaxStored+1))
				err = errors.Join(err, f.Close())
			}
			for more := true; more; more = len(data) > 0 {
				var chunk []byte
				chunk, data = record.Split(data)
				if !yield(chunk, err) || err != nil {
					return
				}
			}
		}
	}
}
