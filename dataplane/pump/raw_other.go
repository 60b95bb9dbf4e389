//go:build !unix

package pump

const rawReads = false

func (p *pump) passRaw() error { panic("pump: raw reads are for unix alone") }
