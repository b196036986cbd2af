// Package registertest has a register in memory, and the suite that every register passes.
package registertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// A Fake is a cluster's register in memory. Several Clients share one, as
// several nodes share a real one.
//
// Lock: mu alone.
type Fake struct {
	mu struct {
		sync.Mutex
		down     bool
		revision int64
		entries  map[string]register.Entry
		leases   map[string]*lease // by the key that is under it
		history  []register.Event  // all changes since the beginning, by revision
		changed  chan struct{}     // closed by the next change, and then made anew
	}
}

// NewFake returns an empty one.
func NewFake() *Fake {
	f := &Fake{}
	f.mu.entries = make(map[string]register.Entry)
	f.mu.leases = make(map[string]*lease)
	f.mu.changed = make(chan struct{})
	return f
}

// SetDown makes every call fail with ErrUnavailable, as without a quorum, or work again. Leases
// end meanwhile, as their holders are not heard.
func (f *Fake) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.down = down
}

// Client returns a register that is f, as one node sees it.
func (f *Fake) Client() register.Register { return client{f} }

type client struct{ f *Fake }

func (c client) Close() error { return nil }

func (c client) Get(ctx context.Context, key string) (register.Entry, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if err := c.f.ready(ctx); err != nil {
		return register.Entry{}, err
	}
	e, ok := c.f.mu.entries[key]
	if !ok {
		return register.Entry{}, register.ErrNotFound
	}
	e.Value = slices.Clone(e.Value)
	return e, nil
}

func (c client) List(ctx context.Context, prefix string) ([]register.Entry, int64, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if err := c.f.ready(ctx); err != nil {
		return nil, 0, err
	}
	var found []register.Entry
	for key, e := range c.f.mu.entries {
		if strings.HasPrefix(key, prefix) {
			e.Value = slices.Clone(e.Value)
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b register.Entry) int { return strings.Compare(a.Key, b.Key) })
	return found, c.f.mu.revision, nil
}

func (c client) Commit(ctx context.Context, t register.Txn) (int64, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if err := c.f.ready(ctx); err != nil {
		return 0, err
	}
	for _, cond := range t.If {
		if c.f.mu.entries[cond.Key].Revision != cond.Revision {
			return 0, register.ErrConflict
		}
	}
	return c.f.apply(t, nil), nil
}

// ready is for who holds mu.
func (f *Fake) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.mu.down {
		return register.ErrUnavailable
	}
	return nil
}

// apply is for who holds mu. What it puts is under l, which may be nil.
func (f *Fake) apply(t register.Txn, l *lease) int64 {
	f.mu.revision++
	for _, e := range t.Put {
		e.Value, e.Revision = slices.Clone(e.Value), f.mu.revision
		f.mu.entries[e.Key] = e
		if delete(f.mu.leases, e.Key); l != nil {
			f.mu.leases[e.Key] = l
		}
		f.mu.history = append(f.mu.history, register.Event{Entry: e})
	}
	for _, key := range t.Delete {
		if _, ok := f.mu.entries[key]; !ok {
			continue // as in etcd, this is no change and no event
		}
		delete(f.mu.entries, key)
		delete(f.mu.leases, key)
		f.mu.history = append(f.mu.history, register.Event{
			Entry: register.Entry{Key: key, Revision: f.mu.revision}, Deleted: true,
		})
	}
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
	return f.mu.revision
}

func (c client) Watch(ctx context.Context, prefix string, after int64) <-chan register.Event {
	out := make(chan register.Event)
	go func() {
		defer close(out)
		for next := 0; ; {
			c.f.mu.Lock()
			news, changed := c.f.mu.history[next:], c.f.mu.changed
			next = len(c.f.mu.history)
			c.f.mu.Unlock()
			for _, ev := range news {
				if ev.Revision <= after || !strings.HasPrefix(ev.Key, prefix) {
					continue
				}
				ev.Value = slices.Clone(ev.Value)
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (c client) Lease(ctx context.Context, ttl time.Duration) (register.Lease, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if err := c.f.ready(ctx); err != nil {
		return nil, err
	}
	l := &lease{f: c.f, ttl: ttl, lost: make(chan struct{}), closed: make(chan struct{})}
	go l.keep()
	return l, nil
}

type lease struct {
	f            *Fake
	ttl          time.Duration
	lost, closed chan struct{}
	end          sync.Once
}

// keep ends the lease when it is closed, or once the register has not heard of it for ttl.
func (l *lease) keep() {
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-l.closed:
			return
		case <-tick.C:
		}
		l.f.mu.Lock()
		if !l.f.mu.down {
			heard = time.Now()
		}
		l.f.mu.Unlock()
		if time.Since(heard) >= l.ttl {
			l.expire()
			return
		}
	}
}

func (l *lease) expire() {
	l.end.Do(func() {
		l.f.mu.Lock()
		defer l.f.mu.Unlock()
		var t register.Txn
		for key, holder := range l.f.mu.leases {
			if holder == l {
				t.Delete = append(t.Delete, key)
			}
		}
		if len(t.Delete) > 0 {
			l.f.apply(t, nil)
		}
		close(l.lost)
	})
}

func (l *lease) Put(ctx context.Context, key string, value []byte) error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if err := l.f.ready(ctx); err != nil {
		return err
	}
	select {
	case <-l.lost:
		return register.ErrLeaseLost
	default:
	}
	l.f.apply(register.Txn{Put: []register.Entry{{Key: key, Value: value}}}, l)
	return nil
}

func (l *lease) Lost() <-chan struct{} { return l.lost }

func (l *lease) Close(context.Context) error {
	select {
	case <-l.lost:
		return nil
	default:
	}
	close(l.closed)
	l.expire()
	return nil
}
