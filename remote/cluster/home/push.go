package home

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/routine"
)

const (
	tag       = "cluster" // of the snapshots that are made here
	retryWait = time.Second
	saveEvery = 10 * time.Second // until a former home's state is at a vault
	// After a failed transfer: each leaves a lease at the vault until it has been idle for ten
	// minutes, and a vault has 64 of them for all. What fails before waits retryWait, then longer.
	failWait = 15 * time.Second
)

// follow makes a snapshot twice in each RPO, and has each vault follow at its own pace: one that
// hangs must not keep the others from theirs.
func (h *Homes) follow(ctx context.Context, r Record) {
	if r.Fenced != nil {
		h.save(ctx, r)
		return
	}
	v := r.Volume
	var vaults sync.WaitGroup
	defer vaults.Wait()
	var kicks []chan struct{}
	for _, name := range v.Vaults {
		kick := make(chan struct{}, 1)
		kicks = append(kicks, kick)
		vaults.Go(func() {
			var wait time.Duration
			for {
				select {
				case <-ctx.Done():
					return
				case <-kick:
				}
				begun, err := h.push(ctx, v, name)
				switch {
				case err == nil:
					wait = 0
					continue
				case begun:
					wait = failWait
				default:
					wait = min(max(retryWait, 2*wait), failWait)
				}
				if routine.Sleep(ctx, wait) != nil {
					return
				}
				if !errors.Is(err, ErrOffline) { // a snapshot says when the store is open again
					routine.Kick(kick) // the next one may be half an RPO away
				}
			}
		})
	}
	failed := false
	for {
		err := h.snapshot(ctx, v)
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failed { // once, and not twice in each RPO
			h.Log.Info("snapshots of a volume", "volume", v.Name, "err", err)
		}
		failed = err != nil
		for _, kick := range kicks {
			if failed {
				break // nothing is new; a push in vain would only wait longer than this one
			}
			routine.Kick(kick) // one that is behind takes what is the newest then
		}
		if routine.Sleep(ctx, time.Duration(v.RPO)*time.Second/2) != nil {
			return
		}
	}
}

