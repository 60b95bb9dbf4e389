package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ReadFile reads a file that nobody but its owner may read; any other is refused, and so is one
// of more than limit bytes. The caller owns what it gets, and clears it.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %#o): chmod 0600 it, and consider its secrets known", path, info.Mode().Perm())
	case info.Size() > limit:
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	text := make([]byte, info.Size())
	if _, err := io.ReadFull(f, text); err != nil {
		clear(text)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// MakeFile writes a new file of mode 0600, whole or not at all. Where there is one already that
// one stays, and the error is fs.ErrExist. Once it has returned without an error the file is on
// the disk under its name: what is sealed by it next must not outlive it.
func MakeFile(path string, text []byte) error { return write(path, text, os.Link) }

// ReplaceFile is MakeFile that takes the place of what is there.
func ReplaceFile(path string, text []byte) error { return write(path, text, os.Rename) }

func write(path string, text []byte, name func(from, to string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := name(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
