package daemon

import (
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// bufferSizes are those of the buffers that gRPC uses again, as powers of two. It clears a
// buffer whole before that, and its own sizes leap from 32 KiB to 1 MiB: to send a chunk of
// a recording, 100 KiB, took as long for the clearing as for the copy.
var bufferSizes = []uint8{8, 12, 14, 15, 16, 17, 18, 19, 20}

// shareBuffers is for the start of the process: it may not be called while gRPC is in use.
func shareBuffers() {
	pool, err := mem.NewBinaryTieredBufferPool(bufferSizes...)
	if err != nil {
		panic("daemon: " + err.Error()) // the sizes are constants
	}
	experimental.SetDefaultBufferPool(pool)
}
