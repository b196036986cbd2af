package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
)

// proseStore is a store with objects that compress, some of them deleted again, and what is left.
func proseStore(t *testing.T) (*Store, map[string][]byte) {
	t.Helper()
	s := newStore(t, compactConfig())
	left := make(map[string][]byte)
	for i := range 40 {
		var b bytes.Buffer
		for n := range 4000 {
			fmt.Fprintf(&b, "object %d has line %d of some %x\n", i, n*n%977, n*i*7919)
		}
		name := fmt.Sprint(i)
		mustIngest(t, s, name, b.Bytes())
		left[name] = b.Bytes()
	}
	mustIngest(t, s, "random", randomBytes(7, 300_000))
	left["random"] = randomBytes(7, 300_000)
	for i := range 10 {
		if err := s.Delete(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		delete(left, fmt.Sprint(i))
	}
	return s, left
}

func TestOptimize(t *testing.T) {
	s, left := proseStore(t)
	before := s.Stats().Totals
	estimate, err := s.Optimize(ctx, OptimizeOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if again := s.Stats().Totals; again.StoredBytes() != before.StoredBytes() {
		t.Errorf("a dry run made %d bytes of %d", again.StoredBytes(), before.StoredBytes())
	}
	s.optimizing.Lock()
	if _, err := s.Optimize(ctx, OptimizeOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("beside another one: %v", err)
	}
	s.optimizing.Unlock()
	var last Optimized
	done, err := s.Optimize(ctx, OptimizeOptions{Progress: func(o Optimized) { last = o }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("estimated %+v, done %+v", estimate, done)
	// A few blocks do not get smaller.
	if done.Blocks < estimate.Blocks-5 || done.Blocks > estimate.Blocks || last.Blocks != done.Blocks {
		t.Errorf("done %+v, estimated %+v, last heard of %+v", done, estimate, last)
	}
	if off := math.Abs(float64(estimate.To)/float64(done.To) - 1); off > 0.05 {
		t.Errorf("the estimate is off by %.3f", off)
	}
	after := s.Stats().Totals
	if got, want := before.StoredBytes()-after.StoredBytes(), done.From-done.To; got != want || want < before.StoredBytes()/8 {
		t.Errorf("%d bytes less are stored of %d, said are %d", got, before.StoredBytes(), want)
	}
	mustCheck(t, s)
	requireObjects(t, s, left)
	// What was done is not done again.
	if again, err := s.Optimize(ctx, OptimizeOptions{}); err != nil || again.Blocks > 0 || again.Segments > 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := s.Optimize(ctx, OptimizeOptions{Rate: -1}); !errors.Is(err, ErrConfig) {
		t.Errorf("a rate of -1: %v", err)
	}
}

// TestOptimizeGoesOn: one that is interrupted loses nothing, and the next one does the rest.
func TestOptimizeGoesOn(t *testing.T) {
	s, left := proseStore(t)
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := s.Optimize(stop, OptimizeOptions{Progress: func(Optimized) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	mustCheck(t, s)
	requireObjects(t, s, left)
	if _, err := s.Optimize(ctx, OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	requireObjects(t, s, left)
	if rest, err := s.Optimize(ctx, OptimizeOptions{DryRun: true}); err != nil || rest.Saved() > 0 {
		t.Errorf("left to do: %+v, %v", rest, err)
	}
}

// TestOptimizeLeavesDamage: a block that has rotted stays as it is, and so does its segment.
func TestOptimizeLeavesDamage(t *testing.T) {
	s, _ := proseStore(t)
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	p, err := s.planRecoding(ctx)
	if err != nil || len(p.sample) == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	at := p.sample[0]
	flip(t, s.Dir(), at.Segment, int64(at.Offset)+int64(at.Length)-1)
	done, err := s.Optimize(ctx, OptimizeOptions{})
	if err != nil || done.Unreadable != 1 || done.Blocks < p.blocks-6 || done.Blocks >= p.blocks {
		t.Errorf("%+v of %d blocks, %v", done, p.blocks, err)
	}
	if _, _, err := s.tiers.Read(at); !errors.Is(err, tiering.ErrCorrupt) {
		t.Errorf("the block that has rotted: %v", err)
	}
}
