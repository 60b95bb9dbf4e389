package recording

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A piece is what is stored at once: a chunk, and behind it the seal where that came with it.
type piece struct {
	part
	seal  *part // nil for none
	again bool  // it lies in the blobs already, and is indexed again
}

type part struct {
	*record.Chunk
	data []byte
}

// stored is the part as the index has it.
func (p part) stored() []index.Stored { return []index.Stored{{Hash: p.Hash, Size: len(p.data)}} }

// parse reads a part that must be the chunk of this number.
func parse(data []byte, session string, number uint32) (part, error) {
	chunk, err := record.ParseChunk(data)
	if err != nil {
		return part{}, refuse("%v", err)
	}
	if string(chunk.Session) != session || chunk.Index != number {
		return part{}, refuse("it is chunk %d of session %s", chunk.Index, chunk.Session)
	}
	return part{chunk, data}, nil
}

// ofSeal marks a refusal as one of the seal alone.
func ofSeal(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return &refusal{why: r.why, seal: true}
	}
	return err
}

// parsePiece reads what a node has shipped. Of a seal that is none the chunk is returned too.
func parsePiece(c *nodev1.ShipRequest) (p piece, err error) {
	if p.part, err = parse(c.GetChunk(), c.GetSession(), c.GetIndex()); err != nil || len(c.GetSeal()) == 0 {
		return p, err
	}
	return p, ofSeal(p.add(c.GetSeal()))
}

// add adds the seal that stands behind the chunk.
func (p *piece) add(data []byte) error {
	seal, err := parse(data, string(p.Session), p.Index+1)
	if err != nil {
		return err
	}
	if !seal.Sealing {
		return refuse("it is no seal, and came with the chunk before it")
	}
	p.seal = &seal
	return nil
}

// create stores a piece as one blob. Where an earlier attempt has stored the chunk with a
// seal, p has that one afterwards; where it has stored the chunk alone, the seal gets a blob of
// its own.
func (s *Service) create(ctx context.Context, began time.Time, p *piece) error {
	name, data := blobName(p.Session, began, p.Index), p.data
	if p.seal != nil {
		data = append(data[:len(data):len(data)], p.seal.data...)
	}
	err := s.cfg.Blobs.Create(ctx, name, data)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	stored, err := s.cfg.Blobs.Read(ctx, name)
	if err != nil || bytes.Equal(stored, data) {
		return err
	}
	first, rest := record.Split(stored)
	switch {
	case !bytes.Equal(first, p.data) || len(rest) > 0 && p.seal != nil:
		return refuse("another chunk is stored under its index")
	case p.seal != nil:
		return s.create(ctx, began, &piece{part: *p.seal})
	}
	return p.add(rest)
}

// chunk reads one chunk of a recording, and what stands behind it in its blob.
func (s *Service) chunk(ctx context.Context, id postern.SessionID, began time.Time, number uint32) (data, rest []byte, err error) {
	data, err = s.cfg.Blobs.Read(ctx, blobName(id, began, number))
	if errors.Is(err, blob.ErrNotFound) && number > 0 { // it may be the seal, behind the chunk before
		if data, err = s.cfg.Blobs.Read(ctx, blobName(id, began, number-1)); err == nil {
			if _, data = record.Split(data); len(data) == 0 {
				err = blob.ErrNotFound
			}
		}
	}
	if err != nil {
		return nil, nil, err
	}
	data, rest = record.Split(data)
	return data, rest, nil
}