// snapshot makes one, and removes those that newer ones have replaced.
func (h *Homes) snapshot(ctx context.Context, v cluster.Volume) error {
	n, leave, err := h.Open(ctx, v.Store)
	if err != nil {
		return err
	}
	defer leave()
	all, err := transfer.Snapshots(ctx, n)
	if err != nil {
		return err
	}
	var own []string
	last := int64(0)
	for _, s := range all {
		if epoch, i, ok := cluster.ParseSnapshotName(s.Name); ok {
			own = append(own, s.Name)
			if epoch == v.Epoch {
				last = max(last, i)
			}
		}
	}
	// After those of the epoch alone: a former home's numbers say nothing about this one's.
	next := cluster.SnapshotName(v.Epoch, last+1)
	if _, err := n.CreateSnapshot(ctx, remote.NewSnapshot{Name: next, Tags: []string{tag}, Host: h.Node}); err != nil {
		return err
	}
	for _, name := range vault.Superfluous(append(own, next)) {
		if err := n.RemoveSnapshot(ctx, name); err != nil && !errors.Is(err, store.ErrHeld) && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// push has one vault have all snapshots of the volume, the newest of the agent's own first, and
// tells whether a transfer was begun.
func (h *Homes) push(ctx context.Context, v cluster.Volume, name string) (begun bool, err error) {
	newest, begun, err := h.send(ctx, v, name, func(s remote.Snapshot) bool { return true })
	if ctx.Err() != nil {
		return begun, ctx.Err()
	}
	if err != nil {
		h.Log.Warn("a volume's snapshots do not reach a vault", "volume", v.Name, "vault", name, "err", err)
	}
	h.note(v.Store, name, newest, err)
	return begun, err
}

// send brings the snapshots that are chosen, and returns the newest of the agent's own among them,
// and whether a transfer was begun. remote.ErrFenced: another node writes the volume.
func (h *Homes) send(
	ctx context.Context, v cluster.Volume, name string, chosen func(remote.Snapshot) bool,
) (newest string, begun bool, err error) {
	n, leave, err := h.Open(ctx, v.Store)
	if err != nil {
		return "", false, err
	}
	defer leave()
	to, err := h.Vault(name, v)
	if err != nil {
		return "", false, err
	}
	defer to.Close()
	has, err := transfer.Snapshots(ctx, n)
	if err != nil {
		return "", false, err
	}
	there, err := transfer.Snapshots(ctx, to)
	if err != nil {
		return "", false, err
	}
	has = slices.DeleteFunc(has, func(s remote.Snapshot) bool { return !chosen(s) })
	// Above all else the newest state: a user's snapshots may be large, and are as old as they are.
	slices.SortStableFunc(has, func(a, b remote.Snapshot) int { return cluster.NewerSnapshot(b.Name, a.Name) })
	if len(has) > 0 {
		if _, _, own := cluster.ParseSnapshotName(has[0].Name); own {
			newest = has[0].Name
		}
	}
	t := transfer.Transfer{
		From: n, To: to, Whose: "push of " + v.Name + " by " + h.Node, Base: common(has, there),
		Wait:     func(int) time.Duration { return retryWait },
		Progress: func(p transfer.Progress) { h.sent(v.Store, name, p.Bytes) },
	}
	var left error
	t.Snapshots, left = lacking(v.Name, has, there)
	if len(t.Snapshots) == 0 {
		return newest, false, left
	}
	_, err = t.Run(ctx)
	return newest, true, errors.Join(err, left)
}

// lacking are the snapshots that a vault is to get, of those that the home has, the newest first.
// The error names those that it cannot get.
func lacking(volume string, has, there []remote.Snapshot) (refs []transfer.SnapshotRef, left error) {
	at := make(map[string]store.ID, len(there))
	for _, s := range there {
		at[s.Name] = s.ID
	}
	for i, s := range has {
		id, taken := at[s.Name]
		_, _, own := cluster.ParseSnapshotName(s.Name)
		switch {
		case taken && id == s.ID:
		case taken:
			left = errors.Join(left, fmt.Errorf("snapshot %q: %w: the vault has another one of that name", s.Name, store.ErrNameTaken))
		case len(volume)+1+len(s.Name) > config.MaxSnapshotName:
			left = errors.Join(left, fmt.Errorf("snapshot %q is not copied: its name is too long behind %s@: %w", s.Name, volume, store.ErrConfig))
		case own && i > 0:
			// A newer one has replaced it, and the vault would drop it.
		default:
			refs = append(refs, transfer.SnapshotRef{Name: s.Name, ID: s.ID})
		}
	}
	return refs, left
}

// common returns a snapshot that both sides have, the newest of those at the vault.
func common(has, there []remote.Snapshot) []store.ID {
	ours := make(map[store.ID]bool, len(has))
	for _, s := range has {
		ours[s.ID] = true
	}
	for _, s := range slices.Backward(there) {
		if ours[s.ID] {
			return []store.ID{s.ID}
		}
	}
	return nil
}

// save keeps what a former home has, under a name that says so, in its own store and at a vault of
// the volume. Nothing of the store is changed or removed.
func (h *Homes) save(ctx context.Context, r Record) {
	for {
		name, err := h.saveOnce(ctx, r)
		if err == nil {
			h.Log.Info("the state of a former home is saved", "volume", r.Volume.Name, "snapshot", name, "home", r.Fenced.Home)
			if err = h.saved(r.Volume.Store, name); err == nil {
				return
			}
		}
		if ctx.Err() == nil && !errors.Is(err, ErrOffline) {
			h.Log.Warn("the state of a former home is at no vault yet", "volume", r.Volume.Name, "err", err)
		}
		if routine.Sleep(ctx, saveEvery) != nil {
			return
		}
	}
}

func (h *Homes) saveOnce(ctx context.Context, r Record) (string, error) {
	n, leave, err := h.Open(ctx, r.Volume.Store)
	if err != nil {
		return "", err
	}
	defer leave()
	name := cluster.DivergedName(r.Volume.Epoch)
	_, err = n.CreateSnapshot(ctx, remote.NewSnapshot{
		Name: name, Tags: []string{tag}, Host: h.Node,
		Message: fmt.Sprintf("what %s had when %s had taken over", h.Node, r.Fenced.Home),
	})
	if err != nil && !errors.Is(err, store.ErrNameTaken) { // made by a try before
		return "", err
	}
	err = fmt.Errorf("volume %s has no vault", r.Volume.Name)
	for _, vault := range r.Fenced.Vaults {
		if vault == h.Node {
			continue
		}
		_, _, err = h.send(ctx, r.Volume, vault, func(s remote.Snapshot) bool { return s.Name == name })
		if err == nil {
			return name, nil
		}
	}
	return "", err
}
