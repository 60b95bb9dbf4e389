package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment is one preallocated, mapped file of entries. Its fields are guarded by
// Spool.mu.
//
//	8 bytes "PSTRNSP2"
//	uint64 place in the log, from 1; 0 while the segment waits for its turn
//	entries, each at a multiple of 8 bytes:
//	uint32 length of what follows the sum; 0 ends the segment
//	uint32 CRC-32C over the length and what follows the sum
//	uint8  kind
//	uint64 session, by its number in this spool
//	payload
type segment struct {
	place  uint64
	file   *os.File
	mem    []byte
	used   int // bytes
	ready  int // bytes that were made ready to be written
	step   int // how many are next; a page at least
	synced int // bytes known to be on the disk
	// live is how many bytes of frames and seals here are not stored elsewhere yet.
	live int
	head [entryHeader]byte // of the entry that is added; no allocation for each
}

const (
	segmentMagic  = "PSTRNSP2"
	segmentHeader = 16
	entryHeader   = 8 + 1 + 8
	segmentSuffix = ".spool"
	// rollRoom is kept free at the end of a segment for the entry that closes it.
	rollRoom = (entryHeader + 7) &^ 7
)

type entryKind uint8

// The kinds of entry. Frames without a cut behind them are no chunk yet.
const (
	entryFrames entryKind = iota + 1 // a run of an earlier version: see bareHead
	entryPart                        // a part of the bytes of the next chunk that is cut
	entryCut                         // which runs are chunk N: see cutting
	entryState                       // what the next start must know: see state
	entryEnd                         // the session is over: see ending
	entrySeal                        // the seal, whole, since signing it again gives other bytes
	entryDone                        // all of the session is stored elsewhere
	entryRoll                        // the log goes on in the next segment
	entryRun                         // a run of sealed frames: see runHead
)

// The payload of entryFrames is that of entryRun without the size of the frames, which are
// as they are: so many bytes shorter than the run.
const (
	bareHead = 8 + 8
	bareSeal = 12 + 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d%s", number, segmentSuffix))
}

// segmentNumber reads a file's name; ok is false for what is no segment.
func segmentNumber(name string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, ok && err == nil
}

func createSegment(dir string, number uint64, size int) (_ *segment, err error) {
	f, err := os.OpenFile(segmentPath(dir, number), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := allocate(f, size); err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", size, err)
	}
	mem, err := mapFile(f, size, true)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	copy(mem, segmentMagic)
	if err := errors.Join(f.Sync(), syncDir(dir)); err != nil {
		return nil, errors.Join(err, unmapFile(mem))
	}
	return &segment{file: f, mem: mem, used: segmentHeader}, nil
}

var errNoSegment = errors.New("it does not begin as a segment")

