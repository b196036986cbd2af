package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// TestFiguresOfATree compares every figure that the program gives of a tree and of what it
// takes with a walk: mounted, before and after somebody has looked into its clones, and not
// mounted. docs/inside.md says what each figure is.
func TestFiguresOfATree(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and root")
	}
	dir, mnt := emptyMount(t)
	must(t, "quarxfs", "mount", "--init", "--snapshot-every", "0s", dir, mnt)
	f := figures{t: t, dir: dir, mnt: mnt, rnd: rand.NewChaCha8([32]byte{14}), made: make(map[string]made)}
	f.grow()
	lazy := f.ask(mnt)
	walked := f.walk(mnt)
	f.compare("clones that nobody has looked into", lazy, walked)
	f.compare("all looked at", f.ask(mnt), walked)

	// Files of clones are changed, and a clone is removed.
	f.overwrite("clone/deep/big", 70_000)
	f.do(os.Truncate(f.at("clone/sparse"), 500_000))
	f.do(os.RemoveAll(f.at("again")))
	f.quiesce()
	f.snapshot("four", 600_000+500_000)
	walked = f.walk(mnt)
	f.compare("changed", f.ask(mnt), walked)
	f.listing(mnt, walked)
	f.history()

	must(t, "quarxfs", "umount", mnt)
	f.compare("not mounted", f.ask(dir), walked)
	f.listing(dir, walked)
	must(t, "quarxfs", "fsck", dir)
}

// figures are what the test asks about.
type figures struct {
	t        *testing.T
	dir, mnt string
	rnd      *rand.ChaCha8
	random   int64           // bytes written since the last snapshot that the store did not have
	made     map[string]made // snapshots
}

// made is what was written before a snapshot and since the one before.
type made struct{ written, random int64 }

func (f *figures) at(path string) string { return filepath.Join(f.mnt, path) }

func (f *figures) do(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *figures) run(args ...string) { f.t.Helper(); must(f.t, "quarxfs", args...) }

// unlike returns so many bytes, of which no two stretches are equal.
func (f *figures) unlike(n int) []byte {
	b := make([]byte, n)
	_, _ = f.rnd.Read(b)
	f.random += int64(n)
	return b
}

// snapshot makes a snapshot; written are the sizes of the files that have changed.
func (f *figures) snapshot(name string, written int64) {
	f.t.Helper()
	f.run("snapshot", "create", f.mnt, name)
	f.made[name] = made{written, f.random}
	f.random = 0
}

func (f *figures) write(path string, b []byte) {
	f.t.Helper()
	f.do(os.WriteFile(f.at(path), b, 0o644))
}

// overwrite changes a few bytes of a file, as a database does.
func (f *figures) overwrite(path string, off int64) {
	f.t.Helper()
	w, err := os.OpenFile(f.at(path), os.O_WRONLY, 0)
	f.do(err)
	_, err = w.WriteAt(f.unlike(4096), off)
	f.do(err)
	f.do(w.Sync())
	f.do(w.Close())
}

