package mcp

import (
	"slices"
	"sync"

	"github.com/posterngate/postern/pkg/postern"
)

// Limits of what is remembered of all servers.
const (
	maxGrants = 1024 // the grant that was used least lately is forgotten for another
	maxPaths  = 16   // of one grant
)

// Servers are what this process knows of servers, by grant: it outlives the sessions in
// which it was learnt. The zero value is ready, and safe for concurrent use.
type Servers struct {
	mu     sync.Mutex
	grants []*granted // the one that was used last comes last
}

type granted struct {
	grant  postern.GrantID
	server map[string]*Server
}

// Of is the server of a grant at a path, which says of which resource too. It is nil where
// the grant has used too many of them.
func (s *Servers) Of(grant postern.GrantID, path string) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	var g *granted
	if i := slices.IndexFunc(s.grants, func(g *granted) bool { return g.grant == grant }); i >= 0 {
		g = s.grants[i]
		s.grants = slices.Delete(s.grants, i, i+1)
	} else {
		g = &granted{grant: grant, server: map[string]*Server{}}
		if len(s.grants) == maxGrants {
			s.grants = slices.Delete(s.grants, 0, 1)
		}
	}
	s.grants = append(s.grants, g)
	if g.server[path] == nil {
		if len(g.server) >= maxPaths {
			return nil
		}
		g.server[path] = newServer()
	}
	return g.server[path]
}
