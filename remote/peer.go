package remote

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A Peer is a store that snapshots travel from or to. docs/sync-protocol.md says
// how. Both sides may be any Peer.
type Peer interface {
	// NewLease begins a lease, durably: it keeps blocks from the sweep.
	// store.ErrLocked: too many are in use.
	NewLease(ctx context.Context, whose string) (store.LeaseID, error)
	// Keep has a lease keep those of some blocks, at most MaxBatch, that are there
	// with all below them, and tells which. store.ErrNotFound: the lease is over.
	Keep(ctx context.Context, lease store.LeaseID, ids []store.ID) (has []bool, err error)
	// EndLease lets go of all that a lease keeps.
	EndLease(ctx context.Context, lease store.LeaseID) error

	// Records calls fn for blocks, at most MaxBatch, in the order of ids. The record's
	// payload is fn's until it returns. store.ErrNotFound, store.ErrCorrupt.
	Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error
	// PutRecords stores the records that source calls its function with, at most
	// MaxBatch, and has the lease keep them. Each is checked: bytes against the ID,
	// and a vertex's links, which must be there and of the kind that it says.
	// store.ErrCorrupt: a record is not what it claims; store.ErrNotFound: a link
	// leads nowhere, or the lease is over; store.ErrFull.
	PutRecords(ctx context.Context, lease store.LeaseID, source func(put func(store.Record) error) error) error
	// LinkSnapshot gives a name to a snapshot that a lease keeps, durably. That it has
	// the name already is no error. store.ErrNameTaken: another one has it.
	LinkSnapshot(ctx context.Context, name string, id store.ID) error
	// UnlinkSnapshot drops a snapshot's name, if it is this snapshot's. store.ErrNotFound,
	// store.ErrHeld; ErrForbidden: another one has brought it.
	UnlinkSnapshot(ctx context.Context, name string, id store.ID) error
	// ListSnapshots is that of Snapshots.
	ListSnapshots(ctx context.Context, fn func(Snapshot) error) error
}

// A SyncState is what a store has to do with other stores.
type SyncState struct {
	Notes  []store.SyncNote `json:"last"`
	Leases []store.Lease    `json:"leases"` // of syncs under way, or interrupted
}

// Remotes are a store's peers. Its owner alone deals with them.
type Remotes interface {
	// SetRemote adds a remote, or replaces the one of its name. store.ErrConfig.
	SetRemote(ctx context.Context, r config.Remote) error
	// RemoveRemote: store.ErrNotFound.
	RemoveRemote(ctx context.Context, name string) error
	// NoteSync remembers how a sync with a remote went.
	NoteSync(ctx context.Context, n store.SyncNote) error
	// SyncState tells how syncs went and which are under way.
	SyncState(ctx context.Context) (SyncState, error)
}

// NewLease implements Peer.
func (l *Local) NewLease(ctx context.Context, whose string) (store.LeaseID, error) {
	return l.store.NewLease(whose, actorOf(ctx))
}

