package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// noise returns n random bytes that depend on seed alone.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(p)
	return p
}

// TestTailInEarlierRun: a cut that is left to grow starts in the last range but
// one, and both ranges' bytes have to stay.
func TestTailInEarlierRun(t *testing.T) {
	o := tiny()
	o.DirtyBytes = 64 << 20
	r := testRig(t, smallCDC(), o)
	for extra := 1; extra < 20000; extra += 997 {
		ino := mustCreate(t, r.v, meta.Root, fmt.Sprint(extra), 0o100644)
		want := noise(uint64(extra), maxRange+extra)
		n, err := r.v.get(ino)
		if err != nil {
			t.Fatal(err)
		}
		err = r.st.Update(func() error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.dirty.write(0, want)
			r.v.flusher.budget.add(n.dirty.capacity())
			n.attr.Size = int64(len(want))
			r.v.counters.logical.Add(n.attr.Size)
			r.v.flusher.markChanged(n)
			return r.v.flusher.writeBlocks(n, flushPartial)
		})
		n.release()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, r.v, ino, 0, len(want)), want) {
			t.Fatalf("with %d bytes in the second run the data differs", extra)
		}
	}
}

// TestLastByte: files reach to the largest offset there is.
func TestLastByte(t *testing.T) {
	for _, conf := range []chunk.Config{fixed4K(), smallCDC()} {
		t.Run(conf.Name, func(t *testing.T) {
			r := testRig(t, conf, tiny())
			ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
			for _, size := range []int{1, 5000, 100, 70000, 3} {
				off := int64(math.MaxInt64 - size)
				want := noise(uint64(size), size)
				mustWrite(t, r.v, ino, off, want)
				mustSync(t, r.v)
				if got := read(t, r.v, ino, off, size+10); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes before the end differ", size)
				}
				r.check(t)
				r.clock.advance(time.Minute)
				mustSync(t, r.v)
				r.close(t)
				r.open(t)
				if got := read(t, r.v, ino, off, size); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes before the end differ after a remount", size)
				}
			}
			a, err := r.v.Attr(ino)
			if err != nil || a.Size != math.MaxInt64 || a.Blocks < 0 || a.Blocks > 200 {
				t.Errorf("size %d, %d blocks, %v", a.Size, a.Blocks, err)
			}
			if err := truncate(r.v, ino, 10); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStagedGoWhenTheyAreBlocks: staged bytes that became blocks must not come back
// over what was written later.
func TestStagedGoWhenTheyAreBlocks(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	want := noise(1, 100_000)
	mustWrite(t, r.v, ino, 0, want)
	mustSync(t, r.v)
	change := func(seed uint64) {
		p := noise(seed, 2000)
		copy(want[8192:], p)
		mustWrite(t, r.v, ino, 8192, p)
		mustSync(t, r.v)
	}
	change(2)
	if r.v.Stats().StagedBytes != 2000 {
		t.Fatalf("%d bytes are staged", r.v.Stats().StagedBytes)
	}
	r.clock.advance(time.Minute)
	mustSync(t, r.v)
	if r.v.Stats().StagedBytes != 0 {
		t.Fatalf("%d bytes stay staged", r.v.Stats().StagedBytes)
	}
	change(3)
	r.clock.advance(time.Minute)
	mustSync(t, r.v)
	r.close(t)
	r.open(t)
	if !bytes.Equal(read(t, r.v, ino, 0, len(want)), want) {
		t.Error("the data differs after a remount")
	}
}

// TestUseAfterClose: programs may go on with a detached mount after the volume's
// last commit. What they sync is there, and what they make is whole: an inode
// without the counter of inodes would have its number given out again.
func TestUseAfterClose(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "store"), smallCDC(), tiny())
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	if err := r.v.Close(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, r.v, ino, 0, []byte("late"))
	mustSync(t, r.v)
	late := mustCreate(t, r.v, meta.Root, "late", 0o100644)
	mustWrite(t, r.v, late, 0, []byte("later"))
	if err := r.st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.v.Sync(); err == nil {
		t.Error("a closed store acknowledges")
	}
	r.open(t)
	defer r.close(t)
	if got := read(t, r.v, ino, 0, 10); string(got) != "late" {
		t.Errorf("f: %q", got)
	}
	if got := read(t, r.v, late, 0, 10); string(got) != "later" {
		t.Errorf("late: %q", got)
	}
	if next := mustCreate(t, r.v, meta.Root, "next", 0o100644); next <= late {
		t.Errorf("inode %d after %d", next, late)
	}
	r.check(t)
}

