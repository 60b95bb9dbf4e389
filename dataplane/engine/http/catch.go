package http

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

// catches are what streams wait in while secrets are looked for.
var catches = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// A catcher takes secrets out of a stream, wherever it is cut.
type catcher struct {
	from    io.Reader
	secrets [][]byte
	// least is how much of a secret's beginning must stand at the end of what has come for
	// it to be held back until more comes. In a stream whose ends wait for each other a
	// byte or two must not be.
	least int
	buf   []byte  // read, and not given on
	pool  *[]byte // what buf was, to be used again at the end; nil where it is its own
	ready int     // how much of buf is free of secrets
	err   error
}

func (c *catcher) Read(p []byte) (int, error) {
	for c.ready == 0 {
		if c.err != nil {
			if len(c.buf) > 0 {
				c.ready = len(c.buf)
				break
			}
			c.end()
			return 0, c.err
		}
		if c.buf == nil {
			c.pool = catches.Get().(*[]byte)
			c.buf = (*c.pool)[:0]
		}
		at := len(c.buf)
		c.buf = slices.Grow(c.buf, 8<<10)
		var n int
		n, c.err = c.from.Read(c.buf[at:cap(c.buf)])
		c.ready = c.take(c.buf[at : at+n])
	}
	n := copy(p, c.buf[:c.ready])
	c.buf = append(c.buf[:0], c.buf[n:]...)
	c.ready -= n
	return n, nil
}

// end gives the buffer back once all of it was read.
func (c *catcher) end() {
	if c.pool != nil {
		*c.pool, c.buf = c.buf, nil
		catches.Put(c.pool)
		c.pool = nil
	}
}

// take adds what has come, and says how much of buf is free of secrets.
func (c *catcher) take(p []byte) int {
	c.buf = append(c.buf, p...)
	for _, s := range c.secrets {
		cover(c.buf, s)
	}
	return len(c.buf) - c.held()
}

// cover masks what stands in b, by as many characters, so that lengths stay true.
func cover(b, secret []byte) {
	for {
		i := bytes.Index(b, secret)
		if i < 0 {
			return
		}
		for j := range secret {
			b[i+j] = '*'
		}
		b = b[i+len(secret):]
	}
}

// held is how many bytes at the end may be the beginning of a secret.
func (c *catcher) held() int {
	most := 0
	for _, s := range c.secrets {
		for n := min(len(s)-1, len(c.buf)); n > most && n >= c.least; n-- {
			if bytes.HasPrefix(s, c.buf[len(c.buf)-n:]) {
				most = n
				break
			}
		}
	}
	return most
}

// catching is a body without the secrets.
func catching(body io.Reader, secrets [][]byte) io.Reader {
	if len(secrets) == 0 {
		return body
	}
	return &catcher{from: body, secrets: secrets}
}
