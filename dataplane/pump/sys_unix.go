//go:build unix && !linux

package pump

import (
	"errors"
	"syscall"
)

func read(fd int, b []byte) (int, syscall.Errno) { return number(syscall.Read(fd, b)) }

func write(fd int, b []byte) (int, syscall.Errno) { return number(syscall.Write(fd, b)) }

func number(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		errno = syscall.EIO
	}
	return n, errno
}
