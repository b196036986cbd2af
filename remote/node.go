// Package remote is what can be asked of a store, wherever it is: Node. Local answers for a store
// that this process has open, Client asks another process over HTTP, the server there answers with
// its own Local. Commands on a mounted store ask over the daemon's control socket, other machines
// over TCP. Each file has a group of requests: Node's methods, their types, Local, Client, handler.
package remote

import (
	"context"
	"io"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// A Node is a store to talk to: Local, in this process, or Client, in another.
// All methods are safe for concurrent use. Besides the errors named, any may
// return what the disk, the network or the context says.
type Node interface {
	// Stats tells what is inside the store and what its process uses.
	Stats(ctx context.Context) (Stats, error)
	// Sync makes durable all that was done before the call.
	Sync(ctx context.Context) error

	// ListBlocks calls fn for the blocks that pass, in the order of their IDs,
	// until fn fails. ErrRequest: the filter makes no sense.
	ListBlocks(ctx context.Context, filter BlockFilter, fn func(BlockInfo) error) error
	Files

	// Put stores what r gives as an object, durably, under a name unless that
	// is empty. store.ErrFull: the disk is. store.ErrNameTaken: another object has the
	// name, and there is no store.Replace among the flags.
	Put(ctx context.Context, name string, r io.Reader, flags ...store.IngestFlag) (Object, error)
	// Get writes an object's bytes from off on to w: length of them, fewer
	// where the object ends, all if length is negative. ref is a name, an ID or
	// what only one ID starts with. store.ErrNotFound, store.ErrAmbiguous; or
	// store.ErrCorrupt, and then what w got is good but not all.
	Get(ctx context.Context, ref string, off, length int64, w io.Writer) error
	// Remove takes an object's reference away. store.ErrNotFound,
	// store.ErrAmbiguous.
	Remove(ctx context.Context, ref string) error
	// StatObject tells what ref, as in Get, stands for. store.ErrNotFound,
	// store.ErrAmbiguous.
	StatObject(ctx context.Context, ref string) (Object, error)
	// ListObjects calls fn for a page of the objects, in order of name, until fn
	// fails. ErrRequest: the page makes no sense.
	ListObjects(ctx context.Context, p Page, fn func(Object) error) error

	Snapshots
	Graph
	Maintenance
	Tiers
	TierPolicies
	Settings
	Peer
	Remotes
	Tokens
}

// A Page is a part of a listing; the zero Page is all of it.
type Page struct {
	After string // begin behind this name
	Limit int64  // at most so many
}

// A Graph is a node's hash-graph.
type Graph interface {
	// Export calls fn for the nodes of a part of the graph, nearest to its roots
	// first, then for the edges between them, and last with a Cut if there is
	// more, until fn fails. ErrRequest; store.ErrNotFound, store.ErrAmbiguous: of
	// the request's Root.
	Export(ctx context.Context, r ExportRequest, fn func(ExportItem) error) error
	// Similar finds what shares blocks with ref, which is as an export's root,
	// most alike first: of a file or object, files, those in snapshots among
	// them, and objects; of a directory or snapshot, directories and snapshots. ErrRequest,
	// store.ErrNotFound, store.ErrAmbiguous, store.ErrCorrupt.
	Similar(ctx context.Context, ref string, top int) (Similar, error)
	// Connect finds a shortest way between two nodes, which are as an export's
	// root, over edges in either direction. store.ErrNotFound: one is not there,
	// or there is none; ErrRequest, store.ErrAmbiguous, store.ErrCorrupt.
	Connect(ctx context.Context, a, b string) ([]Step, error)
	// Why tells everything that holds the bytes of a block: its ID or at least
	// four digits that only its ID starts with. store.ErrNotFound,
	// store.ErrAmbiguous.
	Why(ctx context.Context, block string) (Why, error)
	// WhyAll calls fn with the number of data blocks of a file or object, and then with what
	// Why tells of each, in their order, of the first limit if that is not 0, until fn fails.
	// ref is as in Show. ErrRequest, store.ErrNotFound, store.ErrAmbiguous.
	WhyAll(ctx context.Context, ref string, limit int64, fn func(WhyItem) error) error
	// Show calls fn for what a snapshot, object, file, directory or block is, and
	// then for its parts, until fn fails. store.ErrNotFound, store.ErrAmbiguous.
	Show(ctx context.Context, ref string, fn func(ShowItem) error) error
	// Matrix calls fn first for the matrix's size, then for its rows with their
	// blocks, until fn fails.
	Matrix(ctx context.Context, fn func(MatrixItem) error) error
	// Usage tells what parts of the store take. ErrRequest; store.ErrNotFound:
	// there is nothing at the request's Path.
	Usage(ctx context.Context, r UsageRequest) (Usage, error)
	// Diff calls fn for what differs between two snapshots, or one and the live
	// filesystem, until fn fails, and last with the sums. store.ErrNotFound: there
	// is no such snapshot.
	Diff(ctx context.Context, r DiffRequest, fn func(DiffItem) error) error
	// History calls fn for every snapshot, the oldest first, until fn fails.
	History(ctx context.Context, fn func(graph.HistoryPoint) error) error
}