// TestReapTruncated: a file that is truncated and removed between two commits
// leaves no page of extents behind, from memory or from the database.
func TestReapTruncated(t *testing.T) {
	for _, size := range []int64{0, 10} {
		r := testRig(t, fixed4K(), tiny())
		ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
		mustWrite(t, r.v, ino, 0, noise(1, 3*64*4096))
		mustSync(t, r.v)
		if err := truncate(r.v, ino, size); err != nil {
			t.Fatal(err)
		}
		if err := r.v.Unlink(meta.Root, "f"); err != nil {
			t.Fatal(err)
		}
		r.check(t)
	}
}

// TestReapInSteps: a crash finds a large file half removed.
func TestReapInSteps(t *testing.T) {
	r := testRig(t, fixed4K(), tiny())
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	for i := range int64(3 * reapPages) {
		mustWrite(t, r.v, ino, i*64*4096, []byte("data"))
	}
	r.v.Known(ino)
	mustSync(t, r.v)
	if err := r.v.Unlink(meta.Root, "f"); err != nil {
		t.Fatal(err)
	}
	n, err := r.v.get(ino)
	if err != nil {
		t.Fatal(err)
	}
	err = r.st.Update(func() error {
		done, err := r.v.reaper.reapStep(n)
		if done {
			t.Error("all was removed in one step")
		}
		return err
	})
	n.release()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.v.Read(context.Background(), ino, 0, 10); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("half a file is read as %q, %v", a.Slices, err)
	}
	if _, err := r.v.Link(ino, meta.Root, "g"); err != syscall.ENOENT {
		t.Errorf("half a file is linked: %v", err)
	}
	r.check(t)
	r.close(t)
	r.open(t)
	r.check(t)
	if got := r.v.Stats().Inodes; got != 1 {
		t.Errorf("%d inodes are left", got)
	}
}

// TestGone: nothing can be done to an inode that was removed, even by who got
// hold of it before.
func TestGone(t *testing.T) {
	r := testRig(t, fixed4K(), tiny())
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	other := mustCreate(t, r.v, meta.Root, "g", 0o100644)
	mustWrite(t, r.v, ino, 0, noise(1, 10000))
	n, err := r.v.get(ino)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.v.Unlink(meta.Root, "f"); err != nil {
		t.Fatal(err)
	}
	r.awaitReaper(t)
	r.v.table.Lock()
	r.v.table.nodes[ino] = n // as for those who hold it
	r.v.table.Unlock()
	_, copyErr := r.v.CopyRange(other, 0, ino, 0, 10)
	_, linkErr := r.v.Link(ino, meta.Root, "h")
	for what, err := range map[string]error{
		"write":     r.v.Write(ino, 0, []byte("x"), WriteMode{}),
		"truncate":  truncate(r.v, ino, 5),
		"fallocate": r.v.Fallocate(ino, 0, 100_000, 0),
		"set xattr": r.v.SetXattr(ino, "user.a", nil, 0, false),
		"rm xattr":  r.v.RemoveXattr(ino, "user.a"),
		"copy":      copyErr,
		"link":      linkErr,
	} {
		if err != syscall.ENOENT {
			t.Errorf("%s: %v", what, err)
		}
	}
	n.mu.Lock()
	r.v.touchAtime(n)
	r.v.flusher.markChanged(n)
	n.mu.Unlock()
	n.release()
	mustSync(t, r.v)
	if r.v.flusher.dirty.count() != 0 {
		t.Error("the inode stays on the list of what is to be written")
	}
	r.v.table.remove(n)
}

