package remote

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/store"
)

// Local is the node of a store that this process holds.
type Local struct {
	*query.Graph // answers what Graph asks
	store        *store.Store
	env          Environment
	imports      *semaphore.Weighted // bytes of records
	verifier     *graph.Verifier     // of what they bring
}

// An Environment is what only the process around a store knows; what is nil or
// empty is left out.
type Environment struct {
	Started    time.Time // of the daemon; zero: this process is none
	Mountpoint string
	// SnapshotEvery is what the mount was told, in place of the store's settings; nil: nothing.
	SnapshotEvery *time.Duration
	Volume        func() VolumeStats
	FUSE          func() FUSE
	Files         Files
	Live          Live
	Rows          Rows
	LiveTree      LiveTree
	Namespace     Namespace
	Snapshots     Snapshotter
	Pins          Pins
	Flush         func(context.Context) error // has the kernel hand over what programs have written to a mount
	Reaped        func()                      // returns when the files that were removed have let go of their blocks
}

// NewLocal returns the node of an open store. The caller closes the store.
func NewLocal(st *store.Store, env Environment) *Local {
	return &Local{Graph: query.New(st, env.Live, env.Rows, env.LiveTree), store: st, env: env, imports: semaphore.NewWeighted(importMemory), verifier: graph.NewVerifier(st)}
}

var (
	_ Node = (*Local)(nil)
	_ Node = (*Client)(nil)
)

// Stats implements Node.
func (l *Local) Stats(ctx context.Context) (Stats, error) {
	s := summarize(l.store.Stats())
	err := l.store.Objects(ctx, "", func(o Object) error {
		s.Objects++
		s.Logical += o.Data
		return nil
	})
	if err != nil {
		return s, err
	}
	s.Store = StoreInfo{l.store.Dir(), l.store.Config()}
	s.Store.Chunker.Key = nil // it is a secret of the store
	s.Mountpoint = l.env.Mountpoint
	s.Memory = memory()
	if l.env.Volume != nil {
		s.Volume = l.env.Volume()
		s.Logical += s.Volume.DataBytes
	}
	if l.env.FUSE != nil {
		s.FUSE = l.env.FUSE()
	}
	if !l.env.Started.IsZero() {
		s.Daemon = Daemon{PID: PID(os.Getpid()), RSSBytes: s.Memory.RSS, Uptime: time.Since(l.env.Started).Seconds()}
		if every := l.env.SnapshotEvery; every != nil {
			seconds := int64(*every / time.Second)
			s.Daemon.SnapshotEvery = &seconds
		}
	}
	return s, nil
}

// Sync implements Node.
func (l *Local) Sync(ctx context.Context) error {
	if l.env.Flush != nil {
		if err := l.env.Flush(ctx); err != nil {
			return err
		}
	}
	return l.store.Commit()
}

// Put implements Node.
func (l *Local) Put(ctx context.Context, name string, r io.Reader, flags ...store.IngestFlag) (Object, error) {
	return l.store.Ingest(ctx, r, name, flags...)
}

// Get implements Node.
func (l *Local) Get(ctx context.Context, ref string, off, length int64, w io.Writer) error {
	return l.store.Fetch(ctx, ref, off, length, w)
}

// Remove implements Node.
func (l *Local) Remove(ctx context.Context, ref string) error { return l.store.Delete(ctx, ref) }

// ListObjects implements Node.
func (l *Local) ListObjects(ctx context.Context, p Page, fn func(Object) error) error {
	if p.Limit < 0 {
		return fmt.Errorf("%w: limit %d", ErrRequest, p.Limit)
	}
	return l.store.Objects(ctx, p.After, atMost(p.Limit, fn))
}

// atMost has a walk end after so many values; 0: not before all were seen.
func atMost[T any](limit int64, fn func(T) error) func(T) error {
	seen := int64(0)
	return func(v T) error {
		if err := fn(v); err != nil {
			return err
		}
		if seen++; seen == limit {
			return store.ErrStop
		}
		return nil
	}
}

// StatObject implements Node.
func (l *Local) StatObject(ctx context.Context, ref string) (Object, error) {
	return l.store.Stat(ctx, ref)
}
