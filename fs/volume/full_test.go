package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// A fullOp is done on a full disk. It is durable afterwards, or was refused; a removal is never
// refused. Each has a directory of its own, with a file of two blocks and an empty directory in it.
type fullOp struct {
	name    string
	removal bool
	do      func(r *rig, dir, file meta.Ino) error
	done    func(t *testing.T, r *rig, dir, file meta.Ino) bool
}

func attrOf(t *testing.T, r *rig, ino meta.Ino) Attr {
	t.Helper()
	a, err := r.v.Attr(ino)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func hasName(t *testing.T, r *rig, dir meta.Ino, name string) bool {
	t.Helper()
	_, err := r.v.Lookup(dir, name)
	if err != nil && err != syscall.ENOENT {
		t.Fatal(err)
	}
	return err == nil
}

func setAttr(c Change) func(*rig, meta.Ino, meta.Ino) error {
	return func(r *rig, _, file meta.Ino) error { _, err := r.v.SetAttr(file, c); return err }
}

func ptr[T any](x T) *T { return &x }

var fullOps = []fullOp{
	{"unlink", true,
		func(r *rig, dir, _ meta.Ino) error { return r.v.Unlink(dir, "f") },
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return !hasName(t, r, dir, "f") }},
	{"rmdir", true,
		func(r *rig, dir, _ meta.Ino) error { return r.v.Rmdir(dir, "sub") },
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return !hasName(t, r, dir, "sub") }},
	{"empty", true, setAttr(Change{Size: ptr(int64(0))}),
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Size == 0 }},
	{"shorten", true, setAttr(Change{Size: ptr(int64(5000))}),
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Size == 5000 }},
	{"punch", true,
		func(r *rig, _, file meta.Ino) error {
			return r.v.Fallocate(file, 0, 4096, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
		},
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Blocks == 8 }},
	{"removexattr", true,
		func(r *rig, _, file meta.Ino) error { return r.v.RemoveXattr(file, "user.a") },
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Xattrs == 0 }},
	{"snapshot rm", true,
		func(r *rig, _, _ meta.Ino) error { return r.st.RemoveSnapshot("s") },
		func(_ *testing.T, r *rig, _, _ meta.Ino) bool {
			_, err := r.st.Snapshot("s")
			return errors.Is(err, store.ErrNotFound)
		}},
	{"object rm", true,
		func(r *rig, _, _ meta.Ino) error { return r.st.Delete(context.Background(), "o") },
		func(_ *testing.T, r *rig, _, _ meta.Ino) bool {
			return errors.Is(r.st.Fetch(context.Background(), "o", 0, 1, io.Discard), store.ErrNotFound)
		}},
	{"gc", true,
		func(r *rig, _, _ meta.Ino) error {
			_, err := r.st.Sweep(context.Background())
			if err == nil {
				_, err = r.st.Compact(context.Background(), store.CompactOptions{All: true})
			}
			return err
		},
		func(*testing.T, *rig, meta.Ino, meta.Ino) bool { return true }},
	{"chmod", false, setAttr(Change{Mode: ptr(uint32(0o600))}),
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Mode&0o7777 == 0o600 }},
	{"chown", false, setAttr(Change{UID: ptr(uint32(5))}),
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).UID == 5 }},
	{"utimes", false, setAttr(Change{Mtime: &meta.Time{Sec: 1}}),
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Mtime.Sec == 1 }},
	{"rename", false,
		func(r *rig, dir, _ meta.Ino) error { return r.v.Rename(dir, "f", dir, "g", 0) },
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return hasName(t, r, dir, "g") }},
	{"link", false,
		func(r *rig, dir, file meta.Ino) error { _, err := r.v.Link(file, dir, "g"); return err },
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return hasName(t, r, dir, "g") }},
	{"symlink", false,
		func(r *rig, dir, _ meta.Ino) error {
			_, err := r.v.Create(dir, "g", CreateOptions{Mode: syscall.S_IFLNK | 0o777, Target: "x"})
			return err
		},
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return hasName(t, r, dir, "g") }},
	{"mkdir", false,
		func(r *rig, dir, _ meta.Ino) error {
			_, err := r.v.Create(dir, "g", CreateOptions{Mode: syscall.S_IFDIR | 0o755})
			return err
		},
		func(t *testing.T, r *rig, dir, _ meta.Ino) bool { return hasName(t, r, dir, "g") }},
	{"setxattr", false,
		func(r *rig, _, file meta.Ino) error { return r.v.SetXattr(file, "user.b", []byte("x"), 0, false) },
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Xattrs == 2 }},
	{"allocate", false,
		func(r *rig, _, file meta.Ino) error { return r.v.Fallocate(file, 0, 1<<20, 0) },
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return attrOf(t, r, file).Size == 1<<20 }},
	{"write and fsync", false,
		func(r *rig, _, file meta.Ino) error {
			err := r.v.Write(file, 0, []byte("new"), WriteMode{Cached: true})
			if err == nil {
				err = r.v.SyncFile(file)
			}
			return err
		},
		func(t *testing.T, r *rig, _, file meta.Ino) bool { return string(read(t, r.v, file, 0, 3)) == "new" }},
}

