package ssh

import (
	"errors"
	"io"
	"sync"
)

// What streams are copied through is as large as a packet may be and, while more comes than
// that, as several: a window is then opened again once for all of them.
const (
	packet = 32 << 10
	wide   = 4 * packet
)

var (
	packets = sync.Pool{New: func() any { b := make([]byte, packet); return &b }}
	wides   = sync.Pool{New: func() any { b := make([]byte, wide); return &b }}
)

// errOver ends a copy to somebody who takes no more: no fault.
var errOver = errors.New("it takes no more")

// each gives what a stream says to fn, piece by piece, until it has said all or fn fails.
// A piece is fn's until it returns.
func each(from io.Reader, fn func([]byte) error) error {
	pool := &packets
	b := pool.Get().(*[]byte)
	defer func() { pool.Put(b) }()
	for {
		n, rerr := from.Read(*b)
		if n > 0 {
			switch err := fn((*b)[:n]); {
			case errors.Is(err, errOver):
				return nil
			case err != nil:
				return err
			}
		}
		if rerr != nil {
			return nil
		}
		next := pool
		switch {
		case n == packet && pool == &packets:
			next = &wides
		case n <= packet && pool == &wides:
			next = &packets
		}
		if next != pool {
			pool.Put(b)
			pool, b = next, next.Get().(*[]byte)
		}
	}
}
