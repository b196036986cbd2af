package volume

import (
	"sync"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/store/routine"
)

// A dirtyBudget is the memory that written bytes may take until they are stored. Whoever writes
// waits while more than that is held; the flusher is woken from a quarter on. It has its own mutex,
// under which nothing else is taken.
type dirtyBudget struct {
	mu    sync.Mutex
	freed sync.Cond // bytes were given back, or the limit was raised
	held  int64
	limit atomic.Int64
	flush chan<- struct{} // wakes the flusher
}

func (b *dirtyBudget) init(limit int64, flush chan<- struct{}) {
	b.freed.L = &b.mu
	b.limit.Store(limit)
	b.flush = flush
}

// wait returns when no more than the limit is held. The caller holds no lock: it would stop the
// flusher that it waits for.
func (b *dirtyBudget) wait() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.held > b.limit.Load() {
		routine.Kick(b.flush)
		b.freed.Wait()
	}
}

// add counts delta more bytes as held.
func (b *dirtyBudget) add(delta int64) {
	if delta == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held += delta
	if delta < 0 {
		b.freed.Broadcast()
	}
	b.wakeIfFull()
}

// setLimit changes the limit; who is over it waits from now on.
func (b *dirtyBudget) setLimit(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit.Store(bytes)
	b.freed.Broadcast()
	b.wakeIfFull()
}

// wakeIfFull starts storing long before anybody has to wait. mu is held.
func (b *dirtyBudget) wakeIfFull() {
	if b.held > b.limit.Load()/4 {
		routine.Kick(b.flush)
	}
}

// bytes returns how many bytes are held.
func (b *dirtyBudget) bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// quarterFull reports whether dirty ranges are to be stored although they could still grow.
func (b *dirtyBudget) quarterFull() bool { return b.bytes() > b.limit.Load()/4 }

// short reports whether memory is so scarce that small ranges are not kept together any more.
func (b *dirtyBudget) short() bool { return b.bytes() > b.limit.Load()/2 }
