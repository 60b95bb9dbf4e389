//go:build !linux

package pump

import (
	"context"
	"errors"
	"net"
	"time"
)

// Loops are for Linux alone; elsewhere every Run has its goroutine.
type Loops struct{}

// NewLoops says that there are none here.
func NewLoops(int) (*Loops, error) { return nil, errors.ErrUnsupported }

// Batches says that there are none here.
func (l *Loops) Batches() error { return errors.ErrUnsupported }

// Run waits for ctx.
func (l *Loops) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Board takes nothing.
func (l *Loops) Board(...net.Conn) error { return errors.ErrUnsupported }

// DefaultLoops is how many loops there should be.
func DefaultLoops() int { return 0 }

// sock is what no Feed has here.
type sock struct {
	fd               int
	reading, writing struct{}
}

func (*sock) ride(*pump) error                 { panic("pump: loops are for Linux alone") }
func (*sock) readNow([]byte) (int, error)      { panic("pump: loops are for Linux alone") }
func (*sock) read([]byte) (int, error)         { panic("pump: loops are for Linux alone") }
func (*sock) write([]byte) (int, error)        { panic("pump: loops are for Linux alone") }
func (*sock) drain() error                     { panic("pump: loops are for Linux alone") }
func (*sock) close() error                     { panic("pump: loops are for Linux alone") }
func (*sock) linger(int) error                 { panic("pump: loops are for Linux alone") }
func (*sock) setDeadline(*struct{}, time.Time) { panic("pump: loops are for Linux alone") }

func (*pump) stalled() bool { return false }
