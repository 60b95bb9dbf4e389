//go:build !unix

package pump

const rawReads = false

func rawRead(int, []byte) (int, error) { panic("pump: raw reads are for unix alone") }

func (p *pump) passRaw() error { panic("pump: raw reads are for unix alone") }

func rawWrite(int, []byte) (int, error) { panic("pump: raw writes are for unix alone") }
