package conf

import "testing"

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.0.1": true, "::1": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "localhost.example": false, "127.0.0.1.example": false, "127.0.0.1:80": false,
	} {
		if Loopback(host) != want {
			t.Errorf("%q is taken for another machine or for this one", host)
		}
	}
}
