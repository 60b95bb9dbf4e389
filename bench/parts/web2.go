package parts

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is what a server may send before it is told that it was read: more than any
// answer here on a stream, and on the connection renewed by half.
const window = 1 << 28

// http2 asks on every stream of one connection until the time is over, and waits for the
// last answers. The frames are written and read as they are: a client that does all that
// HTTP/2 can would take longer than what is measured.
func (s *Web) http2(c net.Conn, a *asking, until time.Time) error {
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	f.SetReuseFrames()
	err := errors.Join(
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}),
		f.WriteWindowUpdate(0, window))
	if err != nil {
		return err
	}
	block := s.block()
	sent := map[uint32]time.Time{}
	next := uint32(1)
	begin := func() error {
		sent[next] = time.Now()
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: block, EndStream: true, EndHeaders: true})
		next += 2
		return err
	}
	for range s.Streams {
		if err := begin(); err != nil {
			return err
		}
	}
	status := ""
	head := hpack.NewDecoder(0, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			status = h.Value
		}
	})
	var unread uint32
	for len(sent) > 0 {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if _, err := head.Write(frame.HeaderBlockFragment()); err != nil {
				return err
			}
			if !frame.HeadersEnded() || status != "200" {
				return fmt.Errorf("%s%s: the answer is %q", s.Addr, s.Path, status)
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			a.bytes += int64(len(frame.Data()))
			if unread += frame.Length; unread > window/2 {
				if err := f.WriteWindowUpdate(0, unread); err != nil {
					return err
				}
				unread = 0
			}
			ended = frame.StreamEnded()
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = f.WritePing(true, frame.Data)
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return fmt.Errorf("%s%s: the server ends it: %v", s.Addr, s.Path, frame)
		}
		if err == nil && ended {
			id, now := frame.Header().StreamID, time.Now()
			a.took = append(a.took, now.Sub(sent[id]))
			delete(sent, id)
			if now.Before(until) {
				err = begin()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// block is the head of a request, the same each time: nothing goes into the table.
func (s *Web) block() []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	fields := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: s.Host}, {Name: ":path", Value: s.Path}}
	if s.Token != "" {
		fields = append(fields, hpack.HeaderField{Name: "authorization", Value: "Bearer " + s.Token, Sensitive: true})
	}
	for _, f := range fields {
		_ = enc.WriteField(f) // to memory
	}
	return b.Bytes()
}
