package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// asideDir is the folder, below the spool's, of what was put aside: SESSION-INDEX.chunk.
const (
	asideDir    = "rejected"
	asideSuffix = ".chunk"
)

// enough streams are no accident.
const enough = 5

// late is how old the oldest record is, where the node may not go on because of it; zero
// where it may. It is not all the node that has to stop for one recording: where the control
// plane has passed it over again and again and stored others meanwhile, that one is put
// aside. And where there is no other, that one alone is barred until it shows whether there
// is one that the control plane stores: within the time of the strictest mode, or the node
// stops as well. s.mu is held.
func (s *Spool) late(now time.Time) time.Duration {
	for len(s.ages) > 0 {
		ses, age := s.ages[0], s.ages.oldest(now)
		passed := ses.passed >= enough
		switch {
		case age <= s.cfg.MaxUnshipped:
			return 0
		case !passed && (ses.tried < enough || s.ages.second(now) > s.cfg.RemoteTimeout):
			return age
		case !ses.barred.Swap(true):
			s.log.Error("the control plane does not store a recording; its session can record no more", "session", ses.id, "age", age, "streams", ses.tried)
			return 0 // what it holds back is kept until the next look
		case !passed:
			return 0
		}
		if !s.giveUp(ses, fmt.Sprintf("it did not store it over %d streams and stored others meanwhile", ses.passed)) {
			return age
		}
	}
	return 0
}

// rejected puts aside what is left of a session that the control plane refuses for good.
func (s *Spool) rejected(id string, index uint32, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses := s.sessions[postern.SessionID(id)]; ses != nil {
		s.giveUp(ses, fmt.Sprintf("chunk %d: %s", index, why))
	}
}

// giveUp puts aside what is left of a session, for people to look at, and lets the session
// take no more; s.mu is held. Where that fails it stays in the spool.
func (s *Spool) giveUp(ses *session, why string) bool {
	s.log.Error("the control plane refused a recording; it is put aside", "session", ses.id, "reason", why, "folder", filepath.Join(s.cfg.Dir, asideDir))
	s.failLocked(ses, fmt.Errorf("spool: session %s: the control plane refused its recording: %s", ses.id, why))
	if err := s.putAside(ses); err != nil {
		s.log.Error("a refused recording could not be put aside", "session", ses.id, "error", err)
		return false
	}
	for _, c := range ses.chunks {
		s.drop(c)
	}
	s.drop(&chunk{runs: ses.uncut, size: ses.size})
	ses.chunks, ses.uncut, ses.size, ses.frames, ses.built = nil, nil, 0, 0, 0
	s.follow(ses)
	if err := s.done(ses); err != nil {
		s.log.Error("a refused recording could not be ended", "session", ses.id, "error", err)
	}
	return true
}

// putAside writes what is not stored of a session as chunks into files, which are on the
// disk afterwards; s.mu is held.
func (s *Spool) putAside(ses *session) error {
	dir := filepath.Join(s.cfg.Dir, asideDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	at := ses.stored
	for _, c := range append(slices.Clone(ses.chunks), &chunk{runs: ses.uncut}) {
		if len(c.runs)+len(c.parts) == 0 {
			continue
		}
		index := at.next
		after, err := ses.settle(at, c)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", index, err)
		}
		data, err := ses.append(nil, at, &chunk{runs: c.runs, parts: c.parts, after: after})
		if err != nil {
			return fmt.Errorf("chunk %d: %w", index, err)
		}
		at = after
		if err := writeFile(filepath.Join(dir, fmt.Sprintf("%s-%d%s", ses.id, index, asideSuffix)), data); err != nil {
			return err
		}
		s.aside[ses.id] = struct{}{}
	}
	return errors.Join(syncDir(dir), syncDir(s.cfg.Dir))
}

func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// findAside tells of which sessions something was put aside.
func findAside(dir string) (map[postern.SessionID]struct{}, error) {
	files, err := os.ReadDir(filepath.Join(dir, asideDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	aside := map[postern.SessionID]struct{}{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), asideSuffix)
		if i := strings.LastIndexByte(name, '-'); ok && i > 0 {
			aside[postern.SessionID(name[:i])] = struct{}{}
		}
	}
	return aside, nil
}

// Aside is of how many recordings something was put aside, and stays on this node.
func (s *Spool) Aside() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.aside)
}

// IsAside reports whether something of a recording was put aside.
func (s *Spool) IsAside(id postern.SessionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.aside[id]
	return is
}
