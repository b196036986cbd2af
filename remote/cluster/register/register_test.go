package register_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
)

func TestFake(t *testing.T) {
	f := registertest.NewFake()
	registertest.Test(t, func(*testing.T) register.Register { return f.Client() })
}

// What clients are told is linearizable, also when the register is away for a while.
func TestFakeHistory(t *testing.T) {
	f := registertest.NewFake()
	clients := []register.Register{f.Client(), f.Client(), f.Client(), f.Client()}
	h := registertest.Record(t, clients, 200, func(request int) {
		if request%50 == 25 {
			f.SetDown(true)
			time.AfterFunc(time.Millisecond, func() { f.SetDown(false) })
		}
	})
	if !h.Linearizable() {
		t.Error("the history is not linearizable")
	}
	for _, err := range []error{nil, register.ErrConflict, register.ErrNotFound} {
		if h.Count(err) == 0 {
			t.Errorf("nobody was told %v", err)
		}
	}
}

// A liar is a register with one fault.
type liar struct {
	register.Register
	fault string
	calls int
	old   map[string]register.Entry
}

func (l *liar) now() bool {
	l.calls++
	return l.calls%20 == 0
}

func (l *liar) Get(ctx context.Context, key string) (register.Entry, error) {
	e, err := l.Register.Get(ctx, key)
	if old, ok := l.old[key]; ok && err == nil && l.fault == "reads what was" && l.now() {
		return old, nil
	}
	if err == nil {
		l.old[key] = e
	}
	return e, err
}

func (l *liar) Commit(ctx context.Context, t register.Txn) (int64, error) {
	switch {
	case l.fault == "ignores conditions":
		t.If = nil
	case l.fault == "forgets commits" && l.now():
		return 1 << 40, nil
	case l.fault == "says that nothing was done" && l.now():
		if _, err := l.Register.Commit(ctx, t); err == nil {
			return 0, register.ErrUnavailable
		}
	case l.fault == "loses answers" && l.now():
		if _, err := l.Register.Commit(ctx, t); err == nil {
			return 0, register.ErrUncertain
		}
	}
	return l.Register.Commit(ctx, t)
}

// The judge of histories finds what a register must not do, and bears what it may.
func TestHistoryJudges(t *testing.T) {
	for fault, want := range map[string]bool{
		"none": true, "loses answers": true,
		"reads what was": false, "ignores conditions": false, "forgets commits": false, "says that nothing was done": false,
	} {
		f := registertest.NewFake()
		var clients []register.Register
		for range 3 {
			clients = append(clients, &liar{Register: f.Client(), fault: fault, old: make(map[string]register.Entry)})
		}
		if h := registertest.Record(t, clients, 150, func(int) {}); h.Linearizable() != want {
			t.Errorf("%s: linearizable %v", fault, !want)
		}
	}
}

// A holder that is not heard of loses its lease and the keys under it, and learns it.
func TestFakeLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := registertest.NewFake()
		r := f.Client()
		lease, err := r.Lease(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Put(t.Context(), "alive", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		f.SetDown(true)
		if _, err := r.Get(t.Context(), "alive"); !errors.Is(err, register.ErrUnavailable) {
			t.Errorf("get without a quorum: %v", err)
		}
		time.Sleep(15 * time.Second)
		<-lease.Lost()
		f.SetDown(false)
		if _, err := r.Get(t.Context(), "alive"); !errors.Is(err, register.ErrNotFound) {
			t.Errorf("after the lease: %v", err)
		}
	})
}
