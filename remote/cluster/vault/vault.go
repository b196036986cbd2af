// Package vault keeps the snapshots of other nodes' volumes: a store for each domain, in which the
// volumes' blocks meet, and for each volume the fence that keeps out who writes it no more.
//
// A snapshot NAME of a volume is called VOLUME@NAME in the store. A node's directory has
//
//	vaults/fences.json   of each volume that the node is a vault of: its epoch, and who writes it
//	vaults/DOMAIN/       a store
//
// Lock order: naming, then mu.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/durable"
)

const (
	fencesName   = "fences.json"
	fencesFormat = 1
	cacheBytes   = 32 << 20 // of blocks, for each store
	memTable     = 16 << 20
)

// A Fence is who may give names to snapshots of a volume: Node in Epoch, and who comes later.
type Fence struct {
	Volume string `json:"volume"`
	Domain string `json:"domain"`
	Epoch  int64  `json:"epoch"`
	Node   string `json:"node"`
}

type fencesFile struct {
	Format int              `json:"format"`
	Fences map[string]Fence `json:"fences"` // by the volume's ID
}

// A Vault is what a node keeps for others.
type Vault struct {
	dir string
	log *slog.Logger

	// Held while a snapshot gets its name, and while a fence is raised: whoever has raised one
	// knows that no name of an older epoch comes after it.
	naming sync.Mutex

	mu struct {
		sync.Mutex
		fences map[string]Fence // by the volume's ID; replaced, never changed
		stores map[string]*held // by domain
		closed bool
	}
}

type held struct {
	store *store.Store
	node  *remote.Local
}

// Open reads the fences of the vault in dir, which need not exist. Stores are opened when they are
// needed. The error names what to do about a file that is damaged.
func Open(dir string, log *slog.Logger) (*Vault, error) {
	v := &Vault{dir: dir, log: log}
	v.mu.fences, v.mu.stores = map[string]Fence{}, map[string]*held{}
	b, err := os.ReadFile(v.fencesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	var f fencesFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && (f.Format != fencesFormat || f.Fences == nil) {
		err = fmt.Errorf("format %d is not known", f.Format)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: move it away, and the epochs are read from the register again", v.fencesPath(), err)
	}
	v.mu.fences = f.Fences
	return v, nil
}

func (v *Vault) fencesPath() string { return filepath.Join(v.dir, fencesName) }

// Close closes the stores; nothing may be asked of them any more.
func (v *Vault) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.closed = true
	var err error
	for _, h := range v.mu.stores {
		err = errors.Join(err, h.store.Close())
	}
	clear(v.mu.stores)
	return err
}

// Raise makes the node a vault of the volume if it is none, and refuses from now on, durably, what
// comes from an epoch before the volume's. remote.ErrFenced: the fence is higher, or another
// node's.
func (v *Vault) Raise(vol cluster.Volume, d cluster.Domain) error {
	if vol.ID == "" || vol.Epoch < 1 || cluster.CheckName(vol.Name) != nil || cluster.CheckName(vol.Domain) != nil || d.Name != vol.Domain {
		return fmt.Errorf("%w: a fence of volume %q in epoch %d", remote.ErrRequest, vol.Name, vol.Epoch)
	}
	if _, err := v.open(vol.Domain, &d); err != nil {
		return err
	}
	v.naming.Lock()
	defer v.naming.Unlock()
	return v.raise(vol.ID, Fence{Volume: vol.Name, Domain: vol.Domain, Epoch: vol.Epoch, Node: vol.Home})
}

// raise is with naming held.
func (v *Vault) raise(id string, f Fence) error {
	is := v.fence(id)
	switch {
	case is == f:
		return nil
	case is.Epoch > f.Epoch || is.Epoch == f.Epoch && is.Node != f.Node:
		return fmt.Errorf("%w: %s has written %s since epoch %d", remote.ErrFenced, is.Node, is.Volume, is.Epoch)
	}
	next := maps.Clone(v.fences())
	next[id] = f
	b, err := json.MarshalIndent(fencesFile{fencesFormat, next}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return err
	}
	// Durable before it counts: a vault that forgets a fence would let a former home in.
	if err := durable.Write(v.fencesPath(), b); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.fences = next
	return nil
}

func (v *Vault) fences() map[string]Fence {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.fences
}

func (v *Vault) fence(id string) Fence { return v.fences()[id] }

// open returns the store of a domain; d makes it if there is none, nil does not.
func (v *Vault) open(domain string, d *cluster.Domain) (*held, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.mu.stores[domain]; h != nil {
		return h, nil
	}
	if v.mu.closed {
		return nil, fmt.Errorf("%w: the node is leaving", remote.ErrBusy)
	}
	dir := filepath.Join(v.dir, domain)
	o := store.Options{CacheBytes: cacheBytes, MemTable: memTable, Logger: v.log}
	st, err := store.Open(dir, o)
	// Made with mu held: of two pushes that come first together one would find half a store.
	if errors.Is(err, store.ErrNotStore) && d != nil {
		conf := store.DefaultConfig()
		conf.Chunker = d.Chunker
		if conf.SegmentSize, err = store.FitSegmentSize(dir); err == nil {
			err = os.MkdirAll(v.dir, 0o700)
		}
		if err == nil {
			err = store.Init(dir, conf)
		}
		if err == nil {
			st, err = store.Open(dir, o)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the vault of domain %s: %w", domain, err)
	}
	h := &held{st, remote.NewLocal(st, remote.Environment{})}
	v.mu.stores[domain] = h
	return h, nil
}

// Copies says what the vault has of each volume, by name. It looks at what is there: what cannot be
// read is said as such.
func (v *Vault) Copies(ctx context.Context) []health.Copy {
	var found []health.Copy
	for id, f := range v.fences() {
		c, err := v.copyOf(ctx, id, f)
		if err != nil {
			c.Error = err.Error()
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b health.Copy) int { return strings.Compare(a.Volume, b.Volume) })
	return found
}

// Copy is that of one volume: store.ErrNotFound, if the node is no vault of it.
func (v *Vault) Copy(ctx context.Context, id string) (health.Copy, error) {
	f, ok := v.fences()[id]
	if !ok {
		return health.Copy{}, fmt.Errorf("this node is no vault of that volume: %w", store.ErrNotFound)
	}
	return v.copyOf(ctx, id, f)
}

func (v *Vault) copyOf(ctx context.Context, id string, f Fence) (health.Copy, error) {
	c := health.Copy{Volume: f.Volume, ID: id, Domain: f.Domain, Epoch: f.Epoch, Writer: f.Node}
	h, err := v.open(f.Domain, nil)
	if err != nil {
		return c, err
	}
	newest := ""
	err = h.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		name, ok := strings.CutPrefix(r.Name, prefix(f.Volume))
		if !ok {
			return nil
		}
		c.Snapshots++
		if cluster.NewerSnapshot(name, newest) > 0 {
			newest = name
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	c.Bad = int64(len(h.store.BadBlocks()))
	if newest == "" {
		return c, nil
	}
	s, err := h.node.GetSnapshot(ctx, prefix(f.Volume)+newest)
	if errors.Is(err, store.ErrNotFound) {
		return v.copyOf(ctx, id, f) // a newer one has come, and this one went
	}
	if err == nil {
		c.Newest = &health.Snapshot{Name: newest, Created: s.Created}
	}
	return c, err
}

func prefix(volume string) string { return volume + "@" }
