package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestStoringFails: while no segment can be made, commits fail, nothing is lost
// and everything can be read; when it is over, all of it is stored.
func TestStoringFails(t *testing.T) {
	o := tiny()
	o.DirtyBytes = 64 << 20
	r := testRig(t, smallCDC(), o)
	want := make(map[meta.Ino][]byte)
	same := func(when string) {
		t.Helper()
		for ino, p := range want {
			if !bytes.Equal(read(t, r.v, ino, 0, len(p)+1), p) {
				t.Errorf("%s: inode %d differs", when, ino)
			}
		}
	}
	change := func(ino meta.Ino, off int, p []byte) {
		t.Helper()
		mustWrite(t, r.v, ino, int64(off), p)
		if grow := off + len(p) - len(want[ino]); grow > 0 {
			want[ino] = append(want[ino], make([]byte, grow)...)
		}
		copy(want[ino][off:], p)
	}
	var inos []meta.Ino
	for i := range 3 {
		inos = append(inos, mustCreate(t, r.v, meta.Root, fmt.Sprint(i), 0o100644))
		change(inos[i], 0, noise(uint64(i), 300_000))
	}
	mustSync(t, r.v)
	change(inos[0], 8000, noise(7, 500)) // to be staged
	mustSync(t, r.v)
	hot := filepath.Join(r.dir, "hot")
	if err := os.Rename(hot, hot+".away"); err != nil {
		t.Fatal(err)
	}
	for i, ino := range inos {
		change(ino, 100_000, noise(uint64(10+i), 3<<20))
		change(ino, 50, noise(uint64(20+i), 300))
	}
	r.clock.advance(time.Minute)
	for range 3 {
		if err := r.v.Sync(); err == nil {
			t.Error("a commit succeeded without a place for its blocks")
		}
		same("while storing fails")
		if err := r.v.Write(inos[1], 200_000, noise(30, 50_000), WriteMode{}); err == nil {
			t.Error("a write was taken that could only stay in memory")
		}
		if err := r.v.Rmdir(meta.Root, "0"); err == nil || errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("a change of names was looked at: %v", err)
		}
	}
	if err := os.Rename(hot+".away", hot); err != nil {
		t.Fatal(err)
	}
	same("before it works again")
	mustSync(t, r.v)
	r.clock.advance(time.Minute)
	mustSync(t, r.v)
	same("afterwards")
	r.check(t)
	r.close(t)
	r.open(t)
	same("after a remount")
}
