// Package transfer copies snapshots between two stores, wherever these are: what a sync
// sends is chosen by a Job, and sent by a Transfer.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// A Transfer is snapshots that one peer is to have of another.
type Transfer struct {
	From, To  remote.Peer
	Snapshots []SnapshotRef             // in the order in which they are to arrive
	Base      []store.ID                // at most one: a snapshot that both have; what it shares needs no question
	Whose     string                    // the name of the leases, to be shown
	Streams   int                       // of blocks at a time; 0: by the round trip to the peers
	Progress  func(Progress)            // if set, called now and then, never twice at a time
	Retried   func(cause error)         // if set, called before all is begun again
	Arrived   func(SnapshotRef)         // if set, called when one has its name; once more after a retry
	Wait      func(n int) time.Duration // before the nth retry in a row; nil: 0.5 s, and twice as much each time
}

// A SnapshotRef is a snapshot that travels, and the name that it gets.
type SnapshotRef struct {
	Name string
	ID   store.ID
}

// A Progress says how far a transfer is.
type Progress struct {
	Snapshots int64 `json:"snapshots"` // that have arrived
	Blocks    int64 `json:"blocks"`    // that have travelled, vertices among them
	Bytes     int64 `json:"bytes"`     // of their records
	Found     int64 `json:"found"`     // blocks that travel or have, as far as is known
	Skipped   int64 `json:"skipped"`   // blocks and subtrees that were there already
	Retries   int64 `json:"retries"`   // connections that broke, and were made again
}

type counters struct{ snapshots, blocks, bytes, found, skipped, retries atomic.Int64 }

func (c *counters) now() Progress {
	return Progress{c.snapshots.Load(), c.blocks.Load(), c.bytes.Load(), c.found.Load(), c.skipped.Load(), c.retries.Load()}
}

// maxRetries is how often a transfer is begun again without a block that came.
const maxRetries = 6

// Run has the snapshots arrive, each with all below it, and gives them their names.
// What is there does not travel. When a connection breaks, Run begins anew, which
// costs a question for each subtree; so does whoever calls it again later. Errors:
// those of Peer.
func (t Transfer) Run(ctx context.Context) (Progress, error) {
	if t.Wait == nil {
		t.Wait = func(n int) time.Duration { return 250 * time.Millisecond << n }
	}
	var c counters
	var leases leasePair
	stop := t.report(&c)
	defer stop()
	var err error
	for failed := 0; ; {
		before := c.blocks.Load()
		// A new sender for each try: what is under way in the old one is asked about again.
		if err = leases.begin(ctx, &t); err == nil {
			err = newSender(&t, &leases, &c).run(ctx)
		}
		if err == nil || ctx.Err() != nil || !retryable(err) {
			break
		}
		// A try that brought something was no failure of the way: only tries in vain are counted.
		if failed++; c.blocks.Load() > before {
			failed = 1
		}
		if failed > maxRetries {
			break
		}
		if errors.Is(err, store.ErrNotFound) {
			leases.hasTo = false // a restarted peer may have lost what it had not committed
		}
		c.retries.Add(1)
		if t.Retried != nil {
			t.Retried(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(t.Wait(failed)):
		}
	}
	if err == nil {
		// Only after success: after an error what has come stays leased, and the next sync finds
		// it.
		err = leases.end(ctx, &t)
	}
	return c.now(), err
}

// report calls Progress until the function that it returns is called.
func (t *Transfer) report(c *counters) (stop func()) {
	if t.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				t.Progress(c.now())
			}
		}
	}()
	// Waited for, so that Progress is not called after Run has returned.
	return func() { close(quit); <-done }
}

// A leasePair keeps the snapshots at the source, and what has come at the
// destination.
type leasePair struct {
	from, to       store.LeaseID
	hasFrom, hasTo bool
}

func (l *leasePair) begin(ctx context.Context, t *Transfer) (err error) {
	if !l.hasTo {
		if l.to, err = t.To.NewLease(ctx, t.Whose); err != nil {
			return err
		}
		l.hasTo = true
	}
	// Both are kept over tries: a new one would leave what has come to the sweep.
	if l.hasFrom {
		return nil
	}
	if l.from, err = t.From.NewLease(ctx, t.Whose); err != nil {
		return err
	}
	l.hasFrom = true
	// The source must not sweep what is being sent, nor the base, should their names go meanwhile.
	ids := slices.Clone(t.Base)
	for _, s := range t.Snapshots {
		ids = append(ids, s.ID)
	}
	for len(ids) > 0 {
		n := min(len(ids), remote.MaxBatch)
		has, err := t.From.Keep(ctx, l.from, ids[:n])
		if err != nil {
			return err
		}
		for i, ok := range has {
			if !ok {
				return fmt.Errorf("snapshot %s is not there any more: %w", ids[i].Short(), errSource)
			}
		}
		ids = ids[n:]
	}
	return nil
}

func (l *leasePair) end(ctx context.Context, t *Transfer) error {
	return errors.Join(t.To.EndLease(ctx, l.to), t.From.EndLease(ctx, l.from))
}

// errSource: what was to be sent cannot be read; another try is no use.
var errSource = errors.New("the source of the sync lacks a block")

// retryable tells whether another try may go well: the connection broke, or the peer was
// started anew and lost what it had not yet committed.
func retryable(err error) bool {
	return !errors.Is(err, errSource) && (remote.Retryable(err) || errors.Is(err, store.ErrNotFound))
}

// RestoreBlocks stores good copies of blocks that to has lost or cannot read, as far as
// from has them, and calls fn for each that came. Vertices whose links are missing too
// come in a later round.
func RestoreBlocks(ctx context.Context, from, to remote.Peer, ids []store.ID, fn func(store.ID)) (restored int, err error) {
	lease, err := to.NewLease(ctx, "scrub")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.EndLease(ctx, lease)) }()
	for before := -1; before < restored && len(ids) > 0; {
		before = restored
		var left []store.ID
		for _, id := range ids {
			// One by one: in a batch the first that the peer lacks would end the rest.
			err := to.PutRecords(ctx, lease, func(put func(store.Record) error) error { return from.Records(ctx, []store.ID{id}, put) })
			switch {
			case err == nil:
				restored++
				fn(id)
			case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
				left = append(left, id) // the peer has no good copy, or what it links to is to come
			default:
				return restored, err
			}
		}
		ids = left
	}
	return restored, nil
}
