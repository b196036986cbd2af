package volume

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

var scaleFiles = flag.Int("snapshot-files", 0, "files for TestSnapshotScale; 0: it is skipped")

// TestSnapshotScale tells what snapshots cost in a large tree:
//
//	go test ./fs/volume -run TestSnapshotScale -v -timeout 30m -snapshot-files 1000000
func TestSnapshotScale(t *testing.T) {
	if *scaleFiles == 0 {
		t.Skip("takes long; see -snapshot-files")
	}
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{CacheBytes: 96 << 20, CommitInterval: 5 * time.Second, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(st, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx := context.Background()
	measure := func(what string, fn func() error) {
		t.Helper()
		before := st.Stats().Totals
		begun := time.Now()
		if err := fn(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		took := time.Since(begun)
		if err := st.Commit(); err != nil {
			t.Fatal(err)
		}
		after := st.Stats().Totals
		var blocks, bytes int64
		for k := range after.Blocks {
			blocks += after.Blocks[k] - before.Blocks[k]
			bytes += after.Stored[k] - before.Stored[k]
		}
		t.Logf("%-52s %12v  %8d blocks, %d bytes stored", what, took.Round(10*time.Microsecond), blocks, bytes)
	}
	var some meta.Ino
	measure(fmt.Sprintf("make %d files of 100 bytes, 100 a directory", *scaleFiles), func() error {
		some = makeTree(t, v, *scaleFiles)
		return v.Sync()
	})
	snapshot := func(name string) func() error {
		return func() error { _, err := v.CreateSnapshot(ctx, SnapshotOptions{Name: name}); return err }
	}
	measure("first snapshot", snapshot("first"))
	for i := range 5 {
		if err := v.Write(some, 0, []byte(fmt.Sprint("changed ", i)), WriteMode{}); err != nil {
			t.Fatal(err)
		}
		measure("snapshot after one file changed", snapshot(fmt.Sprint("one", i)))
	}
	measure("snapshot after nothing changed", snapshot("none"))
	measure("clone of all", func() error { return v.Clone(ctx, SnapshotPath{Snapshot: "first"}, "clone") })
	measure("restore of a directory", func() error { return v.Restore(ctx, SnapshotPath{Snapshot: "first", Path: "d0"}, "d0") })
	measure("snapshot after that", snapshot("cloned"))
	measure("rollback", func() error { return v.Rollback(ctx, "first") })
	measure("snapshot after that", snapshot("rolled back"))
	for name, files := range map[string]int{"names": 20_000, "dirty files": 100_000} {
		t.Run(name, func(t *testing.T) { stall(t, v, name, files) })
	}
}

func makeTree(t *testing.T, v *Volume, files int) (some meta.Ino) {
	t.Helper()
	body := make([]byte, 100)
	var top, dir meta.Ino
	for i := range files {
		if i%10_000 == 0 {
			top = mustCreate(t, v, meta.Root, fmt.Sprint("d", i/10_000), syscall.S_IFDIR|0o755)
		}
		if i%100 == 0 {
			dir = mustCreate(t, v, top, fmt.Sprint("d", i/100%100), syscall.S_IFDIR|0o755)
		}
		some = mustCreate(t, v, dir, fmt.Sprint("file", i%100), syscall.S_IFREG|0o644)
		copy(body, fmt.Sprint(i))
		mustWrite(t, v, some, 0, body)
	}
	return some
}

// stall makes files dirty, and tells how long a writer waits at most while a
// snapshot is made.
func stall(t *testing.T, v *Volume, name string, files int) {
	top := mustCreate(t, v, meta.Root, "stall "+name, syscall.S_IFDIR|0o755)
	var dir meta.Ino
	for i := range files {
		if i%1000 == 0 {
			dir = mustCreate(t, v, top, fmt.Sprint(i/1000), syscall.S_IFDIR|0o755)
		}
		f := mustCreate(t, v, dir, fmt.Sprint(i), syscall.S_IFREG|0o644)
		if name == "dirty files" {
			mustWrite(t, v, f, 0, []byte(fmt.Sprint("data ", i)))
		}
	}
	victim := mustCreate(t, v, top, "victim", syscall.S_IFREG|0o644)
	var worst time.Duration
	var writes int
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			begun := time.Now()
			if err := v.Write(victim, int64(writes%100)*4096, []byte("x"), WriteMode{}); err != nil {
				t.Error(err)
			}

			worst = max(worst, time.Since(begun))
			writes++
			time.Sleep(200 * time.Microsecond)
		}
	})
	dirty := v.flusher.dirty.count()
	begun := time.Now()
	if _, err := v.CreateSnapshot(context.Background(), SnapshotOptions{Name: "stall " + name}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	close(stop)
	wg.Wait()
	t.Logf("%d nodes dirty: the snapshot took %v, of %d writes meanwhile the slowest %v", dirty, took.Round(time.Millisecond), writes, worst.Round(10*time.Microsecond))
	if worst > 100*time.Millisecond {
		t.Logf("a writer waited for longer than 100ms")
	}
}
