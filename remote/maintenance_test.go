package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
)

func TestGC(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		if _, err := n.Put(ctx, "gone", bytes.NewReader(remotetest.RandomBytes(1, 4<<20))); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(ctx, "kept", bytes.NewReader(remotetest.RandomBytes(2, 1<<20))); err != nil {
			t.Fatal(err)
		}
		if err := n.Remove(ctx, "gone"); err != nil {
			t.Fatal(err)
		}
		var last remote.GC
		if err := n.GC(ctx, remote.GCOptions{MinLive: 0.9}, func(g remote.GC) error { last = g; return nil }); err != nil {
			t.Fatal(err)
		}
		if !last.Done || last.Swept.Blocks == 0 || last.Compacted.Blocks == 0 || last.Freed() < 3<<20 {
			t.Errorf("gc: %+v", last)
		}
		var got bytes.Buffer
		if err := n.Get(ctx, "kept", 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), remotetest.RandomBytes(2, 1<<20)) {
			t.Errorf("after gc: %d bytes, %v", got.Len(), err)
		}
		if err := n.GC(ctx, remote.GCOptions{MinLive: 7}, func(remote.GC) error { return nil }); !errors.Is(err, store.ErrConfig) && !errors.Is(err, remote.ErrRequest) {
			t.Errorf("gc with a live share of 7: %v", err)
		}
		stop := errors.New("enough")
		if err := n.GC(ctx, remote.GCOptions{}, func(remote.GC) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("gc that is stopped: %v", err)
		}
	})
}

func TestOptimize(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		var prose bytes.Buffer
		for i := range 100_000 {
			fmt.Fprintf(&prose, "line %d of %x\n", i, i*i)
		}
		if _, err := n.Put(ctx, "prose", bytes.NewReader(prose.Bytes())); err != nil {
			t.Fatal(err)
		}
		optimize := func(o remote.OptimizeOptions) (last remote.Optimized) {
			if err := n.Optimize(ctx, o, func(p remote.Optimized) error { last = p; return nil }); err != nil {
				t.Fatal(err)
			}
			return last
		}
		estimate, done := optimize(remote.OptimizeOptions{DryRun: true}), optimize(remote.OptimizeOptions{Rate: 1 << 30})
		if !estimate.Done || !done.Done || estimate.Blocks == 0 || done.Blocks == 0 || done.To >= done.From {
			t.Errorf("estimated %+v, done %+v", estimate, done)
		}
		if again := optimize(remote.OptimizeOptions{}); again.Blocks > 0 {
			t.Errorf("again: %+v", again)
		}
		var got bytes.Buffer
		if err := n.Get(ctx, "prose", 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), prose.Bytes()) {
			t.Errorf("afterwards: %d bytes, %v", got.Len(), err)
		}
		if err := n.Optimize(ctx, remote.OptimizeOptions{Rate: -1}, func(remote.Optimized) error { return nil }); !errors.Is(err, store.ErrConfig) &&
			!errors.Is(err, remote.ErrRequest) {
			t.Errorf("at a rate of -1: %v", err)
		}
	})
}

func TestScrubAndFsck(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		if _, err := n.Put(ctx, "x", bytes.NewReader(remotetest.RandomBytes(1, 2<<20))); err != nil {
			t.Fatal(err)
		}
		var last remote.Scrub
		if err := n.Scrub(ctx, remote.ScrubOptions{Restart: true}, func(s remote.Scrub) error { last = s; return nil }); err != nil {
			t.Fatal(err)
		}
		if !last.Done || last.Finished.IsZero() || last.Blocks == 0 || last.Scrubbed.Bytes < 2<<20 || last.Bad != 0 || last.Damaged != nil {
			t.Errorf("scrub: %+v", last)
		}
		stop := errors.New("enough")
		if err := n.Scrub(ctx, remote.ScrubOptions{}, func(remote.Scrub) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("scrub that is stopped: %v", err)
		}
		report, err := n.Fsck(ctx)
		if err != nil || report.Objects != 1 || report.Blocks != last.Blocks || report.Count != 0 || len(report.Findings) != 0 {
			t.Errorf("fsck: %+v, %v; the scrub had %d blocks", report, err, last.Blocks)
		}
	})
}
