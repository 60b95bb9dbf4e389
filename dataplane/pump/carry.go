package pump

import (
	"context"
	"net"
)

// Seat has c read and write conn, a Feed or what has one beneath it, which a loop has taken:
// nobody else may use it then but to close it or while c is off. nil ends that.
func Seat(conn net.Conn, c *Carrier) {
	if f := feedOf(conn); f != nil && f.sock != nil {
		f.carrier = c
	}
}

type carrierKey struct{}

// With is ctx for what c runs.
func With(ctx context.Context, c *Carrier) context.Context {
	return context.WithValue(ctx, carrierKey{}, c)
}

// CarrierOf is the one of With, or nil.
func CarrierOf(ctx context.Context) *Carrier {
	c, _ := ctx.Value(carrierKey{}).(*Carrier)
	return c
}

// Off is for who may wait for something else than a socket with a seat: the Carrier of ctx,
// where there is one, does not ride any more.
func Off(ctx context.Context) {
	if c := CarrierOf(ctx); c != nil {
		c.Off()
	}
}
