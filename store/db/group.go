package db

import "sync"

// A Group lets callers share runs of something costly, such as a commit. The
// zero Group is ready for use.
type Group struct {
	mu      sync.Mutex
	running bool
	next    *round
}

// round is a run that has not begun.
type round struct {
	start chan struct{} // closed when the run before it has ended
	done  chan struct{}
	err   error
}

// Do returns the result of a run that began after Do was called. A caller that
// finds none under way runs its own function at once. Those that arrive during
// a run wait for its end; then one of them runs its function and all share the
// result. So run must do the same thing whoever calls it.
func (g *Group) Do(run func() error) error {
	g.mu.Lock()
	if !g.running {
		g.running = true
		r := &round{done: make(chan struct{})}
		g.mu.Unlock()
		return g.lead(r, run)
	}
	if r := g.next; r != nil {
		g.mu.Unlock()
		<-r.done
		return r.err
	}
	r := &round{start: make(chan struct{}), done: make(chan struct{})}
	g.next = r
	g.mu.Unlock()
	<-r.start
	return g.lead(r, run)
}

// lead runs r and hands over to the round that gathered meanwhile. A panic of
// run reaches its own caller; the others get errAborted and nobody hangs.
func (g *Group) lead(r *round, run func() error) error {
	r.err = errAborted
	defer func() {
		close(r.done)
		g.mu.Lock()
		defer g.mu.Unlock()
		next := g.next
		g.next = nil
		if next == nil {
			g.running = false
			return
		}
		close(next.start)
	}()
	r.err = run()
	return r.err
}