// quiesce waits until nothing is left to be written or taken apart.
func (f *figures) quiesce() {
	f.t.Helper()
	fd, err := unix.Open(f.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	f.do(err)
	defer unix.Close(fd)
	f.do(unix.Syncfs(fd))
	f.run("gc", f.mnt)
}

// grow makes the tree.
func (f *figures) grow() {
	f.t.Helper()
	for _, dir := range []string{"a/deep/er", "b", "empty"} {
		f.do(os.MkdirAll(f.at(dir), 0o755))
	}
	f.write("a/text", bytes.Repeat([]byte("some text, and more of it\n"), 4000))
	f.write("a/deep/big", f.unlike(600_000))
	f.write("a/deep/er/small", []byte("x"))
	f.write("a/none", nil)
	f.do(os.Symlink("text", f.at("a/link")))
	f.do(unix.Mkfifo(f.at("a/pipe"), 0o600))

	f.write("a/sparse", nil)
	f.do(os.Truncate(f.at("a/sparse"), 3_000_000))
	f.overwrite("a/sparse", 1_000_001)
	f.overwrite("a/sparse", 2_000_000)

	f.write("b/twice", f.unlike(100_000))
	f.do(os.Link(f.at("b/twice"), f.at("b/twice again")))
	f.do(os.Link(f.at("b/twice"), f.at("top")))
	f.write("b/copy", f.unlike(300_000))
	f.quiesce()
	f.snapshot("one", 104_000+600_000+1+3_000_000+100_000+300_000)

	f.overwrite("a/deep/big", 200_000)
	f.overwrite("a/deep/big", 300_010)
	f.write("b/new", f.unlike(10_000))
	f.do(os.Remove(f.at("b/copy")))
	f.snapshot("two", 600_000+10_000)
	f.run("snapshot", "rollback", f.mnt, "one")
	f.overwrite("a/deep/big", 100_000)
	f.write("a/deep/er/late", f.unlike(50_000))
	f.snapshot("three", 600_000+50_000)

	f.run("snapshot", "clone", f.mnt, "three:a", "clone")
	f.run("snapshot", "clone", f.mnt, "two", "whole") // with hard links: copied name by name
	f.run("snapshot", "clone", f.mnt, "one:a/deep", "again")
	f.run("snapshot", "restore", f.mnt, "two:a/deep", "restored")
	f.run("snapshot", "restore", f.mnt, "one:a/deep/big", "restored file")
	f.quiesce()
}

// answers are what the program says.
type answers struct {
	du    remote.Usage
	stats remote.Stats
	space unix.Statfs_t // of a mount
}

func (f *figures) json(out any, args ...string) {
	f.t.Helper()
	b, err := exec.Command("quarxfs", append(args, "--json")...).Output()
	f.do(err)
	f.do(json.Unmarshal(b, out))
}

func (f *figures) ask(where string) (a answers) {
	f.t.Helper()
	f.json(&a.du, "du", where)
	f.json(&a.stats, "stats", where)
	if where == f.mnt {
		f.do(unix.Statfs(where, &a.space))
	}
	return a
}

// An item is what a walk finds of a path.
type item struct {
	ino, nlink       uint64
	dir, regular     bool
	size, data, blks int64
}

func (f *figures) walk(top string) map[string]item {
	f.t.Helper()
	found := make(map[string]item)
	f.do(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		i := item{ino: st.Ino, nlink: uint64(st.Nlink), dir: d.IsDir(), regular: d.Type().IsRegular(), size: st.Size, blks: st.Blocks}
		if i.regular {
			i.data, err = dataBytes(path)
		}
		if want := (i.data + 511) / 512; i.regular && i.blks != want {
			f.t.Errorf("%s: st_blocks is %d for %d bytes in no hole", rel, i.blks, i.data)
		}
		found[rel] = i
		return err
	}))
	return found
}

// dataBytes counts the bytes of a file that are in no hole.
func dataBytes(path string) (sum int64, err error) {
	r, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for end := int64(0); ; {
		from, err := unix.Seek(int(r.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			return sum, nil
		}
		if err == nil {
			end, err = unix.Seek(int(r.Fd()), from, unix.SEEK_HOLE)
		}
		if err != nil {
			return sum, err
		}
		sum += end - from
	}
}

// sums are over different inodes.
type sums struct{ inodes, files, dirs, others, size, data int64 }

func sumOf(items map[string]item, below func(path string) bool) (s sums) {
	seen := make(map[uint64]bool)
	for path, i := range items {
		if seen[i.ino] || !below(path) {
			continue
		}
		seen[i.ino] = true
		s.inodes++
		switch {
		case i.dir:
			s.dirs++
		case i.regular:
			s.files, s.size, s.data = s.files+1, s.size+i.size, s.data+i.data
		default:
			s.others++
		}
	}
	return s
}

func everything(string) bool { return true }

func (f *figures) same(when, what string, got, want int64) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("%s: %s is %d, want %d", when, what, got, want)
	}
}

func (f *figures) compare(when string, a answers, walked map[string]item) {
	f.t.Helper()
	all := sumOf(walked, everything)
	f.same(when, "stats: volume.inodes", a.stats.Volume.Inodes, all.inodes)
	f.same(when, "stats: volume.logical_bytes", a.stats.Volume.LogicalBytes, all.size)
	f.same(when, "stats: logical_bytes", a.stats.Logical, all.data)
	f.same(when, "du: files", a.du.Whole.Files, all.files)
	f.same(when, "du: apparent", a.du.Whole.Apparent, all.data)
	f.parts(when, a.du, walked)
	f.stored(when, a)
	if a.space.Bsize != 0 {
		f.same(when, "df -i: used", int64(a.space.Files-a.space.Ffree), all.inodes)
		f.same(when, "df: available", int64(a.space.Bavail), int64(a.space.Bfree))
		used := int64(a.space.Blocks-a.space.Bfree) * a.space.Bsize
		f.same(when, "df: used", used, (a.stats.Disk.Used+4095)/4096*4096)
	}
}

