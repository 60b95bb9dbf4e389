package ssh

import (
	"sync"

	"github.com/posterngate/postern/pkg/postern"
)

// hosts are the names that a node's sessions use at hosts.
type hosts struct {
	mu  sync.Mutex
	all map[who]*names
}

// who has sessions with a host.
type who struct {
	subject  string
	resource postern.ResourceName
}

// names are those of one subject's files at one host. The host follows links anew whenever it is
// told a name, so that what was judged is what is done only while nothing moves: a folder that takes
// the place of another may bring along a link that leads to what the task does not permit.
type names struct {
	mu    sync.RWMutex // held while a name is used, and alone while something is moved
	moves int          // how often something was moved; guarded by mu
	users int          // guarded by hosts.mu
}

// of returns the names of a subject at a host; done gives them back.
func (h *hosts) of(w who) (n *names, done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[who]*names{}
	}
	n = h.all[w]
	if n == nil {
		n = &names{}
		h.all[w] = n
	}
	n.users++
	return n, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(h.all, w)
		}
	}
}

func (n *names) moved() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.moves
}

// An operation is an admitted one on files, and what its names meant when it was judged.
type operation struct {
	*execution
	names, meant []string
	moves        int // of the names, before
}

// use does an operation at the host, if its names still mean what they did when it was judged.
func (f *files) use(o *operation, do func() error) error {
	f.names.mu.RLock()
	defer f.names.mu.RUnlock()
	if err := f.same(o); err != nil {
		return err
	}
	return do()
}

// move is use for an operation that changes what names mean.
func (f *files) move(o *operation, do func() error) error {
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	if err := f.same(o); err != nil {
		return err
	}
	f.names.moves++
	return do()
}

// same makes sure that names mean what they did. Others move things at a host, too, and have all
// the time for it while people are asked.
func (f *files) same(o *operation) error {
	if o.moves == f.names.moves && !o.waited {
		return nil
	}
	for i, name := range o.names {
		if real, err := f.resolve(name); err != nil || real != o.meant[i] {
			return f.elsewhere()
		}
	}
	return nil
}

// elsewhere refuses what was judged as something else than it has become.
func (f *files) elsewhere() error {
	return f.refuse(&postern.Refusal{
		Code: postern.CodeStale, Reason: "something was moved after this was judged, and the name means something else now", Hint: "try again",
	})
}