// openSegment maps a segment of an earlier process, for reading. With errNoSegment the
// segment is returned too.
func openSegment(dir string, number uint64) (_ *segment, err error) {
	f, err := os.Open(segmentPath(dir, number))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && !errors.Is(err, errNoSegment) {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	seg := &segment{file: f, used: segmentHeader}
	if info.Size() < segmentHeader {
		return seg, nil
	}
	if seg.mem, err = mapFile(f, int(info.Size()), false); err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	seg.place = binary.LittleEndian.Uint64(seg.mem[len(segmentMagic):])
	if magic := string(seg.mem[:len(segmentMagic)]); magic != segmentMagic && (seg.place != 0 || strings.Trim(magic, "\x00") != "") {
		return seg, errNoSegment
	}
	return seg, nil
}

// begin gives the segment its place in the log.
func (s *segment) begin(place uint64) {
	s.place = place
	binary.LittleEndian.PutUint64(s.mem[len(segmentMagic):], place)
}

// entrySize is how much room an entry with n bytes of payload takes.
func entrySize(n int) int { return (entryHeader + n + 7) &^ 7 }

// fits reports whether an entry can be added and the segment still be closed.
func (s *segment) fits(n int) bool { return s.used+entrySize(n)+rollRoom <= len(s.mem) }

const (
	// readyStep is the most bytes that are made ready at once: page by page costs more than
	// to copy what is then written there.
	readyStep = 64 << 10
	// direct is from how many bytes on it costs less to write to the file than to map its
	// pages and to copy: a third with 128 KiB, and the same with 16.
	direct = 32 << 10
	page   = 4 << 10
)

// add writes one entry, which must fit, and returns where its payload stands.
func (s *segment) add(kind entryKind, ref uint64, payload []byte) int {
	stamp(s.head[:], kind, ref, payload)
	offset := s.used + entryHeader
	s.write(offset, payload)
	s.write(s.used, s.head[:]) // the length last: without it there is no entry
	s.used += entrySize(len(payload))
	return offset
}

// addAll writes entries that stand in b as they will in the segment, and fit, and returns
// where the first begins.
func (s *segment) addAll(b []byte) int {
	const length = 4
	at := s.used
	s.write(at+length, b[length:])
	s.write(at, b[:length])
	s.used += len(b)
	return at
}

// stamp writes the head of an entry. Its sum is over what was given, which is at hand, and
// not over what stands in the mapping, which would have to be waited for.
func stamp(head []byte, kind entryKind, ref uint64, payload []byte) {
	binary.LittleEndian.PutUint32(head, uint32(entryHeader-8+len(payload)))
	head[8] = byte(kind)
	binary.LittleEndian.PutUint64(head[9:], ref)
	sum := crc32.Update(crc32.Checksum(head[:4], castagnoli), castagnoli, head[8:entryHeader])
	binary.LittleEndian.PutUint32(head[4:], crc32.Update(sum, castagnoli, payload))
}

// write writes b at a place of the segment; it belongs to the kernel at once.
func (s *segment) write(at int, b []byte) {
	if len(b) >= direct {
		if _, err := s.file.WriteAt(b, int64(at)); err == nil {
			s.ready, s.step = max(s.ready, (at+len(b))&^(page-1)), 0
			return
		}
		// What is wrong with the file shows when it is synced, as with the mapping.
	}
	for s.ready < at+len(b) {
		step := max(s.step, page)
		next := min(s.ready+step, len(s.mem))
		makeReady(s.mem[s.ready:next])
		s.ready, s.step = next, min(2*step, readyStep)
	}
	copy(s.mem[at:], b)
}

// kind is that of the entry whose payload stands at offset.
func (s *segment) kind(offset int) entryKind { return entryKind(s.mem[offset-entryHeader+8]) }

// entry is one entry as it is read back; payload shares memory with the segment.
type entry struct {
	kind    entryKind
	ref     uint64
	payload []byte
	offset  int // of the payload
}

// each reads the entries of a segment in order and leaves used behind the last good
// one. rolled tells that the segment was closed; damage tells of bytes that are no entry.
func (s *segment) each(fn func(e entry)) (rolled bool, damage error) {
	s.used = segmentHeader
	for s.used+entryHeader <= len(s.mem) {
		at := s.mem[s.used:]
		n := int(binary.LittleEndian.Uint32(at))
		if n == 0 {
			return false, nil
		}
		if n < entryHeader-8 || n > len(at)-8 {
			return false, fmt.Errorf("an entry at byte %d has no valid length", s.used)
		}
		body := at[8 : 8+n]
		if binary.LittleEndian.Uint32(at[4:]) != crc32.Update(crc32.Checksum(at[:4], castagnoli), castagnoli, body) {
			return false, fmt.Errorf("an entry at byte %d is damaged", s.used)
		}
		e := entry{kind: entryKind(body[0]), ref: binary.LittleEndian.Uint64(body[1:]), payload: body[9:], offset: s.used + entryHeader}
		s.used = min(s.used+entrySize(n-(entryHeader-8)), len(s.mem))
		if e.kind == entryRoll {
			return true, nil
		}
		fn(e)
	}
	return false, nil
}

// blank reports whether no entry was ever written.
func (s *segment) blank() bool {
	return s.used == segmentHeader && len(bytes.Trim(s.mem[s.used:min(s.used+entryHeader, len(s.mem))], "\x00")) == 0
}

// close forgets the segment; with remove it is deleted too.
func (s *segment) close(remove bool) error {
	var err error
	if s.mem != nil {
		err = unmapFile(s.mem)
		s.mem = nil
	}
	err = errors.Join(err, s.file.Close())
	if remove {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}
