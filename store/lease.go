package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
)

// A Lease keeps blocks from the sweep while a sync brings what is to refer to
// them, across crashes. A block that it keeps has a row, which counts as a
// reference (I4). It ends when it is told to, or LeaseTime after it was last
// used.
type Lease struct {
	ID      LeaseID   `json:"id"`
	By      Actor     `json:"by,omitempty"` // who began it
	For     string    `json:"for"`          // what for, as who began it says
	Begun   time.Time `json:"begun"`
	Expires time.Time `json:"expires"` // zero: it has ended, and its rows go
}

// An Actor is who does something with a store, as package remote found out: never what a client
// says of itself. "" is the store's owner.
type Actor string

// A LeaseID names a lease. It is random.
type LeaseID [16]byte

func (l LeaseID) String() string { return hex.EncodeToString(l[:]) }

// MarshalText is String.
func (l LeaseID) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is the reverse. ErrConfig.
func (l *LeaseID) UnmarshalText(b []byte) error {
	if n, err := hex.Decode(l[:], b[:min(len(b), 2*len(l))]); err != nil || n != len(l) || len(b) != 2*len(l) {
		return fmt.Errorf("lease %q: %w", b, ErrConfig)
	}
	return nil
}

const (
	// LeaseTime is how long a lease stays that nobody uses: an interrupted sync
	// that is begun again within it sends nothing twice.
	LeaseTime = 24 * time.Hour
	// maxLeases bounds how many there are; beyond it the one that was idle longest
	// ends, if it was idle for leaseIdle.
	maxLeases = 64
	leaseIdle = 10 * time.Minute
	// actorLeases bounds those of one actor, except of the owner, so that others get some.
	actorLeases = 16
	// A lease in use is written anew when it has lost so much of its time.
	leaseRenew = 5 * time.Minute
	leaseBatch = 4096 // rows removed at a time
)

// A leaseTable has the leases that there are.
type leaseTable struct {
	*base
	index   *index
	pending *pending
	commits *committer
	bad     *badBlocks

	mu  sync.Mutex
	all map[LeaseID]*Lease
}

func leaseKey(id LeaseID) []byte { return append([]byte{keyLease}, id[:]...) }

func heldKey(lease LeaseID, id ID) []byte {
	return append(append([]byte{keyLeased}, lease[:]...), id[:]...)
}

// heldBlock returns the block of a row of keyLeased.
func heldBlock(key []byte) (id ID, ok bool) {
	const head = 1 + len(LeaseID{})
	if len(key) != head+len(id) {
		return id, false
	}
	return ID(key[head:]), true
}

// countHeld is for a scan of keyLeased: it calls ref for each block that is kept.
func countHeld(ref func(ID)) func(key, _ []byte) error {
	return func(key, _ []byte) error {
		if id, ok := heldBlock(key); ok {
			ref(id)
		}
		return nil
	}
}

func (lt *leaseTable) loadLeases() error {
	lt.all = make(map[LeaseID]*Lease)
	return lt.db.ScanPrefix([]byte{keyLease}, func(key, value []byte) error {
		l := new(Lease)
		if err := json.Unmarshal(value, l); err != nil || !bytes.Equal(key, leaseKey(l.ID)) {
			lt.log.Error("the row of a lease is damaged; what it keeps stays", "row", fmt.Sprintf("%x", key))
			return nil
		}
		lt.all[l.ID] = l
		return nil
	})
}

// setLease writes a lease's row. The caller is inside Update and holds mu.
func (lt *leaseTable) setLease(l *Lease) error {
	b, err := json.Marshal(l)
	if err == nil {
		lt.db.Set(leaseKey(l.ID), b)
	}
	return err
}

// Leases returns the leases that are in force, the oldest first.
func (lt *leaseTable) Leases() []Lease {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	var list []Lease
	for _, l := range lt.all {
		if l.Expires.After(lt.now()) {
			list = append(list, *l)
		}
	}
	slices.SortFunc(list, func(a, b Lease) int { return a.Begun.Compare(b.Begun) })
	return list
}

// NewLease begins a lease, durably. ErrLocked: too many are in use.
func (lt *leaseTable) NewLease(whose string, by Actor) (LeaseID, error) {
	now := lt.now()
	l := &Lease{By: by, For: whose[:min(len(whose), 255)], Begun: now, Expires: now.Add(LeaseTime)}
	_, _ = rand.Read(l.ID[:]) // it never fails
	err := lt.commits.Change(func() error {
		lt.mu.Lock()
		defer lt.mu.Unlock()
		// An actor's own share first: who has used it up ends none of others.
		if by != "" {
			if err := lt.makeRoomForLease(now, actorLeases, func(l *Lease) bool { return l.By == by }); err != nil {
				return fmt.Errorf("%s: %w", by, err)
			}
		}
		if err := lt.makeRoomForLease(now, maxLeases, func(*Lease) bool { return true }); err != nil {
			return err
		}
		lt.all[l.ID] = l
		return lt.setLease(l)
	})
	if err == nil {
		// Before the ID is given out: the other side will name it after a crash of this one.
		err = lt.commits.Commit()
	}
	return l.ID, err
}

