// Package routine has what goes on beside requests, and is told to end.
package routine

import (
	"context"
	"time"
)

// A Routine is a goroutine that ends when it is told to.
type Routine struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Start has run go on in the background until it returns, as it does when its context
// ends.
func Start(run func(ctx context.Context)) *Routine {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Routine{cancel, make(chan struct{})}
	go func() {
		defer close(r.done)
		run(ctx)
	}()
	return r
}

// End tells the routine to end, and waits until it has. A nil one has.
func (r *Routine) End() {
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// Sleep waits for d, or until ctx ends: its error.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Kick wakes whoever waits for something in c, which has room for one. If something is in it
// already, that will wake them.
func Kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Each calls step after first, then every so often, and when something is in kick,
// until ctx ends. A step that takes longer delays the next.
func Each(ctx context.Context, first, every time.Duration, kick <-chan struct{}, step func()) {
	due := time.NewTimer(first)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			due.Reset(every)
		case <-kick:
		}
		step()
	}
}