// TestLargeDirectory grows a directory beyond what is kept in memory, and back.
func TestLargeDirectory(t *testing.T) {
	o := Options{NoAtime: true, Names: 16384}
	r := testRig(t, fixed4K(), o)
	n := o.Names/2 + 600
	for i := range n {
		mustCreate(t, r.v, meta.Root, fmt.Sprint(i), 0o100644)
	}
	list := func(after uint64, most int) (names []string, pos uint64) {
		err := r.v.ReadDir(meta.Root, after, func(e Entry) bool {
			if len(names) < most {
				names, pos = append(names, e.Name), e.Pos
				return true
			}
			return false
		})
		if err != nil {
			t.Fatal(err)
		}
		return names, pos
	}
	first, pos := list(posDotDot, 5000)
	// What was listed goes away, what was not stays; the directory fits again.
	for _, name := range first[:1000] {
		if err := r.v.Unlink(meta.Root, name); err != nil {
			t.Fatal(err)
		}
	}
	rest, _ := list(pos, n)
	seen := make(map[string]bool)
	for _, name := range append(first, rest...) {
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
	}
	if len(seen) != n {
		t.Errorf("%d names are listed, want %d", len(seen), n)
	}
	if _, err := r.v.Create(meta.Root, fmt.Sprint(n-1), CreateOptions{Mode: 0o100644}); err != syscall.EEXIST {
		t.Errorf("a name is given twice: %v", err)
	}
	r.check(t)
}

// TestRelatime: a read stamps the access time when relatime says so.
func TestRelatime(t *testing.T) {
	o := tiny()
	o.NoAtime = false
	r := testRig(t, fixed4K(), o)
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	mustWrite(t, r.v, ino, 0, []byte("data"))
	for _, step := range []struct {
		after time.Duration
		write bool
		stamp bool
	}{
		{time.Second, false, true}, {time.Second, false, false}, {time.Second, true, true},
		{time.Hour, false, false}, {23 * time.Hour, false, true}, {time.Second, false, false},
	} {
		r.clock.advance(step.after)
		if step.write {
			mustWrite(t, r.v, ino, 0, []byte("new"))
			r.clock.advance(time.Second)
		}
		read(t, r.v, ino, 0, 4)
		a, err := r.v.Attr(ino)
		if err != nil || (a.Atime == r.clock.time()) != step.stamp {
			t.Errorf("%+v: access time %v at %v, %v", step, a.Atime, r.clock.time(), err)
		}
	}
}

// TestLimitDirty: with less memory what is over it is stored, and writers go on.
func TestLimitDirty(t *testing.T) {
	r := testRig(t, smallCDC(), Options{DirtyBytes: 64 << 20})
	want := noise(9, 12<<20)
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	write := func(from, to int) {
		for off := from; off < to; off += 64 << 10 {
			mustWrite(t, r.v, ino, int64(off), want[off:off+64<<10])
		}
	}
	write(0, 6<<20)
	const less = 3 << 20
	if used := r.v.DirtyBytes(); used <= less {
		t.Fatalf("only %d bytes are not yet stored", used)
	}
	r.v.LimitDirty(less)
	if got := r.v.Stats().DirtyLimit; got != less {
		t.Errorf("the limit is %d", got)
	}
	for deadline := time.Now().Add(30 * time.Second); r.v.DirtyBytes() > less; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes stay", r.v.DirtyBytes())
		}
	}
	write(6<<20, 9<<20)
	if used := r.v.DirtyBytes(); used > less+maxRange {
		t.Errorf("%d bytes are in use", used)
	}
	r.v.LimitDirty(64 << 20)
	write(9<<20, 12<<20)
	whole, err := r.v.Read(context.Background(), ino, 0, len(want))
	if got := bytes.Join(whole.Slices, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// Data far apart is found whatever the number of pages without any between.
func TestSeekOverManyPages(t *testing.T) {
	r := testRig(t, fixed4K(), Options{NoAtime: true})
	ino := mustCreate(t, r.v, meta.Root, "sparse", 0o100644)
	offsets := []int64{0, 70 * r.v.files.span, 1100 * r.v.files.span, 1101 * r.v.files.span, 3_000_000 * r.v.files.span}
	for _, off := range offsets {
		mustWrite(t, r.v, ino, off, noise(uint64(off), 4096))
	}
	mustSync(t, r.v)
	r.close(t)
	r.open(t)
	for i, off := range offsets {
		if i > 0 {
			if got, err := r.v.Seek(ino, offsets[i-1]+4096, unix.SEEK_DATA); err != nil || got != off {
				t.Errorf("data after %d: %d, %v; want %d", offsets[i-1], got, err, off)
			}
		}
		if got, err := r.v.Seek(ino, off, unix.SEEK_HOLE); err != nil || got != off+4096 {
			t.Errorf("hole after %d: %d, %v; want %d", off, got, err, off+4096)
		}
	}
}
