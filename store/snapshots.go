package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// A SnapshotRef is a name that keeps a snapshot. What a snapshot is, package
// graph knows; the store keeps names and what they lead to.
type SnapshotRef struct {
	Name string    `json:"name"`
	ID   ID        `json:"id"`
	Set  time.Time `json:"-"` // when the name was last set
	Held bool      `json:"held,omitempty"`

	// Until is when the hold ends by itself, and before which nobody can end it; zero: a hold lasts
	// until it is let go of. It has a row of its own, which a lost database takes with it: then the
	// snapshot is held, and can be let go of.
	Until time.Time `json:"-"`

	Scheduled bool `json:"scheduled,omitempty"` // the store's own schedule made it, and its policy may remove it
}

// A SnapshotMark says of a new snapshot what nobody can say of one that is there.
type SnapshotMark int

// Scheduled marks what the store's own schedule makes. Renaming takes the mark away.
const Scheduled SnapshotMark = iota + 1

// A snapshot's name has a row and, so that it survives the loss of the database
// (I9), a name vertex of version 2. The row refers to the vertex, which can be made from it, and
// the vertex to the snapshot. The vertex's payload is
//
//	+---------+-------+----------+------+
//	| version | flags | set (ms) | name |
//	+---------+-------+----------+------+
const (
	snapshotNameVersion = 2
	snapshotHeld        = 1 << 0
	snapshotScheduled   = 1 << 1
	snapshotFlags       = 1<<2 - 1
)

// HeldAt reports whether the snapshot cannot be removed at a time.
func (r SnapshotRef) HeldAt(now time.Time) bool {
	return r.Held && (r.Until.IsZero() || now.Before(r.Until))
}

// locked is nil where a hold can be let go of.
func (r SnapshotRef) locked(now time.Time) error {
	if r.Until.IsZero() || !now.Before(r.Until) {
		return nil
	}
	return fmt.Errorf("snapshot %q is locked until %s: %w", r.Name, r.Until.Format(time.RFC3339), ErrHeld)
}

func (r SnapshotRef) flags() (flags byte) {
	if r.Held {
		flags |= snapshotHeld
	}
	if r.Scheduled {
		flags |= snapshotScheduled
	}
	return flags
}

func (r SnapshotRef) vertex() []byte {
	b := vertex.AppendLinks(make([]byte, 0, 64+len(r.Name)), []ID{r.ID})
	b = append(b, snapshotNameVersion, r.flags())
	b = binary.AppendVarint(b, r.Set.UnixMilli())
	return append(b, r.Name...)
}

func (r SnapshotRef) vertexID() ID { return vertex.Sum(tiering.Named, r.vertex()) }

// decodeSnapshotName is the reverse of vertex. The error is ErrCorrupt.
func decodeSnapshotName(b []byte) (SnapshotRef, error) {
	links, payload, err := vertex.Split(b)
	if err != nil {
		return SnapshotRef{}, err
	}
	if len(links) != 1 || len(payload) < 3 || payload[0] != snapshotNameVersion {
		return SnapshotRef{}, fmt.Errorf("name vertex: %w", ErrCorrupt)
	}
	r := SnapshotRef{ID: links[0]}
	rest, err := r.readFlags(payload[1:])
	if err == nil && config.ValidSnapshotName(string(rest)) != nil {
		err = ErrCorrupt
	}
	if err != nil {
		return r, fmt.Errorf("name vertex of a snapshot: %w", err)
	}
	r.Name = string(rest)
	return r, nil
}

func (r *SnapshotRef) readFlags(b []byte) (rest []byte, err error) {
	if len(b) < 2 || b[0]&^snapshotFlags != 0 {
		return nil, ErrCorrupt
	}
	r.Held, r.Scheduled = b[0]&snapshotHeld != 0, b[0]&snapshotScheduled != 0
	ms, n := binary.Varint(b[1:])
	if n <= 0 || n > 1 && b[n] == 0 {
		return nil, ErrCorrupt
	}
	r.Set = time.UnixMilli(ms)
	return b[1+n:], nil
}

// encode makes the row of a snapshot's name: ID, flags, when it was set.
func (r SnapshotRef) encode() []byte {
	b := append(make([]byte, 0, len(r.ID)+8), r.ID[:]...)
	b = append(b, r.flags())
	return binary.AppendVarint(b, r.Set.UnixMilli())
}

