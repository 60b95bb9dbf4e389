//go:build unix

package h1

import "syscall"

// quiet reports whether a connection that was kept is still open, and the server has said
// nothing on it that was not asked: neither an answer to come nor the end.
func (l *link) quiet() bool {
	if l.raw == nil {
		return true
	}
	l.still = false
	if l.probe == nil {
		l.probe = func(fd uintptr) bool {
			var b [1]byte
			_, err := syscall.Read(int(fd), b[:])
			l.still = err == syscall.EAGAIN
			return true
		}
	}
	return l.raw.Read(l.probe) == nil && l.still
}
