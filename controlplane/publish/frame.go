package publish

import (
	"sync"

	"google.golang.org/grpc"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// A frame is one update, encoded once for all streams that take the same step.
type frame struct {
	from, to state
	says     postern.Version
	once     sync.Once
	msg      grpc.PreparedMsg
	err      error
}

type frameKey struct {
	from content
	cold bool
	to   content
	says postern.Version
}

func (h *Hub) frame(from, to state, says postern.Version) *frame {
	key := frameKey{from.content, from.isZero(), to.content, says}
	f := h.frames[key]
	if f == nil {
		f = &frame{from: from, to: to, says: says}
		h.frames[key] = f
	}
	return f
}

// encode gives the update in wire form. All streams of a server have one codec and no
// compression, so the first one encodes for all.
func (f *frame) encode(conn nodev1.SyncService_SyncServer) (any, error) {
	f.once.Do(func() {
		f.err = f.msg.Encode(conn, &nodev1.SyncResponse{Kind: &nodev1.SyncResponse_Update{Update: update(f.from, f.to, f.says)}})
	})
	return &f.msg, f.err
}
