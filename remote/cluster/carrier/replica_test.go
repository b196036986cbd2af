package carrier

import (
	"fmt"
	"testing"
)

// However many files a seed brings, few are open at a time.
func TestOpenFiles(t *testing.T) {
	r, err := OpenReplica(t.TempDir(), ReplicaOptions{Node: "a", Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := &following{Replica: r}
	for i := range mostDirty + 9 {
		p := fmt.Sprintf("hot/%d.open", i)
		for _, c := range []change{{kind: kindMake, path: p}, {kind: kindWrite, path: p, data: []byte("bytes")}} {
			if err := f.change(c); err != nil {
				t.Fatal(err)
			}
		}
		if len(f.dirty) > mostDirty || f.dirty[p] == nil {
			t.Fatalf("%d files are open; the last one: %t", len(f.dirty), f.dirty[p] != nil)
		}
	}
	if err := f.syncFiles(); err != nil || len(f.dirty) > 0 {
		t.Errorf("%d files are open: %v", len(f.dirty), err)
	}
}
