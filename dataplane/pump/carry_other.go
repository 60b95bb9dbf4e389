//go:build !linux

package pump

// A Carrier rides nowhere but on Linux.
type Carrier struct{}

// Carry runs fn.
func Carry(fn func(c *Carrier)) { fn(&Carrier{}) }

// On does nothing here.
func (c *Carrier) On() {}

// Rides is false.
func (c *Carrier) Rides() bool { return false }

// Off does nothing here.
func (c *Carrier) Off() {}

// Evict has nothing to do here.
func (c *Carrier) Evict() bool { return true }

func (c *Carrier) read(s *sock, b []byte) (int, error)  { return s.read(b) }
func (c *Carrier) write(s *sock, b []byte) (int, error) { return s.write(b) }
