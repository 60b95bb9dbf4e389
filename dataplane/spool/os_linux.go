package spool

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives the file size bytes of zeros with blocks behind them, so that a full
// disk shows here and not as a fault when the mapping is written.
func allocate(f *os.File, size int) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if errors.Is(err, unix.EOPNOTSUPP) {
		zeros := make([]byte, 64<<10)
		for at := 0; at < size && (err == nil || at == 0); at += len(zeros) {
			_, err = f.WriteAt(zeros[:min(len(zeros), size-at)], int64(at))
		}
	}
	return err
}

// mapFile maps the whole file, shared: what is stored in the mapping belongs to the
// kernel at once, and survives the process.
func mapFile(f *os.File, size int, writable bool) ([]byte, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return unix.Mmap(int(f.Fd()), 0, size, prot, unix.MAP_SHARED)
}

// makeReady maps pages that are about to be written, all in one call. mem begins at a page.
// Where it fails, they are mapped one by one as they are written.
func makeReady(mem []byte) { _ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE) }

func unmapFile(mem []byte) error { return unix.Munmap(mem) }

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// lockDir takes the folder for this process until the returned file is closed.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another process has the spool: %w", path, err), f.Close())
	}
	return f, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
