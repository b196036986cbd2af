// Package remote is the way to a store that another process holds: an HTTP API
// under /v1, its server and its client. The commands of a mounted store use it
// over the daemon's control socket.
package remote

import "context"

// A Node is a store to talk to: Local, in this process, or Client, in another.
// All methods are safe for concurrent use. Besides the errors named, any may
// return what the disk, the network or the context says.
type Node interface {
	// Stats tells what is inside the store and what its process uses.
	Stats(ctx context.Context) (Stats, error)
	// Sync makes durable all that was done before the call.
	Sync(ctx context.Context) error
}
