package blob

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// createUnnamed writes a file that gets its one name when it is whole: a third of the
// changes to the folder that a temporary name takes. Where the file system has no such
// files it does nothing.
func createUnnamed(dir *os.File, base string, data []byte) (done bool, err error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("openat", err)
	}
	file := os.NewFile(uintptr(fd), base)
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := fill(file, data); err != nil {
		return false, err
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), int(dir.Fd()), base, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.ENOENT) { // no /proc
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("linkat", err)
	}
	return true, nil
}