// fullStates are how a disk becomes full; each gets the rig and what fills all that is left.
var fullStates = []struct {
	name string
	full func(t *testing.T, r *rig, fill func())
}{
	{"just full", func(_ *testing.T, _ *rig, fill func()) { fill() }},
	{"reserve used by changes", func(t *testing.T, r *rig, fill func()) {
		fill()
		many, err := r.v.Lookup(meta.Root, "many")
		if err != nil {
			t.Fatal(err)
		}
		for n := int64(0); ; n++ {
			for i := range 500 {
				a, err := r.v.Lookup(many.Ino, fmt.Sprint(i))
				if err == nil {
					_, err = r.v.SetAttr(a.Ino, Change{Mtime: &meta.Time{Sec: n}})
				}
				if errors.Is(err, ErrFull) {
					return
				}
				if err != nil || n > 1000 {
					t.Fatalf("round %d: %v", n, err)
				}
			}
			mustSync(t, r.v)
		}
	}},
	{"failed fsync", func(t *testing.T, r *rig, fill func()) {
		// Accepted while there is room, and in memory: each begins after a gap, and is no full
		// range.
		big := mustCreate(t, r.v, meta.Root, "big", syscall.S_IFREG|0o644)
		for i := range int64(bigParts) {
			mustWrite(t, r.v, big, 2*i<<20, bigPart(i))
		}
		fill()
		if err := r.v.SyncFile(big); !noRoom(err) {
			t.Fatalf("fsync: %v", err)
		}
	}},
}

const bigParts = 24

func bigPart(i int64) []byte {
	p := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(p)
	return p
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a loop device needs root")
	}
	for _, state := range fullStates {
		t.Run(state.name, func(t *testing.T) {
			disk := mountLoop(t, 150<<20)
			r := newRig(t, filepath.Join(disk, "s"), fixed4K(), Options{DirtyBytes: 512 << 20, NoAtime: true})
			open := true
			defer func() {
				if open {
					_ = errors.Join(r.v.Close(), r.st.Close())
				}
			}()
			dirs, files := prepareFull(t, r)
			others := filepath.Join(disk, "others")
			state.full(t, r, func() { fillDisk(t, others) })
			refused := make([]bool, len(fullOps))
			for i, op := range fullOps {
				err := op.do(r, dirs[i], files[i])
				if refused[i] = err != nil; err != nil && (op.removal || !noRoom(err)) {
					t.Errorf("%s: %v", op.name, err)
				}
			}
			check := func(when string) {
				t.Helper()
				for i, op := range fullOps {
					if done := op.done(t, r, dirs[i], files[i]); done == refused[i] {
						t.Errorf("%s, %s: refused %v, done %v", when, op.name, refused[i], done)
					}
				}
			}
			check("at once")
			err := r.v.Close()
			// What no fsync has failed for is named.
			if unkept := fmt.Sprint(r.v.Unkept()); strings.Contains(unkept, "big") != (state.name == "failed fsync") {
				t.Errorf("unkept: %s", unkept)
			}
			open = false
			if err = errors.Join(err, r.st.Close()); err != nil {
				t.Fatalf("close: %v", err)
			}
			fillDisk(t, others) // to the last block again
			r.open(t)
			open = true
			check("after reopening")
			checkBig(t, r)
			if err := os.Remove(others); err != nil {
				t.Fatal(err)
			}
			r.st.Space() // asks the disk again
			if _, err := r.v.Create(meta.Root, "room", CreateOptions{Mode: syscall.S_IFREG | 0o644}); err != nil {
				t.Errorf("with room again: %v", err)
			}
			mustSync(t, r.v)
			r.check(t)
		})
	}
}

// prepareFull makes what the operations work on.
func prepareFull(t *testing.T, r *rig) (dirs, files []meta.Ino) {
	many := mustCreate(t, r.v, meta.Root, "many", syscall.S_IFDIR|0o755)
	for i := range 500 {
		mustCreate(t, r.v, many, fmt.Sprint(i), syscall.S_IFREG|0o644)
	}
	for _, op := range fullOps {
		dir := mustCreate(t, r.v, meta.Root, op.name, syscall.S_IFDIR|0o755)
		mustCreate(t, r.v, dir, "sub", syscall.S_IFDIR|0o755)
		file := mustCreate(t, r.v, dir, "f", syscall.S_IFREG|0o644)
		mustWrite(t, r.v, file, 0, bytes.Repeat([]byte(op.name), 8192)[:8192])
		if err := r.v.SetXattr(file, "user.a", []byte("x"), 0, false); err != nil {
			t.Fatal(err)
		}
		dirs, files = append(dirs, dir), append(files, file)
	}
	if _, err := r.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.Ingest(context.Background(), strings.NewReader("object"), "o"); err != nil {
		t.Fatal(err)
	}
	mustSync(t, r.v)
	return dirs, files
}

// checkBig looks whether a file that was held back has nothing but what was written.
func checkBig(t *testing.T, r *rig) {
	t.Helper()
	a, err := r.v.Lookup(meta.Root, "big")
	if err != nil {
		return
	}
	if a.Size >= (2*bigParts-1)<<20 {
		t.Errorf("all of it found room: %d bytes", a.Size)
	}
	for i := range int64(bigParts) {
		got := read(t, r.v, a.Ino, 2*i<<20, 1<<20)
		if !bytes.Equal(got, bigPart(i)[:len(got)]) {
			t.Errorf("part %d differs", i)
		}
	}
}

// fillDisk lets a file that is not the store's take all that is left.
func fillDisk(t *testing.T, others string) {
	t.Helper()
	f, err := os.OpenFile(others, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, step := range []int{1 << 20, 4096, 1024} {
		for zeroes := make([]byte, step); ; {
			if _, err := f.Write(zeroes); err != nil {
				break
			}
		}
	}
	// What is allocated only when it is written back is taken by then.
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// mountLoop mounts a small ext4 filesystem until the test ends.
func mountLoop(t *testing.T, size int64) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, size)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", img}, {"mount", "-o", "loop", img, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", args, err, out)
		}
	}
	// umount frees a loop device that mount has set up.
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			_ = exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}
