// Package snapread reads the snapshots of a node without a copy of them: a file at a time, or
// through a cache of blocks, as the mount of a URL does.
package snapread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/maypok86/otter/v2"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A BlockCache has the blocks and snapshots of a node that is elsewhere, and keeps
// what it was asked for in memory and in a directory. What it returns was checked
// against its ID, wherever it comes from. Its methods are safe for concurrent use.
type BlockCache struct {
	from Lister
	log  *slog.Logger
	ram  *otter.Cache[store.ID, []byte] // plain
	disk *cacheDir
}

// A Lister is a Reader whose snapshots can be listed.
type Lister interface {
	Reader
	ListSnapshots(ctx context.Context, fn func(remote.Snapshot) error) error
}

// CacheOptions say where blocks are kept, and how many bytes of them.
type CacheOptions struct {
	Dir    string // made if missing; holds nothing else
	URL    string // of the node: the list of snapshots in Dir is that one's
	Disk   int64
	Memory int64
	Logger *slog.Logger
}

// NewBlockCache opens a cache. store.ErrLocked: another process has it;
// store.ErrNotEmpty: Dir holds something else.
func NewBlockCache(from Lister, o CacheOptions) (*BlockCache, error) {
	disk, err := openCacheDir(o)
	if err != nil {
		return nil, err
	}
	return &BlockCache{
		from: from, log: o.Logger, disk: disk,
		ram: otter.Must(&otter.Options[store.ID, []byte]{
			MaximumWeight: uint64(o.Memory), Weigher: func(_ store.ID, plain []byte) uint32 { return uint32(len(plain) + blockOverhead) },
		}),
	}, nil
}

const blockOverhead = 256 // bytes that an entry takes besides, about

// ResizeMemory changes how many bytes of blocks are kept in memory; what is over it is
// dropped.
func (c *BlockCache) ResizeMemory(bytes int64) { c.ram.SetMaximum(uint64(bytes)) }

// Path names what is in the cache's directory, wherever that is now, until Close.
func (c *BlockCache) Path(elem ...string) string { return c.disk.dir.Join(elem...) }

// Close lets go of the directory. Nothing may be under way.
func (c *BlockCache) Close() error { return c.disk.close() }

// Get returns a block, as GetAll. It must not be changed.
func (c *BlockCache) Get(ctx context.Context, id store.ID) ([]byte, error) {
	blocks, err := c.GetAll(ctx, []store.ID{id})
	if err != nil {
		return nil, err
	}
	return blocks[0], nil
}

// GetAll returns blocks in the order of their IDs. What is missing is asked for in one
// request, or in several where it is more than remote.MaxBatch; what another call asks for
// already is waited for. graph.ErrGone, store.ErrCorrupt, those of the client.
func (c *BlockCache) GetAll(ctx context.Context, ids []store.ID) ([][]byte, error) {
	// Others may wait for what this call asks for, so it goes on; the client bounds its time.
	found, err := c.ram.BulkGet(context.WithoutCancel(ctx), ids, otter.BulkLoaderFunc[store.ID, []byte](c.load))
	if err != nil {
		return nil, err
	}
	blocks := make([][]byte, len(ids))
	for i, id := range ids {
		var ok bool
		if blocks[i], ok = found[id]; !ok {
			return nil, fmt.Errorf("block %s did not come: %w", id.Short(), remote.ErrCut)
		}
	}
	return blocks, nil
}

// load gets blocks from the disk, or from the node.
func (c *BlockCache) load(ctx context.Context, ids []store.ID) (map[store.ID][]byte, error) {
	found := make(map[store.ID][]byte, len(ids))
	var missing []store.ID
	for _, id := range ids {
		// Checked against its ID there: a file that was damaged counts as missing.
		if plain := c.disk.get(id); plain != nil {
			found[id] = plain
		} else {
			missing = append(missing, id)
		}
	}
	for batch := range slices.Chunk(missing, remote.MaxBatch) {
		if err := c.fetch(ctx, batch, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// fetch asks the node for blocks.
func (c *BlockCache) fetch(ctx context.Context, ids []store.ID, found map[store.ID][]byte) error {
	err := c.from.Records(ctx, ids, func(r store.Record) error {
		plain, err := store.Unpack(&r) // checks it
		if err != nil {
			return err
		}
		found[store.ID(r.ID)] = bytes.Clone(plain) // it may lie in the record
		if err := c.disk.put(&r); err != nil {
			c.log.Warn("a block cannot be kept on disk", "dir", c.disk.dir, "err", err)
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		// Not to be taken for a name that a directory has not got.
		err = fmt.Errorf("%w: the node has not got a block: %v", graph.ErrGone, err)
	}
	return err
}

// Snapshots returns the node's snapshots; while it does not answer, those of the last
// time that it did, even of another process.
func (c *BlockCache) Snapshots(ctx context.Context) ([]remote.Snapshot, error) {
	var list []remote.Snapshot
	err := c.from.ListSnapshots(ctx, func(s remote.Snapshot) error { list = append(list, s); return nil })
	if err == nil {
		if serr := c.disk.saveList(list); serr != nil {
			c.log.Warn("the list of snapshots cannot be kept on disk", "dir", c.disk.dir, "err", serr)
		}
		return list, nil
	}
	// The node has answered, and refuses: to show an old list would hide that.
	if errors.Is(err, config.ErrToken) || errors.Is(err, remote.ErrForbidden) || errors.Is(err, remote.ErrUntrusted) || ctx.Err() != nil {
		return nil, err
	}
	if old, ok := c.disk.loadList(); ok {
		c.log.Warn("the node does not answer: its snapshots are shown as they were", "err", err)
		return old, nil
	}
	return nil, err
}