// parts compares the parts that du tells apart.
func (f *figures) parts(when string, u remote.Usage, walked map[string]item) {
	f.t.Helper()
	where := make(map[uint64]map[string]bool) // the parts that an inode has names in
	part := func(path string) string {
		if dir, _, ok := strings.Cut(path, "/"); ok {
			return dir + "/"
		}
		return "files here"
	}
	for path, i := range walked {
		if i.regular {
			if where[i.ino] == nil {
				where[i.ino] = make(map[string]bool)
			}
			where[i.ino][part(path)] = true
		}
	}
	for _, g := range u.Groups {
		s := sumOf(walked, func(path string) bool {
			in := where[walked[path].ino]
			return len(in) > 1 && g.Name == "names in several parts" || len(in) == 1 && in[g.Name]
		})
		f.same(when, "du: files of "+g.Name, g.Files, s.files)
		f.same(when, "du: apparent of "+g.Name, g.Apparent, s.data)
	}
}

// stored compares what is answers of blocks with the list of all.
func (f *figures) stored(when string, a answers) {
	f.t.Helper()
	where := f.dir
	if a.space.Bsize != 0 {
		where = f.mnt
	}
	out, err := exec.Command("quarxfs", "list-blocks", where, "--json").Output()
	f.do(err)
	var unique, referenced, stored, unused int64
	for line := range bytes.Lines(out) {
		var b store.BlockInfo
		f.do(json.Unmarshal(line, &b))
		stored += b.Stored
		if b.Refs == 0 {
			unused += b.Stored
		} else if b.Kind == "data" {
			unique += b.Raw
			referenced += b.Raw * int64(b.Refs)
		}
	}
	f.same(when, "stats: referenced_bytes", a.stats.Referenced, referenced)
	f.same(when, "stats: unique_bytes", a.stats.Unique, unique)
	f.same(when, "stats: stored_bytes", a.stats.Stored, stored-unused)
	f.same(when, "du: total", a.du.Total, stored)
	sum := a.du.Elsewhere + a.du.Shared + a.du.SharedVertices + a.du.Unused
	for _, g := range a.du.Groups {
		sum += g.Freed
	}
	f.same(when, "du: the sum", sum, stored)
}

// listing compares list-files with a walk.
func (f *figures) listing(where string, walked map[string]item) {
	f.t.Helper()
	shown := make(map[string]item)
	out, err := exec.Command("quarxfs", "list-files", where, "--json").Output()
	f.do(err)
	for line := range bytes.Lines(out) {
		var x remote.File
		f.do(json.Unmarshal(line, &x))
		shown[x.Path] = item{ino: x.Ino, nlink: uint64(x.Nlink), dir: x.Type == remote.Directory, regular: x.Type == remote.Regular, size: x.Size, blks: x.Alloc / 512}
	}
	for path, i := range walked {
		i.data = 0
		if path != "." && shown[path] != i {
			f.t.Errorf("list-files %s: %s is %+v, want %+v", where, path, shown[path], i)
		}
	}
	f.same("list-files "+where, "paths", int64(len(shown)), int64(len(walked)-1))
}

// history compares the history with walks of the snapshots and with what was written.
func (f *figures) history() {
	f.t.Helper()
	points := make(map[string]graph.HistoryPoint)
	out, err := exec.Command("quarxfs", "stats", f.mnt, "--history", "--json").Output()
	f.do(err)
	for line := range bytes.Lines(out) {
		var p graph.HistoryPoint
		f.do(json.Unmarshal(line, &p))
		points[p.Name] = p
	}
	if len(points) != len(f.made)+1 { // the rollback made one
		f.t.Errorf("the history has only %q", slices.Collect(maps.Keys(points)))
	}
	for name, p := range points {
		s := sumOf(f.walk(f.at(".snapshots/"+name)), everything)
		if got := (sums{s.inodes, p.Files, p.Dirs, p.Others, p.Logical, p.Data}); got != s {
			f.t.Errorf("history: %s is %+v, want %+v", name, got, s)
		}
		f.same("history", "written of "+name, p.Written, f.made[name].written)
		// A patch is stored by itself first, and then with what is beside it.
		if least, most := f.made[name].random, p.Written+f.made[name].random; p.New < least || p.New > most {
			f.t.Errorf("history: %d bytes of %s are new, want %d to %d", p.New, name, least, most)
		}
		if least, most := f.made[name].random, p.New; p.NewStored < least || p.NewStored > most+most/10 {
			f.t.Errorf("history: the new bytes of %s take %d, want %d to %d", name, p.NewStored, least, most)
		}
	}
}
