// Package blob keeps the chunks of recordings as files that are written once. Folder is
// the embedded default, Bucket an object store; blobtest holds every implementation to
// the contract. What the bytes mean is the business of others.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
)

// MaxBytes is the largest blob.
const MaxBytes = 4 << 20

// Errors of Blobs.
var (
	ErrExists   = errors.New("blob: exists already")
	ErrNotFound = errors.New("blob: not found")
	// ErrRefused means that the store says of a blob that it will never keep it: it is too
	// large, for one.
	ErrRefused = errors.New("blob: the store does not keep this")
)

// Blobs are named bytes that never change. They are safe for concurrent use, also by
// several processes.
type Blobs interface {
	// Create stores data under a new name, or says ErrExists or ErrRefused. Once it returns nil, the
	// blob survives a power failure; after any other error it is there whole or not at
	// all. It keeps nothing of data.
	Create(ctx context.Context, name string, data []byte) error
	// Read returns the whole blob, or ErrNotFound.
	Read(ctx context.Context, name string) ([]byte, error)
	// Delete removes a blob; one that is not there is no error. A store that was told to
	// keep its blobs for a time refuses until then.
	Delete(ctx context.Context, name string) error
	// List tells the names that begin with the folder prefix, which is empty or ends with
	// a slash. Those of one folder come together, and in order. It ends after an error.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// check says what is wrong with a blob that is to be created.
func check(name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(data) > MaxBytes {
		return fmt.Errorf("blob: create %s: %d bytes are over the limit of %d: %w", name, len(data), MaxBytes, ErrRefused)
	}
	return nil
}

// checkName says what is wrong with a name: it must be a slash-separated relative path
// without empty elements and without one that begins with a dot.
func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") || strings.ContainsAny(name, "\\\x00") {
		return fmt.Errorf("blob: %q is no name for a blob", name)
	}
	return nil
}
