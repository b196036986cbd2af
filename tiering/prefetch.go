package tiering

import (
	"context"
	"sync"
)

const (
	prefetchReaders = 4
	prefetchQueue   = 64
)

// A prefetcher reads blocks before they are asked for. Its queue is short: what
// waits long in it would come too late.
type prefetcher struct {
	set      *Set
	requests chan prefetch
	quit     chan struct{}
	readers  sync.WaitGroup
}

type prefetch struct {
	id  [32]byte
	loc Location
}

func (p *prefetcher) start(s *Set) {
	p.set = s
	p.requests = make(chan prefetch, prefetchQueue)
	p.quit = make(chan struct{})
	if s.cache.otter == nil {
		return // nowhere to put blocks
	}
	for range prefetchReaders {
		p.readers.Go(p.run)
	}
}

func (p *prefetcher) run() {
	for {
		select {
		case <-p.quit:
			return
		case r := <-p.requests:
			p.read(r)
		}
	}
}

func (p *prefetcher) read(r prefetch) {
	s := p.set
	// Looked at again: it may have come in while the request waited.
	if s.cache.otter == nil || s.cache.has(r.id) {
		return
	}
	// An error is for the one who asks for the block to see.
	if _, err := s.flights.do(context.Background(), s, r.id, r.loc); err == nil {
		s.counters.prefetched.Add(1)
	}
}

func (p *prefetcher) request(id [32]byte, loc Location) {
	if p.set.cache.has(id) {
		return
	}
	select {
	// Never waits: a block that is not read ahead is read when it is asked for.
	case p.requests <- prefetch{id, loc}:
	default:
		p.set.counters.prefetchDropped.Add(1)
	}
}

func (p *prefetcher) waiting() int { return len(p.requests) }

func (p *prefetcher) stop() {
	close(p.quit)
	p.readers.Wait()
}