// Keep implements Peer.
func (l *Local) Keep(ctx context.Context, lease store.LeaseID, ids []store.ID) ([]bool, error) {
	if err := batchFits(len(ids)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.store.Keep(lease, ids)
}

func batchFits(n int) error {
	if n > MaxBatch {
		return fmt.Errorf("%w: %d blocks in one request: at most %d", ErrRequest, n, MaxBatch)
	}
	return nil
}

// EndLease implements Peer.
func (l *Local) EndLease(_ context.Context, lease store.LeaseID) error {
	return l.store.EndLease(lease)
}

// Records implements Peer.
func (l *Local) Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error {
	if err := batchFits(len(ids)); err != nil {
		return err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := l.store.Stored(id)
		if err == nil {
			err = fn(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// importMemory bounds the plain bytes of records that a process takes in at a
// time, whoever sends them.
const importMemory = 128 << 20

// PutRecords implements Peer.
func (l *Local) PutRecords(ctx context.Context, lease store.LeaseID, source func(put func(store.Record) error) error) error {
	// Until the lease has them, nothing refers to what comes in.
	release := l.store.Hold()
	defer release()
	var ids []store.ID
	n := 0
	err := source(func(r store.Record) error {
		// Counted as they come, since a stream does not say how many it has.
		if n++; n > MaxBatch {
			return batchFits(n)
		}
		if err := l.importRecord(ctx, &r); err != nil {
			return err
		}
		ids = append(ids, r.ID)
		return nil
	})
	// What has come stays, even if the rest does not.
	if len(ids) > 0 {
		if _, kerr := l.store.Keep(lease, ids); err == nil {
			err = kerr
		}
	}
	return err
}

func (l *Local) importRecord(ctx context.Context, r *store.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The packed and the plain bytes of a block, of all senders together. A block alone always
	// fits, or it would wait for ever.
	weight := min(importMemory, 2*int64(r.RawLen))
	if err := l.imports.Acquire(ctx, weight); err != nil {
		return err
	}
	defer l.imports.Release(weight)
	// Bytes against the ID first: what is not what it claims is looked at no further. (I2)
	plain, err := store.Unpack(r)
	if err != nil {
		return badRecord(err)
	}
	if r.Kind != store.KindData {
		if err := l.checkLinks(ctx, r, plain); err != nil {
			return fmt.Errorf("%s vertex %s: %w", r.Kind, store.ID(r.ID).Short(), err)
		}
	}
	// Before the block is written, with nothing locked: it may sweep.
	if err := l.store.Admit(int64(len(r.Payload))); err != nil {
		return err
	}
	return l.store.PutRecord(r, plain)
}

// badRecord makes an error one of the sender: else the log would tell of damage that this store has
// not.
func badRecord(err error) error { return fmt.Errorf("%w: %w", ErrRecord, err) }

// checkLinks sees that a vertex is sound and that what it links to is there and
// is what it says: its kind, its length, and how much is below it. (I5)
func (l *Local) checkLinks(ctx context.Context, r *store.Record, plain []byte) error {
	links, err := graph.Links(r.Kind, plain)
	if err != nil {
		return badRecord(err)
	}
	for _, link := range links {
		e, err := l.store.Lookup(link.ID)
		if err != nil {
			return err
		}
		// A lost block's row says Data, whatever it was.
		if e.Kind != link.Kind && !e.Lost() {
			return badRecord(fmt.Errorf("a link to %s %s as %s: %w", e.Kind, link.ID.Short(), link.Kind, store.ErrCorrupt))
		}
	}
	// Only now: all that it may look at is there.
	why, err := l.verifier.Vertex(ctx, r.ID, r.Kind, plain)
	if err == nil && why != "" {
		err = badRecord(fmt.Errorf("%s: %w", why, store.ErrCorrupt))
	}
	return err
}

// LinkSnapshot implements Peer.
func (l *Local) LinkSnapshot(ctx context.Context, name string, id store.ID) error {
	if l.env.Snapshots != nil {
		return l.env.Snapshots.LinkSnapshot(ctx, name, id, actorOf(ctx))
	}
	return l.store.LinkSnapshot(name, id, actorOf(ctx))
}

// UnlinkSnapshot implements Peer.
func (l *Local) UnlinkSnapshot(ctx context.Context, name string, id store.ID) error {
	r, err := l.store.Snapshot(name)
	switch {
	case err != nil:
		return err
	// The name may have been given to another snapshot since the sender listed them.
	case r.ID != id:
		return fmt.Errorf("snapshot %q is another one: %w", name, store.ErrNotFound)
	}
	if err := l.mayRemove(ctx, r); err != nil {
		return err
	}
	if l.env.Snapshots != nil {
		return l.env.Snapshots.RemoveSnapshot(ctx, name)
	}
	return l.store.RemoveSnapshot(name)
}

// mayRemove: who is neither the owner nor an admin removes what it has brought, and nothing else. A
// backup is worth as much as the least of those who may remove it. ErrForbidden.
func (l *Local) mayRemove(ctx context.Context, r store.SnapshotRef) error {
	caller, ok := CallerOf(ctx)
	if !ok || caller.Token.Allows(config.ScopeAdmin) {
		return nil
	}
	by, _, err := l.store.BroughtBy(r)
	if err == nil && by != caller.Actor() {
		err = fmt.Errorf("%w: %s has not brought snapshot %q: its owner can remove it", ErrForbidden, caller.Actor(), r.Name)
	}
	return err
}

// SetRemote implements Remotes.
func (l *Local) SetRemote(_ context.Context, r config.Remote) error {
	return l.store.ChangeSettings(func(s *config.Settings) error { s.SetRemote(r); return nil })
}

// RemoveRemote implements Remotes.
func (l *Local) RemoveRemote(_ context.Context, name string) error {
	return l.store.ChangeSettings(func(s *config.Settings) error { return s.RemoveRemote(name) })
}

// NoteSync implements Remotes.
func (l *Local) NoteSync(_ context.Context, n store.SyncNote) error { return l.store.NoteSync(n) }

// SyncState implements Remotes.
func (l *Local) SyncState(context.Context) (s SyncState, err error) {
	s.Leases = l.store.Leases()
	s.Notes, err = l.store.SyncNotes()
	return s, err
}
