package pump

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is an io_uring that sends to many sockets by one system call. Nothing is left to
// the kernel when that returns: a socket that takes no more answers EAGAIN, as to write.
// The layouts are those of io_uring(7) and linux/io_uring.h, of kernel 5.6 and later.
type ring struct {
	fd      int
	rings   []byte // the heads and tails, and the completions
	entries []byte // what is submitted

	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	array                  []uint32
	sqes                   []sqe
	cqes                   []cqe
}

const (
	opSend        = 26      // IORING_OP_SEND
	enterWait     = 1       // IORING_ENTER_GETEVENTS
	singleMapping = 1       // IORING_FEAT_SINGLE_MMAP
	offsetSQEs    = 1 << 28 // IORING_OFF_SQES
)

// sqe is struct io_uring_sqe.
type sqe struct {
	op, flags uint8
	prio      uint16
	fd        int32
	off, addr uint64
	size      uint32
	msgFlags  uint32
	data      uint64
	_         [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	data  uint64
	res   int32
	flags uint32
}

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// newRing makes a ring for n sends at once, a power of two. An error is what the kernel, or
// whoever confines the process, says to io_uring.
func newRing(n uint32) (*ring, error) {
	var p params
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(n), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	if p.features&singleMapping == 0 {
		r.close()
		return nil, errors.New("io_uring: the kernel is too old")
	}
	var err error
	size := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})))
	if r.rings, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		r.entries, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if err != nil {
		r.close()
		return nil, os.NewSyscallError("mmap", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqTail, r.cqHead, r.cqTail = at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	r.sqMask, r.cqMask = *at(p.sq.mask), *at(p.cq.mask)
	r.array = unsafe.Slice(at(p.sq.array), p.sqEntries)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	return r, nil
}

func (r *ring) close() {
	if r.rings != nil {
		_ = unix.Munmap(r.rings)
	}
	if r.entries != nil {
		_ = unix.Munmap(r.entries)
	}
	_ = unix.Close(r.fd)
}

// put adds the sending of b, which stays as it is until submit has returned; i comes back
// with the result.
func (r *ring) put(i, fd int, b []byte) {
	tail := *r.sqTail
	slot := tail & r.sqMask
	r.sqes[slot] = sqe{
		op: opSend, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), size: uint32(len(b)), //nolint:gosec // descriptors, and parcels, are small
		msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, data: uint64(i), //nolint:gosec // no less than 0
	}
	r.array[slot] = slot
	atomic.StoreUint32(r.sqTail, tail+1)
}

// submit sends the n that were put, and calls result for each: how many bytes of it were
// taken, or why none. After an error, which is the ring's, only the first taken of them may
// have been sent, and the ring cannot be used any more.
func (r *ring) submit(n int, result func(i, sent int, errno syscall.Errno)) (taken int, err error) {
	for got := 0; got < n; {
		var k uintptr
		var errno syscall.Errno
		if taken < n { // does not block, so that the scheduler is not told
			k, _, errno = syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-taken), 0, 0, 0, 0)
		} else { // the kernel has put something off
			_, _, errno = syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, uintptr(n-got), enterWait, 0, 0)
		}
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return taken, os.NewSyscallError("io_uring_enter", errno)
		case taken < n && k == 0:
			return taken, errors.New("io_uring_enter: nothing was taken")
		}
		taken += int(k)
		head := *r.cqHead
		for ; head != atomic.LoadUint32(r.cqTail); head++ {
			c := r.cqes[head&r.cqMask]
			if got++; c.res < 0 {
				result(int(c.data), 0, syscall.Errno(-c.res)) //nolint:gosec // what put was given
			} else {
				result(int(c.data), int(c.res), 0) //nolint:gosec // what put was given
			}
		}
		atomic.StoreUint32(r.cqHead, head)
	}
	return taken, nil
}