// makeRoomForLease ends the lease that was idle longest when there are as many as there may be,
// of those that count.
func (lt *leaseTable) makeRoomForLease(now time.Time, most int, counts func(*Lease) bool) error {
	var oldest *Lease
	n := 0
	for _, l := range lt.all {
		// It has ended, and waits only for its rows to go.
		if l.Expires.IsZero() || !counts(l) {
			continue
		}
		if n++; oldest == nil || l.Expires.Before(oldest.Expires) {
			oldest = l
		}
	}
	if n < most {
		return nil
	}
	if now.Before(oldest.Expires.Add(leaseIdle - LeaseTime)) {
		return fmt.Errorf("%d syncs are under way: %w", n, ErrLocked)
	}
	oldest.Expires = time.Time{}
	return lt.setLease(oldest)
}

// Keep has a lease keep those blocks that the store has whole, and reports which
// these are: a vertex stands for all below it (I5). A block that is known to be
// bad is not among them. ErrNotFound: there is no such lease, or it has ended.
func (lt *leaseTable) Keep(lease LeaseID, ids []ID) (has []bool, err error) {
	release := lt.pending.Hold()
	defer release()
	has = make([]bool, len(ids))
	for i, id := range ids {
		// Noted before it is looked up: what is found stays until the lease refers to it.
		lt.pending.note(id)
		e, err := lt.index.Lookup(id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		has[i] = err == nil && !e.isPlaceholder() && !lt.bad.has(id)
	}
	err = lt.commits.Change(func() error {
		lt.mu.Lock()
		defer lt.mu.Unlock()
		if err := lt.renew(lease); err != nil {
			return err
		}
		for i, id := range ids {
			if !has[i] {
				continue
			}
			key := heldKey(lease, id)
			// A lease counts once for a block, however often a sync that is begun again asks.
			if _, err := lt.db.Get(key); errors.Is(err, db.ErrNotFound) {
				lt.db.Set(key, []byte{})
				lt.pending.Ref(id, 1)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	lt.commits.MaybeCommit()
	return has, err
}

// renew puts a lease's end off. The caller is inside Update and holds mu.
func (lt *leaseTable) renew(lease LeaseID) error {
	l, now := lt.all[lease], lt.now()
	if l == nil || !l.Expires.After(now) {
		return fmt.Errorf("sync lease %s: %w", lease, ErrNotFound)
	}
	if l.Expires.Sub(now) > LeaseTime-leaseRenew {
		return nil
	}
	l.Expires = now.Add(LeaseTime)
	return lt.setLease(l)
}

// EndLease lets go of all that a lease keeps. One that has ended is no error.
func (lt *leaseTable) EndLease(lease LeaseID) error {
	err := lt.commits.Removal(func() error {
		lt.mu.Lock()
		defer lt.mu.Unlock()
		l := lt.all[lease]
		if l == nil {
			return nil
		}
		// Ended at once for all who look, and its rows, maybe millions, go after it.
		l.Expires = time.Time{}
		return lt.setLease(l)
	})
	if err == nil {
		err = lt.endExpired(context.Background())
	}
	return err
}

// endExpired removes the rows of leases that have ended, durably. A crash in its midst
// leaves the rest to the next call.
func (lt *leaseTable) endExpired(ctx context.Context) error {
	lt.mu.Lock()
	var over []LeaseID
	for id, l := range lt.all {
		if !l.Expires.After(lt.now()) {
			over = append(over, id)
		}
	}
	lt.mu.Unlock()
	for _, id := range over {
		if err := lt.dropLease(ctx, id); err != nil {
			return fmt.Errorf("end sync lease %s: %w", id, err)
		}
	}
	if len(over) == 0 {
		return nil
	}
	return lt.commits.Commit() // from then on the sweep sees what nothing refers to
}

// dropLease removes a lease that has ended.
func (lt *leaseTable) dropLease(ctx context.Context, lease LeaseID) error {
	prefix := append([]byte{keyLeased}, lease[:]...)
	for more := true; more; {
		err := lt.commits.Removal(func() error {
			lt.mu.Lock()
			defer lt.mu.Unlock()
			// Some at a time: a lease may keep millions, and commits and Keep wait for this lock.
			keys, err := lt.index.someKeys(prefix, leaseBatch)
			for _, key := range keys {
				if id, ok := heldBlock(key); ok {
					lt.pending.Ref(id, -1)
				}
				lt.db.Delete(key)
			}
			if more = len(keys) == leaseBatch; err == nil && !more {
				// Last, so that a crash before leaves a lease that is found and ended again.
				lt.db.Delete(leaseKey(lease))
				delete(lt.all, lease)
			}
			return err
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		lt.commits.MaybeCommit()
	}
	return nil
}

// someKeys returns the first keys with a prefix.
func (ix *index) someKeys(prefix []byte, most int) (keys [][]byte, err error) {
	err = ix.db.ScanPrefix(prefix, func(key, _ []byte) error {
		if keys = append(keys, bytes.Clone(key)); len(keys) == most {
			return db.ErrStop
		}
		return nil
	})
	return keys, err
}

// LinkSnapshot gives a name to a snapshot that a sync has brought, durably; the
// caller has a lease keep it. That it has this name already is no error, and it stays whose it is.
// Errors: ErrNameTaken: another snapshot has it; ErrConfig: no snapshot can, or id is none;
// ErrNotFound.
func (nt *nameTable) LinkSnapshot(name string, id ID, by Actor) error {
	err := nt.commits.Change(func() error {
		e, err := nt.index.Lookup(id)
		if err == nil && e.Kind != KindSnapshot {
			err = fmt.Errorf("%s is a %s and no snapshot: %w", id.Short(), e.Kind, ErrConfig)
		}
		if err != nil {
			return err
		}
		err = nt.NameSnapshot(name, id)
		if errors.Is(err, ErrNameTaken) {
			// A sync that is begun again finds what it did before it was interrupted.
			if r, serr := nt.index.Snapshot(name); serr == nil && r.ID == id {
				return nil
			}
		}
		// In the commit of the name: no crash leaves one without the other.
		if err == nil {
			nt.db.Set(broughtKey(name), append(id[:], by...))
		}
		return err
	})
	if err == nil {
		// Durable before the other side is told, which may then forget it.
		err = nt.commits.Commit()
	}
	return err
}

func broughtKey(name string) []byte { return append([]byte{keyBrought}, name...) }

// BroughtBy reports whether a sync has brought what a snapshot's name leads to, and who gave it
// that name. "": the store's owner, or nobody knows: it was before that was noted, or a repair made
// the database anew.
func (ix *index) BroughtBy(r SnapshotRef) (by Actor, brought bool, err error) {
	b, err := ix.db.Get(broughtKey(r.Name))
	if errors.Is(err, db.ErrNotFound) {
		return "", false, nil
	}
	// With the ID, so that what a damaged database has left of another one's name says nothing.
	text, brought := bytes.CutPrefix(b, r.ID[:])
	if err != nil || !brought {
		return "", false, err
	}
	return Actor(text), true, nil
}

// A SyncNote says how the last sync with a remote went.
type SyncNote struct {
	Remote    string    `json:"remote"`
	Direction string    `json:"direction"` // push or pull
	Begun     time.Time `json:"begun"`
	Ended     time.Time `json:"ended"`
	Snapshots int64     `json:"snapshots"` // that the other side did not have
	Blocks    int64     `json:"blocks"`    // that travelled
	Bytes     int64     `json:"bytes"`     // of their records
	Error     string    `json:"error,omitempty"`
	// Came are, by direction, the snapshots of the receiving side that such syncs brought there. A
	// direction without an entry is not known about.
	Came map[string][]ID `json:"came,omitempty"`
}

// maxCame bounds what is remembered of a direction. What is forgotten is not pruned. Those of both
// must fit into a row, with 67 bytes each.
const maxCame = 3584

// Bounded is what is remembered of a note: some 480 KB at most, for a row, and for a request.
func (n SyncNote) Bounded() SyncNote {
	n.Error = n.Error[:min(len(n.Error), maxReason)]
	came := n.Came
	n.Came = nil
	for direction, ids := range came {
		if n.Came == nil {
			n.Came = make(map[string][]ID, len(came))
		}
		n.Came[direction] = ids[max(0, len(ids)-maxCame):]
	}
	return n
}

// NoteSync remembers how a sync went, in place of the one before with the same
// remote.
func (lt *leaseTable) NoteSync(n SyncNote) error {
	if n.Remote == "" || len(n.Remote) > config.MaxSnapshotName {
		return fmt.Errorf("remote %q: %w", n.Remote, ErrConfig)
	}
	b, err := json.Marshal(n.Bounded())
	if err != nil {
		return err
	}
	return lt.commits.Change(func() error { lt.db.Set(append([]byte{keySyncNote}, n.Remote...), b); return nil })
}

// SyncNotes returns what is remembered of syncs, in order of the remotes' names.
func (ix *index) SyncNotes() (list []SyncNote, err error) {
	err = ix.db.ScanPrefix([]byte{keySyncNote}, func(_, value []byte) error {
		var n SyncNote
		if err := json.Unmarshal(value, &n); err != nil {
			return fmt.Errorf("row of the last sync: %w: %w", ErrCorrupt, err)
		}
		list = append(list, n)
		return nil
	})
	return list, err
}
