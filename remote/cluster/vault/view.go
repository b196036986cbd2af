package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/store"
)

// keptAutomatic is how many of the agents' own snapshots of a volume stay; of former epochs one.
const keptAutomatic = 3

// A view is one volume of the store of its domain, for a node that writes in an epoch, or reads.
// Names are those of the volume.
type view struct {
	remote.Node
	vault  *Vault
	store  *store.Store
	id     string
	volume string
	by     string
	epoch  int64
}

// Handler answers for the volume of that ID, as a sync wants it, the node that says to write it in
// that epoch. store.ErrNotFound: this node is no vault of it, or does not know it yet.
func (v *Vault) Handler(id, by string, epoch int64) (http.Handler, error) {
	w, err := v.viewOf(id, by, epoch)
	if err != nil {
		return nil, err
	}
	api := remote.Handler(w, v.log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What else a store answers is about all volumes of the domain.
		if p := r.URL.Path; !strings.HasPrefix(p, "/v1/sync/") && p != "/v1/snapshots" && !strings.HasPrefix(p, "/v1/snapshots/") {
			remote.Fail(w, r, v.log, fmt.Errorf("%w: a vault answers syncs alone", remote.ErrForbidden))
			return
		}
		api.ServeHTTP(w, r)
	}), nil
}

// Peer is what Handler answers for, within this process.
func (v *Vault) Peer(id, by string, epoch int64) (remote.Peer, error) { return v.viewOf(id, by, epoch) }

func (v *Vault) viewOf(id, by string, epoch int64) (*view, error) {
	f, ok := v.fences()[id]
	if !ok {
		return nil, fmt.Errorf("this node is no vault of that volume: %w", store.ErrNotFound)
	}
	h, err := v.open(f.Domain, nil)
	if err != nil {
		return nil, err
	}
	return &view{Node: h.node, vault: v, store: h.store, id: id, volume: f.Volume, by: by, epoch: epoch}, nil
}

// Discard removes snapshots of the volume, those alone that are still what the caller has seen, and
// returns how many went. The fence stays. remote.ErrFenced: the volume is of an epoch before it.
func (v *Vault) Discard(ctx context.Context, vol cluster.Volume, snapshots map[string]store.ID) (removed int, err error) {
	w, err := v.viewOf(vol.ID, "", vol.Epoch)
	if err != nil {
		return 0, err
	}
	// No name comes meanwhile that was not there when the others were asked.
	v.naming.Lock()
	defer v.naming.Unlock()
	if f := v.fence(vol.ID); f.Epoch > vol.Epoch {
		return 0, fmt.Errorf("%w: %s has written %s since epoch %d", remote.ErrFenced, f.Node, f.Volume, f.Epoch)
	}
	for name, id := range snapshots {
		if s, err := w.GetSnapshot(ctx, name); err != nil || s.ID != id {
			continue // gone, or another one by now
		}
		switch err := w.store.RemoveSnapshot(prefix(w.volume) + name); {
		case err == nil:
			removed++
		case !errors.Is(err, store.ErrHeld) && !errors.Is(err, store.ErrNotFound):
			return removed, err
		}
	}
	return removed, nil
}

// LinkSnapshot implements remote.Peer: remote.ErrFenced, where a later epoch has begun. What a
// former home has written by then it may keep under the name that says so.
func (w *view) LinkSnapshot(ctx context.Context, name string, id store.ID) error {
	w.vault.naming.Lock()
	defer w.vault.naming.Unlock()
	f := w.vault.fence(w.id)
	f.Epoch, f.Node = w.epoch, w.by
	if err := w.vault.raise(w.id, f); err != nil {
		if !errors.Is(err, remote.ErrFenced) || name != cluster.DivergedName(w.epoch) {
			return err
		}
	}
	// The lock is held over the commit: a fence that is raised meanwhile must come before or after.
	if err := w.Node.LinkSnapshot(ctx, prefix(w.volume)+name, id); err != nil {
		return err
	}
	w.retain(ctx)
	return nil
}

// retain removes the agents' snapshots that newer ones have replaced. A failure is no harm: the
// next name removes them.
func (w *view) retain(ctx context.Context) {
	var names []string
	err := w.ListSnapshots(ctx, func(s remote.Snapshot) error {
		if _, _, ok := cluster.ParseSnapshotName(s.Name); ok {
			names = append(names, s.Name)
		}
		return nil
	})
	for _, name := range Superfluous(names) {
		if err == nil {
			err = w.store.RemoveSnapshot(prefix(w.volume) + name)
		}
		if errors.Is(err, store.ErrHeld) || errors.Is(err, store.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		w.vault.log.Warn("snapshots that are not needed any more stay", "volume", w.volume, "err", err)
	}
}

// Superfluous returns which of the agents' snapshots of a volume newer ones have replaced.
func Superfluous(names []string) (gone []string) {
	slices.SortFunc(names, func(a, b string) int { return cluster.NewerSnapshot(b, a) })
	last := int64(0)
	for i, name := range names {
		epoch, _, _ := cluster.ParseSnapshotName(name)
		// With the newest of each epoch a takeover can be looked back at.
		if i >= keptAutomatic && epoch == last {
			gone = append(gone, name)
		}
		last = epoch
	}
	return gone
}

// UnlinkSnapshot implements remote.Peer. Nobody removes at a vault what its own rules keep.
func (w *view) UnlinkSnapshot(context.Context, string, store.ID) error {
	return fmt.Errorf("%w: a vault's snapshots are removed at the vault", remote.ErrForbidden)
}

// ListSnapshots implements remote.Peer.
func (w *view) ListSnapshots(ctx context.Context, fn func(remote.Snapshot) error) error {
	var list []remote.Snapshot
	err := w.Node.ListSnapshots(ctx, func(s remote.Snapshot) error {
		name, ok := strings.CutPrefix(s.Name, prefix(w.volume))
		if ok {
			s.Name = name
			list = append(list, s)
		}
		return nil
	})
	// Times are of several clocks, so that the agents' own are in the order of their numbers.
	slices.SortStableFunc(list, func(a, b remote.Snapshot) int {
		return cmp.Or(cluster.NewerSnapshot(a.Name, b.Name), a.Created.Compare(b.Created))
	})
	for _, s := range list {
		if err == nil {
			err = fn(s)
		}
	}
	return err
}

// GetSnapshot implements remote.Snapshots.
func (w *view) GetSnapshot(ctx context.Context, name string) (remote.Snapshot, error) {
	s, err := w.Node.GetSnapshot(ctx, prefix(w.volume)+name)
	s.Name = name
	return s, err
}
