package volume

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Small files that are read in order are in RAM before they are read; a reader
// that picks them at random has nothing read for it.
func TestSmallFilesArePrefetched(t *testing.T) {
	t.Parallel()
	r := testRig(t, fixed4K(), Options{NoAtime: true})
	const files = 200
	inos := make([]meta.Ino, files)
	for i := range inos {
		inos[i] = mustCreate(t, r.v, meta.Root, fmt.Sprint(i), 0o100644)
		mustWrite(t, r.v, inos[i], 0, noise(uint64(i), 6000))
	}
	reopen := func() {
		t.Helper()
		r.close(t)
		r.open(t)
		if err := r.v.Walk(meta.Root, "", func(string, Attr) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	readFile := func(i int) {
		t.Helper()
		if got := read(t, r.v, inos[i], 0, 1<<17); !bytes.Equal(got, noise(uint64(i), 6000)) {
			t.Fatalf("file %d reads wrong", i)
		}
	}
	prefetched := func() uint64 { return r.st.Stats().Cache.Prefetched }

	reopen()
	for _, i := range []int{0, 90, 30, 150, 60, 199, 120, 33, 1} {
		readFile(i)
	}
	if n := prefetched(); n != 0 {
		t.Errorf("%d blocks were prefetched for a reader without an order", n)
	}

	reopen()
	for i := range 10 {
		readFile(i)
	}
	for deadline := time.Now().Add(20 * time.Second); prefetched() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was prefetched for files that are read in order")
		}
	}
	for i := 10; i < files; i++ {
		readFile(i)
	}
}
