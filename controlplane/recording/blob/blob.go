// Package blob keeps the chunks of recordings as files that are written once. Folder is
// the embedded default; blobtest holds every implementation to the contract. What the
// bytes mean is the business of others.
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
)

// Blobs are named bytes that never change. They are safe for concurrent use, also by
// several processes.
type Blobs interface {
	// Create stores data under a new name, or says ErrExists. Once it returns nil, the
	// blob survives a power failure; after any other error it is there whole or not at
	// all. It keeps nothing of data.
	Create(ctx context.Context, name string, data []byte) error
	// Read returns the whole blob, or ErrNotFound.
	Read(ctx context.Context, name string) ([]byte, error)
	// List tells the names that begin with the folder prefix, which is empty or ends with
	// a slash, in order: of two names, the one that sorts before at the first different
	// element of the path is first. It ends after an error.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// CheckName says what is wrong with a name: it must be a slash-separated relative path
// without empty elements and without one that begins with a dot.
func CheckName(name string) error {
	if !fs.ValidPath(name) || name == "." || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") || strings.ContainsAny(name, "\\\x00") {
		return fmt.Errorf("blob: %q is no name for a blob", name)
	}
	return nil
}