func decodeSnapshotRef(name string, b []byte) (SnapshotRef, error) {
	r := SnapshotRef{Name: name}
	if len(b) < len(r.ID) {
		return r, fmt.Errorf("row of snapshot %q: %w", name, ErrCorrupt)
	}
	copy(r.ID[:], b)
	rest, err := r.readFlags(b[len(r.ID):])
	if err != nil || len(rest) != 0 {
		return r, fmt.Errorf("row of snapshot %q: %w", name, ErrCorrupt)
	}
	return r, nil
}

func snapshotKey(name string) []byte { return append([]byte{keySnapshot}, name...) }

// Snapshot returns the snapshot that has exactly this name, or ErrNotFound.
func (ix *index) Snapshot(name string) (SnapshotRef, error) {
	b, err := ix.db.Get(snapshotKey(name))
	if name == "" || errors.Is(err, db.ErrNotFound) {
		return SnapshotRef{}, fmt.Errorf("snapshot %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return SnapshotRef{}, err
	}
	r, err := decodeSnapshotRef(name, b)
	if err == nil {
		err = ix.readLock(&r)
	}
	return r, err
}

func lockKey(name string) []byte { return append([]byte{keyLocked}, name...) }

// readLock reads until when a snapshot is locked.
func (ix *index) readLock(r *SnapshotRef) error {
	b, err := ix.db.Get(lockKey(r.Name))
	if errors.Is(err, db.ErrNotFound) {
		return nil
	}
	// Of another snapshot that had the name, as a repair may leave it.
	text, ok := bytes.CutPrefix(b, r.ID[:])
	if err != nil || !ok {
		return err
	}
	ms, n := binary.Varint(text)
	if n <= 0 || n != len(text) {
		return fmt.Errorf("row of the lock of snapshot %q: %w", r.Name, ErrCorrupt)
	}
	r.Until = time.UnixMilli(ms)
	return nil
}

// Snapshots calls fn for every snapshot's name, in order of names, as all were
// when it was called. An error of fn ends it and is returned, except ErrStop.
func (ix *index) Snapshots(ctx context.Context, fn func(SnapshotRef) error) error {
	return ix.db.ScanPrefix([]byte{keySnapshot}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := decodeSnapshotRef(string(key[1:]), value)
		if err == nil {
			err = ix.readLock(&r)
		}
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// NameSnapshot gives a snapshot a name, which keeps it. Call it inside Update,
// with the vertex held or pinned. Errors: ErrNameTaken, ErrConfig for a name that no
// snapshot can have, those of Put.
func (nt *nameTable) NameSnapshot(name string, id ID, marks ...SnapshotMark) error {
	if err := config.ValidSnapshotName(name); err != nil {
		return err
	}
	nt.mu.Lock()
	defer nt.mu.Unlock()
	if _, err := nt.index.Snapshot(name); !errors.Is(err, ErrNotFound) {
		return orTaken(err, name)
	}
	return nt.changeSnapshot(SnapshotRef{}, SnapshotRef{Name: name, ID: id, Set: nt.now(), Scheduled: slices.Contains(marks, Scheduled)})
}

func orTaken(err error, name string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("snapshot %q: %w", name, ErrNameTaken)
}

// changeSnapshot puts new, if it has a name, in the place of old, if that has.
// The caller holds mu and is inside Update.
func (nt *nameTable) changeSnapshot(old, new SnapshotRef) error {
	if new.Name != "" {
		release := nt.pending.Hold()
		defer release()
		id, err := nt.blocks.Put(tiering.Named, new.vertex())
		if err != nil {
			return err
		}
		nt.pending.Ref(id, 1)
	}
	if old.Name != "" {
		nt.pending.Ref(old.vertexID(), -1)
		nt.db.Delete(snapshotKey(old.Name))
		if err := nt.moveBrought(old, new); err != nil {
			return err
		}
		if !old.Until.IsZero() {
			nt.db.Delete(lockKey(old.Name))
		}
	}
	if new.Name != "" {
		nt.db.Set(snapshotKey(new.Name), new.encode())
		if !new.Until.IsZero() {
			nt.db.Set(lockKey(new.Name), binary.AppendVarint(bytes.Clone(new.ID[:]), new.Until.UnixMilli()))
		}
	}
	return nil
}

// moveBrought has the note of who brought a snapshot go with its name. Who renames it makes it the
// owner's; from elsewhere it still is.
func (nt *nameTable) moveBrought(old, new SnapshotRef) error {
	if new.Name == old.Name {
		return nil
	}
	_, brought, err := nt.index.BroughtBy(old)
	if err != nil {
		return err
	}
	nt.db.Delete(broughtKey(old.Name))
	if brought && new.Name != "" {
		nt.db.Set(broughtKey(new.Name), bytes.Clone(new.ID[:]))
	}
	return nil
}

// editSnapshot changes a name as edit says, in a Change or a Removal, and makes that durable.
func (nt *nameTable) editSnapshot(name string, change func(func() error) error, edit func(r SnapshotRef) (SnapshotRef, error)) error {
	err := change(func() error {
		nt.mu.Lock()
		defer nt.mu.Unlock()
		old, err := nt.index.Snapshot(name)
		if err != nil {
			return err
		}
		fresh, err := edit(old)
		if err != nil || fresh == old {
			return err
		}
		return nt.changeSnapshot(old, fresh)
	})
	if err != nil {
		return err
	}
	return nt.commits.Commit()
}

// RemoveSnapshot drops a snapshot's name, durably. The sweep reclaims what
// nothing else refers to. Errors: ErrNotFound, ErrHeld.
func (nt *nameTable) RemoveSnapshot(name string) error {
	return nt.editSnapshot(name, nt.commits.Removal, func(r SnapshotRef) (SnapshotRef, error) {
		if err := r.locked(nt.now()); err != nil {
			return r, err
		}
		if r.HeldAt(nt.now()) {
			return r, fmt.Errorf("snapshot %q: %w", name, ErrHeld)
		}
		return SnapshotRef{}, nil
	})
}

// RenameSnapshot gives a snapshot another name, durably. Errors: ErrNotFound,
// ErrNameTaken, ErrConfig.
func (nt *nameTable) RenameSnapshot(name, to string) error {
	if err := config.ValidSnapshotName(to); err != nil {
		return err
	}
	return nt.editSnapshot(name, nt.commits.Change, func(r SnapshotRef) (SnapshotRef, error) {
		if name == to {
			return r, nil
		}
		if _, err := nt.index.Snapshot(to); !errors.Is(err, ErrNotFound) {
			return r, orTaken(err, to)
		}
		r.Name, r.Set, r.Scheduled = to, nt.now(), false // who names it wants it
		return r, nil
	})
}

// HoldSnapshot keeps a snapshot from being removed, or lets go of it. Errors:
// ErrNotFound; ErrHeld: it is locked.
func (nt *nameTable) HoldSnapshot(name string, held bool) error {
	change := nt.commits.Change
	if !held {
		change = nt.commits.Removal // the next thing is to remove it
	}
	return nt.editSnapshot(name, change, func(r SnapshotRef) (SnapshotRef, error) {
		locked := r.locked(nt.now())
		if locked != nil && !held {
			return r, locked
		}
		// A lock that is over says nothing more.
		if locked == nil {
			r.Until = time.Time{}
		}
		return nt.hold(r, held), nil
	})
}

// LockSnapshot keeps a snapshot from being removed until a time, before which nobody can let go of
// it. Errors: ErrNotFound; ErrConfig: the time has come; ErrHeld: it is locked until later.
func (nt *nameTable) LockSnapshot(name string, until time.Time) error {
	return nt.editSnapshot(name, nt.commits.Change, func(r SnapshotRef) (SnapshotRef, error) {
		until, now := until.Truncate(time.Millisecond), nt.now()
		switch {
		case !until.After(now):
			return r, fmt.Errorf("%w: snapshot %q: %s is not to come", ErrConfig, name, until.Format(time.RFC3339))
		case until.Before(r.Until):
			return r, r.locked(now)
		}
		r.Until = until
		return nt.hold(r, true), nil
	})
}

func (nt *nameTable) hold(r SnapshotRef, held bool) SnapshotRef {
	if r.Held != held {
		// Later than before in the milliseconds that a vertex keeps: of one name's
		// vertices a rebuild takes the latest.
		r.Held, r.Set = held, later(nt.now(), r.Set.Add(time.Millisecond))
	}
	return r
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// loadSnapshots reads the rows of snapshots' names; what is damaged is removed.
func (r *repairer) loadSnapshots(ctx context.Context) error {
	return r.scan(ctx, keySnapshot, func(key, value []byte) error {
		name := string(key[1:])
		ref, err := decodeSnapshotRef(name, value)
		if err != nil || config.ValidSnapshotName(name) != nil {
			r.s.db.Delete(bytes.Clone(key))
			r.did("snapshot %q: its row was damaged, and nothing says which snapshot it named", name)
			return nil
		}
		r.snaps[name] = ref
		return nil
	})
}

// fixSnapshots writes the rows of snapshots' names.
func (r *repairer) fixSnapshots(context.Context) error {
	for name, ref := range r.snaps {
		r.s.db.Set(snapshotKey(name), ref.encode())
	}
	return nil
}
