package userapi

import (
	"net/http"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// whole serves methods that have one answer so that it goes out at once: connect flushes
// each message, and with it the header, before it writes how the call ended.
type whole struct {
	http.Handler
	single map[string]bool // the paths of such methods
}

func (h whole) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.single[r.URL.Path] {
		w = unflushed{w}
	}
	h.Handler.ServeHTTP(w, r)
}

// unflushed is a ResponseWriter that is written out when its handler returns.
type unflushed struct{ of http.ResponseWriter }

func (u unflushed) Header() http.Header         { return u.of.Header() }
func (u unflushed) Write(b []byte) (int, error) { return u.of.Write(b) }
func (u unflushed) WriteHeader(status int)      { u.of.WriteHeader(status) }

// single are the paths of the methods of services that have one answer.
func single(services []string) map[string]bool {
	paths := map[string]bool{}
	for _, name := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		s, ok := d.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			continue
		}
		for i := range s.Methods().Len() {
			if m := s.Methods().Get(i); !m.IsStreamingServer() {
				paths["/"+name+"/"+string(m.Name())] = true
			}
		}
	}
	return paths
}
