package db

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSpaceGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, asked := int64(100<<20), 0
		g := newSpaceGuard("/", 40<<20)
		g.statfs = onlyFree(func(string) (int64, error) { asked++; return free, nil })
		admit := func(n int64, ok bool) {
			t.Helper()
			if err := g.admit(n); (err == nil) != ok || (err != nil && !errors.Is(err, ErrFull)) {
				t.Fatal(err)
			}
		}
		for range 10 {
			admit(1<<20, true)
		}
		if asked != 1 {
			t.Fatalf("asked %d times", asked)
		}
		free = 55 << 20
		admit(10<<20, true) // more than askBytes in all: asks again
		if asked != 2 {
			t.Fatalf("asked %d times", asked)
		}
		admit(6<<20, false) // what was admitted counts until the next answer
		free = 100 << 20
		admit(6<<20, false)
		time.Sleep(askInterval + 1)
		admit(6<<20, true)
		admit(61<<20, false)
		admit(0, true)
		// With plenty of room an answer holds for more.
		free, asked = 40<<20+16*askShare<<20, 0
		time.Sleep(askInterval + 1)
		for range 16 {
			admit(1<<20, true)
		}
		if asked != 1 {
			t.Fatalf("asked %d times", asked)
		}
		free *= 4
		time.Sleep(askInterval + 1)
		for range 4 {
			admit(askBytes, true)
		}
		if asked != 2 {
			t.Fatalf("asked %d times", asked)
		}
	})
}

// TestAnswerIsSharedOut: many callers at once get all that one answer has, and no more.
func TestAnswerIsSharedOut(t *testing.T) {
	a := &answer{space: space{free: 1000}}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for a.take(1, 100) {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 900 || a.taken.Load() != 900 {
		t.Errorf("%d were taken, %d are counted", taken.Load(), a.taken.Load())
	}
}

// TestSlowAnswer: while a filesystem is slow to say what it has, writers go on where there is
// plenty.
func TestSlowAnswer(t *testing.T) {
	g := newSpaceGuard("/", 40<<20)
	asked, answered := make(chan bool), make(chan bool)
	g.statfs = onlyFree(func(string) (int64, error) { asked <- true; <-answered; return 1 << 40, nil })
	g.answer.Store(&answer{space: space{free: 1 << 40, last: 1 << 40}}) // of long ago
	done := make(chan error)
	go func() { done <- g.admit(1) }()
	<-asked
	if err := g.admit(1); err != nil || g.recent() == 0 {
		t.Error(err)
	}
	close(answered)
	if err := <-done; err != nil {
		t.Error(err)
	}
	const room = askShare * askBytes
	for _, c := range []struct {
		free, taken int64
		plenty      bool
	}{{room + 1, 0, false}, {room + 41<<20, 0, true}, {room + 41<<20, room/2 + 1<<20, false}, {0, 0, false}} {
		a := &answer{space: space{free: c.free}}
		a.taken.Store(c.taken)
		if a.plenty(40<<20) != c.plenty {
			t.Errorf("%d free, %d taken: plenty is %v", c.free, c.taken, !c.plenty)
		}
	}
}

func TestSpaceGuardFree(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	setFree(d, func(string) (int64, error) { return 1, nil })
	if d.Free() != 0 {
		t.Fatal("negative")
	}
	setFree(d, func(string) (int64, error) { return 1 << 40, nil })
	if got := d.Free(); got != 1<<40-2*minMemTable-1<<20 {
		t.Fatal(got)
	}
	if err := d.Admit(1 << 30); err != nil {
		t.Fatal(err)
	}
}

func TestBallast(t *testing.T) {
	opt := testOptions(t.TempDir())
	opt.Ballast = 3 << 20
	d := openTest(t, opt)
	held := func(want int64) {
		t.Helper()
		info, err := os.Stat(d.ballast.path)
		if (want == 0) != errors.Is(err, os.ErrNotExist) || (want > 0 && info.Size() != want) {
			t.Fatal(info, err)
		}
		if got := d.Stats().Ballast; got != want {
			t.Fatal(got)
		}
	}
	held(3 << 20)
	// A commit waits in the log as long as the next opening finds room with the ballast. What needs
	// room now gets what is missing of it, and no more.
	setFree(d, func(string) (int64, error) { return 5<<20 - d.ballast.bytes(), nil })
	d.Set([]byte("a"), nil)
	commit(t, d)
	held(3 << 20)
	for _, step := range []struct{ need, left int64 }{{2 << 20, 3 << 20}, {3 << 20, 2 << 20}, {5 << 20, 0}} {
		if err := d.room(step.need); err != nil {
			t.Fatal(err)
		}
		held(step.left)
	}
	if err := d.room(5<<20 + 1); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	// There is room again, and after a while it is noticed.
	setFree(d, freeBytes)
	d.restoreAt = time.Time{}
	d.Set([]byte("a"), nil)
	commit(t, d)
	held(3 << 20)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	opt.Ballast = 0
	d = openTest(t, opt)
	held(0)
}
