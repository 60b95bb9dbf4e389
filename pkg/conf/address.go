package conf

import "net"

// Loopback reports whether a host, a name or an address without its port, is this machine, so
// that what goes there crosses no network.
func Loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }
