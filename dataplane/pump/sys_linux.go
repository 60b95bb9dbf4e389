package pump

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
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

// poll is epoll_wait that does not wait.
func poll(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
