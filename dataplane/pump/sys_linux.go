package pump

import (
	"syscall"
	"unsafe"
)

// A socket that does not block gives the processor back within microseconds, so the
// scheduler is not told: it would take the call for one that waits, and hand its work to
// another thread that has to be woken.

func read(fd int, b []byte) (int, syscall.Errno) {
	return call(syscall.SYS_READ, fd, b)
}

func write(fd int, b []byte) (int, syscall.Errno) {
	return call(syscall.SYS_WRITE, fd, b)
}

func call(number uintptr, fd int, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	n, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
