package volume

import (
	"sync"
	"testing"
)

// Writers go on whenever bytes are given back or the limit is raised, none is forgotten, and the
// flusher has been woken before any of them waits.
func TestDirtyBudget(t *testing.T) {
	var b dirtyBudget
	flush := make(chan struct{}, 1)
	b.init(100, flush)
	b.add(25)
	if b.quarterFull() || len(flush) != 0 {
		t.Error("the flusher is woken at a quarter")
	}
	b.add(76)
	if !b.quarterFull() || !b.short() || len(flush) != 1 {
		t.Error("nobody wakes the flusher of a full budget")
	}
	for name, release := range map[string]func(){
		"given back": func() { b.add(-1); b.add(1) },
		"raised":     func() { b.setLimit(200); b.setLimit(100) },
	} {
		const writers = 20
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() { b.wait(); b.add(0) })
		}
		// Whoever comes late waits for the next release: so it is made until all are through.
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for open := true; open; {
			release()
			select {
			case <-done:
				open = false
			default:
			}
		}
		if b.bytes() != 101 {
			t.Errorf("%s: %d bytes are held", name, b.bytes())
		}
	}
	b.add(-101)
	b.wait()
}
