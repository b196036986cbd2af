// Package budget bounds what the requests of others may cost. A Pool shares something countable,
// such as places or memory, among clients, so that none takes all of it. A Budget is the time and
// the memory that one request has; whoever walks a graph for it charges there what it holds.
//
// The sender of a graph chooses its depth and width, and so what an answer about it costs. No
// bound on what may be sent makes every answer cheap, so each answer has a bound as well.
package budget

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrCost says that a request was ended because it had cost as much as one may.
var ErrCost = errors.New("the request costs too much")

// A Client is whom a share counts for: each of its names has one, such as that of its token and
// that of its address. None of them is empty.
type Client []string

// A Pool is a number of equal things that clients take and give back.
type Pool struct {
	total, share int64

	mu     sync.Mutex
	taken  int64
	by     map[string]int64 // of each name; without those that have nothing
	change chan struct{}    // closed when something is given back
}

// NewPool returns a pool of total things, of which one name has share at most.
func NewPool(total, share int64) *Pool {
	return &Pool{total: total, share: min(share, total), by: make(map[string]int64), change: make(chan struct{})}
}

// TryTake takes n things, or nothing.
func (p *Pool) TryTake(c Client, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.take(c, n)
}

// take does so; the pool is locked.
func (p *Pool) take(c Client, n int64) bool {
	full := func(name string) bool { return p.by[name]+n > p.share }
	if p.taken+n > p.total || slices.ContainsFunc(c, full) {
		return false
	}
	p.taken += n
	for _, name := range c {
		p.by[name] += n
	}
	return true
}

// Take takes n things as soon as there are so many for the client. What is more than a share is
// never there. The error is that of ctx.
func (p *Pool) Take(ctx context.Context, c Client, n int64) error {
	for {
		p.mu.Lock()
		got, change := p.take(c, n), p.change
		p.mu.Unlock()
		if got {
			return nil
		}
		// All who wait look again: those of another client may have room where the first has none.
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Give gives n things back.
func (p *Pool) Give(c Client, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= n
	for _, name := range c {
		// Names come from the network: those that have nothing must not stay.
		if p.by[name] -= n; p.by[name] <= 0 {
			delete(p.by, name)
		}
	}
	close(p.change)
	p.change = make(chan struct{})
}

// Limits are what a request may cost.
type Limits struct {
	Time   time.Duration
	Memory int64 // bytes
	Pool   *Pool // of bytes, which all requests take theirs from
}

// A Budget is what is left of a request's limits.
type Budget struct {
	Limits
	client Client

	mu   sync.Mutex
	used int64
	had  int64 // taken from the pool: used, rounded up to whole steps
}

// step is how much memory is taken from the pool at a time.
const step = 1 << 20

type key struct{}

// With gives the work under ctx a budget. Done gives everything back.
func With(ctx context.Context, c Client, l Limits) (_ context.Context, done func()) {
	b := &Budget{Limits: l, client: c}
	cause := fmt.Errorf("%w: it has taken %v", ErrCost, l.Time)
	ctx, cancel := context.WithTimeoutCause(context.WithValue(ctx, key{}, b), l.Time, cause)
	return ctx, func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		l.Pool.Give(c, b.had)
		b.had, b.used = 0, 0
	}
}

// Hold charges bytes of memory that stay until the work is done, or until they are released with a
// negative number. Work without a budget may have all it wants. ErrCost.
func Hold(ctx context.Context, bytes int) error {
	b, ok := ctx.Value(key{}).(*Budget)
	if !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += int64(bytes)
	if b.used > b.Memory {
		return fmt.Errorf("%w: it needs more than %d MiB of memory; ask for less at a time", ErrCost, b.Memory>>20)
	}
	for b.had < b.used {
		// Not waited for: those who have the rest may wait for it as well.
		if !b.Pool.TryTake(b.client, step) {
			return fmt.Errorf("%w: requests under way have all the memory; try again later", ErrCost)
		}
		b.had += step
	}
	return nil
}

// Cause returns ErrCost in place of an error that came about because the budget's time was up.
func Cause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrCost) {
		return cause
	}
	return err
}
