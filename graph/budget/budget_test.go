package budget

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestPoolShares has one client take what it can, by its token from everywhere and from its address
// with any token: the others still get theirs.
func TestPoolShares(t *testing.T) {
	p := NewPool(8, 4)
	take := func(want bool, n int64, c ...string) {
		t.Helper()
		if got := p.TryTake(c, n); got != want {
			t.Errorf("%v take %d: %v", c, n, got)
		}
	}
	take(true, 3, "token a", "address 1")
	take(false, 2, "token a", "address 2")
	take(false, 2, "token b", "address 1")
	take(true, 4, "token b", "address 2")
	take(true, 1, "token c", "address 3")
	take(false, 1, "token d", "address 4") // there are no more at all
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { got <- p.Take(ctx, Client{"token d"}, 4) }()
	p.Give(Client{"token b", "address 2"}, 4)
	if err := <-got; err != nil {
		t.Error(err)
	}
	cancel()
	if err := p.Take(ctx, Client{"token d"}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("more than a share: %v", err)
	}
	p.Give(Client{"token d"}, 4)
	p.Give(Client{"token c", "address 3"}, 1)
	p.Give(Client{"token a", "address 1"}, 3)
	if p.taken != 0 || len(p.by) != 0 {
		t.Errorf("%d are left, of %v", p.taken, p.by)
	}
}

// TestBudget spends the memory of a request, that of all requests, and the time.
func TestBudget(t *testing.T) {
	l := Limits{Time: time.Hour, Memory: 3 << 20, Pool: NewPool(4<<20, 4<<20)}
	one, done := With(t.Context(), Client{"a"}, l)
	if err := Hold(one, 3<<20); err != nil {
		t.Error(err)
	}
	if err := Hold(one, 1); !errors.Is(err, ErrCost) {
		t.Errorf("more than a request may have: %v", err)
	}
	two, doneTwo := With(t.Context(), Client{"b"}, l)
	if err := Hold(two, 2<<20); !errors.Is(err, ErrCost) {
		t.Errorf("more than there is: %v", err)
	}
	done()
	doneTwo()
	if l.Pool.taken != 0 {
		t.Errorf("%d bytes are left", l.Pool.taken)
	}
	if err := Hold(t.Context(), 1<<40); err != nil {
		t.Errorf("without a budget: %v", err)
	}
	l.Time = 0
	late, done := With(t.Context(), Client{"a"}, l)
	defer done()
	<-late.Done()
	if err := Cause(late, late.Err()); !errors.Is(err, ErrCost) {
		t.Errorf("out of time: %v", err)
	}
	if err := Cause(late, nil); err != nil {
		t.Errorf("done in the last moment: %v", err)
	}
}
