// Package http is what an HTTP client asks for, as facts for policy: its target in the
// one form that means one thing, and its JSON body, strictly parsed. What can be read in
// two ways is an error here, so that no rule judges another request than the one that a
// server will see.
package http

import (
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
)

// Facts are one request. They are not changed once they are made, but for Body.
type Facts struct {
	// Method is as sent; methods are case-sensitive.
	Method string
	// Path is decoded, but for each Slash, and canonical.
	Path string
	// Query is decoded, in the order of the client.
	Query []Pair
	// Destination is the path that COPY and MOVE of WebDAV name beside theirs, in the form of
	// Path; empty for none.
	Destination string
	// Header is by lower-case name, without what proves who the client is. It is nil
	// where the request is judged by its first line alone.
	Header map[string]string
	// Twice are the names of those that stand more than once, in small letters: servers
	// differ in which of them they take.
	Twice map[string]bool
	// ContentType is the body's media type without parameters; empty for no body.
	ContentType string
	// Upgrade is the protocol that the connection is to become, such as "websocket".
	Upgrade string
	// Body is what policy asked to see; nil until it did.
	Body *Body
	// Unknown says what was not understood; nothing is allowed then.
	Unknown string
}

// GRPC reports whether the request is a call of gRPC, whose path is its service and method.
func (f *Facts) GRPC() bool {
	return f.Method == post && (f.ContentType == "application/grpc" || strings.HasPrefix(f.ContentType, "application/grpc+"))
}

// post is what calls of gRPC are made with; package http here is not Go's.
const post = "POST"

// reading are the methods that change nothing (RFC 9110, 9.2.1).
var reading = []string{"GET", "HEAD", "OPTIONS"}

// writing are the other methods that are known to everybody.
var writing = []string{post, "PUT", "PATCH", "DELETE"}

// Reads reports whether a method is one that changes nothing.
func Reads(method string) bool { return slices.Contains(reading, method) }

// elsewhere are headers, in small letters, that name another thing beside the target: which
// one a server copies to it, or where it copies or moves it to.
var elsewhere = []string{"destination", "x-amz-copy-source", "x-amz-rename-source", "x-copy-from", "x-goog-copy-source", "x-ms-copy-source", "x-ms-rename-source"}

// Elsewhere are the names of those headers that has has, in small letters.
func Elsewhere(has func(name string) bool) (names []string) {
	for _, name := range elsewhere {
		if has(name) {
			names = append(names, name)
		}
	}
	return names
}

// Effect is the worst that the request may do.
func (f *Facts) Effect() postern.Effect {
	switch {
	case f == nil || f.Unknown != "":
		return postern.EffectUnknown
	case f.Upgrade != "":
		return postern.EffectControl
	case Reads(f.Method):
		return postern.EffectRead
	case slices.Contains(writing, f.Method):
		return postern.EffectWrite
	}
	return postern.EffectControl
}

// Values are the parameters of the query by name. False where a name stands twice, in
// whatever case, or stands beside one that some take for it: servers differ in which they take.
func (f *Facts) Values() (map[string]string, bool) {
	values := make(map[string]string, len(f.Query))
	seen := make(map[string]bool, len(f.Query))
	for _, p := range f.Query {
		key := loose(p.Name)
		if seen[key] {
			return nil, false
		}
		seen[key] = true
		values[p.Name] = p.Value
	}
	return values, true
}

// Once reports whether a parameter stands at most once, as loose servers compare names.
func (f *Facts) Once(name string) bool {
	key, n := loose(name), 0
	for _, p := range f.Query {
		if loose(p.Name) == key {
			n++
		}
	}
	return n <= 1
}
