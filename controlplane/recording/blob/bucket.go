package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Bucket is Blobs in an object store that gocloud.dev reaches.
type Bucket struct {
	bucket *blob.Bucket
	opts   BucketOptions
}

var _ Blobs = (*Bucket)(nil)

// BucketOptions are what differs between object stores; the zero value is right for one
// that knows conditional writes.
type BucketOptions struct {
	// BeforeWrite sets what only this store knows, such as how long it keeps an object.
	BeforeWrite func(as func(any) bool) error
	// Again reports whether a write failed because another one of the same name was
	// under way, so that it is to be tried again.
	Again func(err error) bool
	// Delete deletes an object for good, where deleting it as every store does leaves what it
	// was; that it is not there is no error.
	Delete func(ctx context.Context, name string) error
	// Refused reports whether the store will never take what was written, for what it is.
	Refused func(err error) bool
}

// writeTries is how often a write is tried that Again wants to be tried again.
const writeTries = 5

// NewBucket makes Blobs of a bucket, and owns it.
func NewBucket(b *blob.Bucket, opts BucketOptions) *Bucket { return &Bucket{bucket: b, opts: opts} }

// Close closes the bucket.
func (b *Bucket) Close() error { return b.bucket.Close() }

// Create implements Blobs.
func (b *Bucket) Create(ctx context.Context, name string, data []byte) error {
	if err := check(name, data); err != nil {
		return err
	}
	var err error
	for range writeTries {
		err = b.bucket.WriteAll(ctx, name, data, &blob.WriterOptions{
			ContentType: "application/octet-stream", IfNotExist: true, BeforeWrite: b.opts.BeforeWrite,
		})
		if b.opts.Again == nil || !b.opts.Again(err) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case gcerrors.Code(err) == gcerrors.FailedPrecondition:
		return ErrExists
	case b.opts.Refused != nil && b.opts.Refused(err):
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("blob: create %s: %w", name, err)
}

// Read implements Blobs.
func (b *Bucket) Read(ctx context.Context, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	data, err := b.read(ctx, name)
	switch {
	case err == nil:
		return data, nil
	case gcerrors.Code(err) == gcerrors.NotFound:
		return nil, ErrNotFound
	}
	return nil, fmt.Errorf("blob: read %s: %w", name, err)
}

func (b *Bucket) read(ctx context.Context, name string) (_ []byte, err error) {
	r, err := b.bucket.NewReader(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Size() > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes, and is no blob", r.Size())
	}
	data := make([]byte, r.Size())
	_, err = io.ReadFull(r, data)
	return data, err
}

// Delete implements Blobs.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	remove := b.bucket.Delete
	if b.opts.Delete != nil {
		remove = b.opts.Delete
	}
	if err := remove(ctx, name); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("blob: delete %s: %w", name, err)
	}
	return nil
}

// List implements Blobs.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		objects := b.bucket.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := objects.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield("", fmt.Errorf("blob: list %s: %w", prefix, err))
				return
			case checkName(o.Key) != nil:
				continue // somebody else's
			case !yield(o.Key, nil):
				return
			}
		}
	}
}
