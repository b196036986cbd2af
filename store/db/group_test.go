package db

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGroupShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		var calls atomic.Int32
		want := errors.New("result")
		work := func() error {
			calls.Add(1)
			time.Sleep(time.Second)
			return want
		}
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				if err := g.Do(work); !errors.Is(err, want) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		callers.Wait()
		// The first caller's call, and one that the nine others share.
		if calls.Load() != 2 {
			t.Errorf("%d calls", calls.Load())
		}
		_ = g.Do(work)
		if calls.Load() != 3 {
			t.Errorf("%d calls", calls.Load())
		}
	})
}

// TestGroupBegins: the run whose result is returned began after the call.
func TestGroupBegins(t *testing.T) {
	var g Group
	var clock atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 500 {
				called := clock.Add(1)
				var seen int64
				_ = g.Do(func() error { seen = clock.Add(1); return nil })
				if seen != 0 && seen < called {
					t.Error("run began before the call")
				}
			}
		})
	}
	callers.Wait()
}

func TestGroupPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		started := make(chan struct{})
		go func() { _ = g.Do(func() error { close(started); time.Sleep(time.Second); return nil }) }()
		<-started
		results := make(chan error, 2)
		for range 2 {
			go func() {
				defer func() {
					if recover() != nil {
						results <- nil
					}
				}()
				err := g.Do(func() error { panic("run") })
				results <- err
			}()
			synctest.Wait()
		}
		a, b := <-results, <-results
		if (a == nil) == (b == nil) {
			t.Fatalf("%v, %v: one should panic, the other see an error", a, b)
		}
		if err := g.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
}
