package volume

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestDirtyNodesAreBounded: who makes or removes many files while nothing is committed
// waits for a commit before they fill the memory.
func TestDirtyNodesAreBounded(t *testing.T) {
	t.Parallel()
	r := testRig(t, fixed4K(), Options{Nodes: 8, NoAtime: true})
	const files = 2*leastDirty + leastDirty/2
	most := 0
	for _, do := range []func(name string) error{
		func(name string) error {
			_, err := r.v.Create(meta.Root, name, CreateOptions{Mode: syscall.S_IFREG | 0o644})
			return err
		},
		func(name string) error { return r.v.Unlink(meta.Root, name) },
	} {
		for i := range files {
			if err := do(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			most = max(most, r.v.flusher.dirty.count(), r.v.Stats().CachedNodes)
		}
	}
	if most > leastDirty+16 {
		t.Errorf("%d inodes were in memory, want %d at the most", most, leastDirty)
	}
	r.awaitReaper(t)
}
