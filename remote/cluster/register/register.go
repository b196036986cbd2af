// Package register is the small, strictly serializable store of a cluster's
// decisions: who is a node, which copies a volume has, who writes it. A value
// changes only by compare-and-swap, so that two who decide at the same time
// never both succeed; measurements do not belong here.
//
// Leases tell who is alive and nothing more: no right to write or to promote
// ever rests on one, since a lease can end early and its holder learns it late.
package register

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("no such key in the cluster's register")
	// ErrConflict: somebody else has changed what a commit rests on; nothing of it was done.
	ErrConflict = errors.New("the cluster's register has changed meanwhile")
	// ErrUncertain: the answer to a commit was lost, and it may have been done or not. Read again.
	ErrUncertain = errors.New("no answer from the cluster's register: the change may have been made or not")
	// ErrUnavailable: the register cannot be reached, or has no quorum; nothing was done.
	ErrUnavailable = errors.New("the cluster's register cannot be reached")
	// ErrLeaseLost: the lease has ended, and what was put under it is gone.
	ErrLeaseLost = errors.New("the lease in the cluster's register has ended")
)

// An Entry is a key, its value and the revision that last changed it, which is
// above 0 and above that of every earlier change of any key.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64
}

// A Condition holds while the key was last changed by Revision; 0: while there is no such key.
type Condition struct {
	Key      string
	Revision int64
}

// A Txn is done as a whole if all of If hold, or not at all. No key is twice in
// Put and Delete.
type Txn struct {
	If     []Condition
	Put    []Entry // Revision is not looked at
	Delete []string
}

// An Event is a change of one key. A Reset is the last event of its watch: changes
// were missed, and the watcher must List again.
type Event struct {
	Entry
	Deleted bool
	Reset   bool
}

// A Register is one cluster's. Every method is safe for concurrent use and
// returns, besides what it lists, ErrUnavailable or the context's error.
type Register interface {
	// Get returns the key's entry: ErrNotFound. It sees every commit that was answered before.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns all entries below prefix in the order of their keys, as of
	// one moment, and that moment's revision, from which Watch can go on.
	List(ctx context.Context, prefix string) ([]Entry, int64, error)

	// Commit does t and returns its revision, or the last one if t only deletes
	// what is not there: ErrConflict (nothing was done),
	// ErrUncertain (it may have been). A Txn without conditions and changes is
	// an error of the caller.
	Commit(ctx context.Context, t Txn) (int64, error)

	// Watch sends the changes below prefix after the given revision in their
	// order until ctx ends, when it closes the channel. A reader that lags is
	// waited for; one whose revision is no longer kept gets a Reset, and the
	// channel is closed.
	Watch(ctx context.Context, prefix string, after int64) <-chan Event

	// Lease begins one that ends ttl (whole seconds, 1 or more; a register may
	// round it up) after its holder was last heard of.
	Lease(ctx context.Context, ttl time.Duration) (Lease, error)

	Close() error
}

// A Lease is kept up in the background until Close, or until its holder can
// no longer reach the register.
type Lease interface {
	// Put writes a key that goes when the lease ends: ErrLeaseLost.
	Put(ctx context.Context, key string, value []byte) error
	// Lost is closed once the lease is known to have ended.
	Lost() <-chan struct{}
	// Close ends it; its keys are gone when Close returns nil.
	Close(ctx context.Context) error
}

// Update replaces the key's value by what change makes of it, again and again
// until nobody comes between. change gets an Entry with Revision 0 where there
// is none, and its error ends the attempt. An uncertain commit is returned as
// such: only the caller can tell its own value from that of another.
func Update(ctx context.Context, r Register, key string, change func(Entry) ([]byte, error)) (Entry, error) {
	for {
		old, err := r.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Entry{}, err
		}
		value, err := change(old)
		if err != nil {
			return Entry{}, err
		}
		revision, err := r.Commit(ctx, Txn{
			If:  []Condition{{Key: key, Revision: old.Revision}},
			Put: []Entry{{Key: key, Value: value}},
		})
		if err == nil {
			return Entry{Key: key, Value: value, Revision: revision}, nil
		}
		if !errors.Is(err, ErrConflict) {
			return Entry{}, fmt.Errorf("update %s: %w", key, err)
		}
	}
}

// Validate reports a Txn that cannot be meant: one that is empty, or that names a key twice.
func (t Txn) Validate() error {
	if len(t.Put)+len(t.Delete) == 0 {
		return errors.New("a commit to the cluster's register that changes nothing")
	}
	seen := make(map[string]bool)
	for _, key := range t.keys() {
		if key == "" {
			return errors.New("a commit to the cluster's register with an empty key")
		}
		if seen[key] {
			return fmt.Errorf("a commit to the cluster's register that changes %q twice", key)
		}
		seen[key] = true
	}
	return nil
}

func (t Txn) keys() []string {
	keys := make([]string, 0, len(t.Put)+len(t.Delete))
	for _, e := range t.Put {
		keys = append(keys, e.Key)
	}
	return append(keys, t.Delete...)
}
