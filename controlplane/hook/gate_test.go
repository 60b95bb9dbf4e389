package hook

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestStrangersTakeNoRoom floods a gate from one address, and from many.
func TestStrangersTakeNoRoom(t *testing.T) {
	now := time.Now()
	g := MessageGate()
	from := func(host string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, Path, nil)
		r.RemoteAddr = host
		return r
	}
	passed := func(host string) bool { return g.Allow(from(host), now) }
	for i := range 10 * atOnce * messageRate {
		passed("192.0.2.66:1")
		passed(fmt.Sprintf("[2001:db8::%x]:1", i)) // of one network
	}
	if passed("192.0.2.66:2") || passed("[2001:db8::ffff:1]:1") {
		t.Error("a flood of one address passes")
	}
	if !passed("192.0.2.1:1") {
		t.Error("one flood has taken the room of others")
	}
	g.Good(from("192.0.2.1:7"))
	for i := range 2 * maxSenders {
		passed(fmt.Sprintf("10.%d.%d.1:1", i>>8, i&0xff))
		if len(g.senders) > maxSenders {
			t.Fatalf("%d addresses are counted", len(g.senders))
		}
	}
	if passed("192.0.2.3:1") {
		t.Error("a flood of many addresses passes")
	}
	if !passed("192.0.2.1:9") {
		t.Error("who has signed well has no room")
	}
	now = now.Add(time.Minute)
	if !passed("192.0.2.3:1") || !passed("192.0.2.66:1") {
		t.Error("it does not end with the flood")
	}
}
