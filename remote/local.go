package remote

import (
	"context"
	"os"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// Local is the node of a store that this process holds.
type Local struct {
	store *store.Store
	env   Surroundings
}

// NewLocal returns the node of an open store. The caller closes the store.
func NewLocal(st *store.Store, env Surroundings) *Local { return &Local{st, env} }

// Stats implements Node.
func (l *Local) Stats(context.Context) (Stats, error) {
	total, free, err := l.store.Space()
	s := Stats{
		Store:      StoreInfo{l.store.Dir(), l.store.Config()},
		Mountpoint: l.env.Mountpoint,
		Memory:     memory(),
		Disk:       Disk{total, free},
	}
	s.Store.Chunker.Key = nil // it is a secret of the store
	if l.env.Volume != nil {
		s.Volume = l.env.Volume()
	}
	if l.env.FUSE != nil {
		s.FUSE = l.env.FUSE()
		s.Daemon = Daemon{os.Getpid(), s.Memory.RSS, time.Since(l.env.Started).Seconds()}
	}
	return s, err
}

// Sync implements Node.
func (l *Local) Sync(context.Context) error { return l.store.Commit() }
