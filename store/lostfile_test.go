package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// A sample is a store with something of all kinds in it, and its cold tier, in root. Its files are
// put there anew for each case.
type sample struct {
	root string
	want map[string][]byte // objects
	// the files of the store: closed, as a crash left it, and both earlier; and those of another
	// store
	closed, crashed, earlier, foreign string
}

func (s *sample) store() string { return filepath.Join(s.root, "store") }

func sampleOptions() Options {
	return Options{SweepInterval: -1, CommitInterval: time.Hour, Ballast: 1 << 16, MemTable: 8 << 20, CacheBytes: 1, LockWait: 10 * time.Second}
}

// makeSample makes the store, and meanwhile the copies.
func makeSample(t *testing.T, root string, seed uint64) *sample {
	t.Helper()
	at := func(name string) string { return filepath.Join(t.TempDir(), name) }
	x := &sample{root: root, want: make(map[string][]byte), closed: at("closed"), crashed: at("crashed"), earlier: at("earlier")}
	if err := Init(x.store(), smallConfig()); err != nil {
		t.Fatal(err)
	}
	var s *Store
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() {
		t.Helper()
		var err error
		s, err = Open(x.store(), sampleOptions())
		must(err)
	}
	ingest := func(name string, n int) {
		t.Helper()
		data := words(seed+uint64(len(x.want)), n)
		x.want[name] = data
		_, err := s.Ingest(t.Context(), bytes.NewReader(data), name)
		must(err)
	}
	open()
	ingest("first", 20_000)
	must(s.AddCold(filepath.Join(x.root, "cold")))
	_, err := s.CreateToken("one", []config.Scope{config.ScopeRead}, time.Time{})
	must(err)
	must(s.ChangeSettings(func(c *config.Settings) error { c.Snapshots.Seconds = 3600; return nil }))
	must(s.Close())
	must(copySparse(x.root, x.earlier))

	open()
	ingest("second", 24_000)
	must(nameSnapshot(s, "kept", putSnapshot(t, s, "of a snapshot")))
	ids, _ := dataBlocks(t, s)
	_, err = s.Move(t.Context(), tiering.Cold, ids[:len(ids)/2], MoveOptions{})
	must(err)
	_, err = s.CreateToken("two", []config.Scope{config.ScopeRead}, time.Time{})
	must(err)
	must(s.ChangeSettings(func(c *config.Settings) error { c.Snapshots.Seconds = 7200; return nil }))
	must(s.Close())
	open()
	ingest("third", 18_000)
	must(s.Commit())
	must(copyStore(x.root, x.crashed))
	must(s.Close())
	must(copySparse(x.root, x.closed))
	return x
}

// files lists what a copy is made of.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

// tree is all that is in a directory: kinds, sizes, times and bytes.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			sum := crc32.NewIEEE()
			_, err = eachPart(path, func(at int64, b []byte) error {
				fmt.Fprint(sum, at)
				_, err := sum.Write(b)
				return err
			})
			all[path] += fmt.Sprint(" ", sum.Sum32())
			if errors.Is(err, fs.ErrPermission) {
				err = nil // its bytes are nobody's, then
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A harm is what is done to a file; older and other are copies of it, or "".
type harm struct {
	name string
	do   func(path, older, other string) error
}

var errNoSuchCase = errors.New("no such case")

func replaceBy(path, from string) error {
	if from == "" {
		return errNoSuchCase
	}
	b, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoSuchCase
	}
	return errors.Join(err, os.WriteFile(path, b, 0o600))
}

// unreadable is for those whom a file's mode means something to.
var unreadable = harm{"unreadable", func(path, _, _ string) error { return os.Chmod(path, 0) }}

var harms = []harm{
	{"missing", func(path, _, _ string) error { return os.Remove(path) }},
	{"empty", func(path, _, _ string) error { return os.Truncate(path, 0) }},
	{"cut", func(path, _, _ string) error {
		info, err := os.Stat(path)
		if err != nil || info.Size() < 2 {
			return errors.Join(err, errNoSuchCase)
		}
		return os.Truncate(path, info.Size()/2)
	}},
	{"older", func(path, older, _ string) error { return replaceBy(path, older) }},
	{"foreign", func(path, _, other string) error { return replaceBy(path, other) }},
	{"a link", func(path, _, _ string) error {
		return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
	}},
	{"a directory", func(path, _, _ string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
	{"a pipe", func(path, _, _ string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }},
}

// TestLostFiles harms each file of a store in each way, closed and after a crash. Either the store
// opens with all that it had, or it is refused with the file and what to do about it; the same each
// time, and what is refused is left as it is.
func TestLostFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of openings one after the other: make test has them all")
	}
	root := fastRoot(t)
	other := makeSample(t, filepath.Join(root, "other"), 1000)
	for _, state := range []string{"closed", "crashed"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel() // each has a store of its own: a cold tier is known by its path
			x := makeSample(t, filepath.Join(root, state), 1)
			x.foreign = other.closed
			from := x.closed
			if state == "crashed" {
				from = x.crashed
			} else if err := os.WriteFile(filepath.Join(from, "store", lockName), nil, 0o600); err != nil {
				t.Fatal(err) // a copy of a store may come without its lock, which nothing is known by
			}
			outcomes := x.harmEach(t, state, from, harms)
			t.Log(outcomes)
			if outcomes["refused"] < 40 || outcomes["opened"] < 40 {
				t.Errorf("%v: too few of one kind for the test to mean anything", outcomes)
			}
		})
	}
}

// harmEach does each harm to each file of a copy, and counts what came of it.
func (x *sample) harmEach(t *testing.T, state, from string, harms []harm) map[string]int {
	t.Helper()
	outcomes := make(map[string]int)
	for _, name := range files(t, from) {
		last, before := "", "" // outcome, and harm
		path := filepath.Join(x.root, name)
		for _, h := range harms {
			what := fmt.Sprintf("%s: %s %s", state, name, h.name)
			// A rebuild has changed more than the file that was harmed.
			if err := x.renew(from, path, last == "refused" && before != "missing" && !t.Failed()); err != nil {
				t.Fatal(err)
			}
			err := h.do(path, filepath.Join(x.earlier, name), filepath.Join(x.foreign, name))
			if errors.Is(err, errNoSuchCase) {
				continue
			}
			if err != nil {
				t.Fatal(what, err)
			}
			last, before = x.judge(t, what), h.name
			outcomes[last]++
		}
	}
	return outcomes
}

// TestUnreadableFiles does so with files that may not be read, as a user that is not root.
func TestUnreadableFiles(t *testing.T) {
	const env = "QUARXFS_TEST_UNREADABLE"
	if os.Geteuid() != 0 {
		x := makeSample(t, fastRoot(t), 1)
		for _, name := range files(t, x.closed) { // copies have no mode
			if err := os.Chmod(filepath.Join(x.closed, name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if outcomes := x.harmEach(t, "closed", x.closed, []harm{unreadable}); outcomes["refused"] < 5 {
			t.Errorf("%v: too few for the test to mean anything", outcomes)
		}
		return
	}
	if os.Getenv(env) != "" {
		t.Fatal("the child is root")
	}
	dir := fastRoot(t)
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnreadableFiles$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1", "TMPDIR="+dir)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestUnreadableFiles")) {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

// TestUnreadableSegments has a disk fail to open or to read segments: that says nothing of what is
// in them, and is no damage.
func TestUnreadableSegments(t *testing.T) {
	f := initFaultStore(t, filepath.Join(fastDir(t), "store"), compactConfig())
	if err := f.AddCold("/x/cold"); err != nil {
		t.Fatal(err)
	}
	kept := ingestWords(t, f.Store, "a", "b", "c")
	ids, _ := dataBlocks(t, f.Store)
	if _, err := f.Move(ctx, tiering.Cold, ids[:len(ids)/2], MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(f.dir, hotDir), "/x/cold"} {
		segments, err := anywhere{f.disk}.List(dir)
		if err != nil || len(segments) == 0 {
			t.Fatal(segments, err)
		}
		for _, seg := range segments {
			for _, op := range []string{"open", "read"} {
				f.disk.Fail(func(o faultdisk.Op) error {
					if o.Name == op && filepath.Base(o.Path) == seg.Name {
						return syscall.EIO
					}
					return nil
				})
				for range 2 {
					s, err := Open(f.dir, faultOptions(f.disk))
					if err == nil { // it was not looked at: it is as it was when it was last seen, or empty
						t.Logf("%s of %s: opened", op, seg.Name)
						s.Close()
					} else if !errors.Is(err, syscall.EIO) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), seg.Name) {
						t.Errorf("%s of %s: %v", op, seg.Name, err)
					}
				}
				f.disk.Fail(nil)
				s := openFaultStore(t, f.dir, f.disk)
				requireObjects(t, s.Store, kept)
				requireSound(t, s.Store)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestLostBeneath takes files away, and puts others in their places, while the store is open. Close
// says whether the next opening is refused. A check says so before; it may find more, which closing
// well mends.
func TestLostBeneath(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred openings one after the other: make test has them all")
	}
	root := fastRoot(t)
	other := makeSample(t, filepath.Join(root, "other"), 1000)
	x := makeSample(t, filepath.Join(root, "this"), 1)
	outcomes := make(map[string]int)
	for _, name := range files(t, x.closed) {
		path := filepath.Join(x.root, name)
		for how, do := range map[string]func() error{
			"missing": func() error { return os.Remove(path) },
			// By rename: what is open stays whole, and mapped memory with it.
			"foreign": func() error {
				err := replaceBy(path+".new", filepath.Join(other.closed, name))
				if err == nil {
					err = os.Rename(path+".new", path)
				}
				return err
			},
			"empty": func() error { return os.Truncate(path, 0) },
			"cut": func() error {
				info, err := os.Stat(path)
				if err != nil || info.Size() < 2 {
					return errors.Join(err, errNoSuchCase)
				}
				return os.Truncate(path, info.Size()/2)
			},
		} {
			if cuts := how == "empty" || how == "cut"; cuts && isMapped(name) {
				continue // this process would die of it, as a daemon does
			}
			what := "open: " + name + " " + how
			if err := x.renew(x.closed, path, false); err != nil {
				t.Fatal(err)
			}
			s, err := Open(x.store(), sampleOptions())
			if err != nil {
				t.Fatal(what, err)
			}
			if err := do(); err != nil {
				s.Close()
				if !errors.Is(err, errNoSuchCase) && !errors.Is(err, fs.ErrNotExist) { // opening took it away
					t.Fatal(what, err)
				}
				continue
			}
			r, err := s.Check(t.Context(), CheckOptions{})
			if err != nil {
				t.Errorf("%s: check: %v", what, err)
			}
			closed := s.Close()
			s, err = Open(x.store(), sampleOptions())
			if (closed == nil) != (err == nil) || err != nil && (r.Count == 0 || !errors.Is(closed, ErrDamaged)) {
				t.Errorf("%s: check %v, close %v, open %v", what, r.Problems, closed, err)
			}
			if err != nil {
				outcomes["refused"]++
				continue
			}
			outcomes["opened"]++
			x.compare(t, what, s, true)
			if err := s.Close(); err != nil {
				t.Error(what, err)
			}
		}
	}
	t.Log(outcomes)
	if outcomes["refused"] < 5 || outcomes["opened"] < 5 {
		t.Errorf("%v: too few of one kind for the test to mean anything", outcomes)
	}
}

// isMapped tells whether the open database has a file mapped into memory: its tables, and the logs
// of what is not in one yet.
func isMapped(name string) bool {
	switch filepath.Ext(name) {
	case ".sst", ".mem", ".vlog":
		return true
	}
	return filepath.Base(name) == "DISCARD"
}

// renew puts the store there anew; where one was refused, which is seen to have changed nothing,
// only the file that was harmed.
func (x *sample) renew(from, path string, refused bool) error {
	what, to := from, x.root
	if refused {
		what, to = filepath.Join(from, strings.TrimPrefix(path, x.root)), path
	}
	err := errors.Join(os.RemoveAll(to), os.RemoveAll(to+".moved"), copySparse(what, to))
	if _, none := os.Lstat(filepath.Join(from, "store", lockName)); err == nil && none == nil {
		err = os.WriteFile(filepath.Join(x.store(), lockName), nil, 0o600) // copies go without
	}
	return err
}

// judge opens the store three times.
func (x *sample) judge(t *testing.T, what string) (outcome string) {
	t.Helper()
	before := tree(t, x.root)
	var first error
	for n := range 3 {
		s, err := Open(x.store(), sampleOptions())
		if err == nil {
			if n > 0 && first != nil {
				t.Errorf("%s: refused, and opened the time after: %v", what, first)
			}
			x.compare(t, what, s, n == 1)
			if err := s.Close(); err != nil {
				t.Errorf("%s: close: %v", what, err)
			}
			if n == 1 {
				return "opened"
			}
			continue
		}
		f, ok := errors.AsType[*db.FileError](err)
		if n == 0 {
			first = err
		}
		if first == nil || err.Error() != first.Error() {
			t.Errorf("%s: %v, and then %v", what, first, err)
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotStore) || ok && (f.File == "" || f.Next == "") || !ok && errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// All three at once: times would tell what one changed and another put back.
	after := tree(t, x.root)
	for path := range maps.Keys(after) {
		if before[path] != after[path] {
			t.Errorf("%s: refused (%v), and %s changed: %q, %q", what, first, path, before[path], after[path])
		}
	}
	if len(before) != len(after) {
		t.Errorf("%s: refused, and there are %d files of %d", what, len(after), len(before))
	}
	if strings.HasSuffix(what, " missing") {
		if strings.Contains(what, segmentSuffix) {
			x.turnsUp(t, what)
		}
		x.rebuild(t, what)
	}
	return "refused"
}

// turnsUp repairs a store that lacks a segment, which turns up later: all is there again, and
// nothing of it went meanwhile. It leaves the store without the segment once more.
func (x *sample) turnsUp(t *testing.T, what string) {
	t.Helper()
	state, rest, _ := strings.Cut(what, ": ")
	name := strings.TrimSuffix(rest, " missing")
	copies := map[string]string{"closed": x.closed, "crashed": x.crashed}
	s := salvage(t, x.store(), CheckOptions{})
	for i := range 3 { // whose numbers would do
		mustIngest(t, s, fmt.Sprint("since ", i), words(uint64(i)+50, 30_000))
	}
	if err := s.Close(); err != nil {
		t.Error(what, err)
	}
	path := filepath.Join(x.root, name)
	if _, err := os.Lstat(path); err == nil {
		t.Fatalf("%s: its number was given to another segment", what)
	}
	if err := copySparse(filepath.Join(copies[state], name), path); err != nil {
		t.Fatal(err)
	}
	s, err := Open(x.store(), sampleOptions())
	if err != nil {
		t.Fatalf("%s: put back: %v", what, err)
	}
	x.compare(t, what+" for a while", s, true)
	if bad := s.BadBlocks(); len(bad) > 0 {
		t.Errorf("%s: put back, and %d blocks are still bad", what, len(bad))
	}
	if err := s.Close(); err != nil {
		t.Error(what, err)
	}
	// It may have been sealed, and what it had may have been compacted meanwhile.
	for _, suffix := range []string{".open", ".seg"} {
		os.Remove(strings.TrimSuffix(path, filepath.Ext(path)) + suffix)
	}
}

// rebuild makes the database of a refused store anew. It says what it cannot save, and is done or
// leaves the store refused; what it has saved opens.
func (x *sample) rebuild(t *testing.T, what string) {
	t.Helper()
	r, err := Rebuild(context.Background(), x.store(), RebuildOptions{})
	s, openErr := Open(x.store(), sampleOptions())
	if (err == nil) != (openErr == nil) {
		t.Errorf("%s: rebuild %v, and open %v", what, err, openErr)
	}
	if openErr != nil {
		return
	}
	got := make(map[string]bool)
	err = s.Objects(context.Background(), "", func(o ObjectInfo) error {
		got[o.Name] = true
		return nil
	})
	for name := range x.want {
		if !got[name] && r.Missing+r.Bad == 0 && r.Damage == "" && !strings.Contains(what, segmentSuffix) {
			t.Errorf("%s: rebuild lost %s and says nothing: %+v", what, name, r)
		}
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Errorf("%s: after the rebuild: %v", what, err)
	}
}

// segmentSuffix is in the name of a segment that is sealed or open.
const segmentSuffix = "00000000"

// compare looks for all that the store had, and at each block if asked to.
func (x *sample) compare(t *testing.T, what string, s *Store, blocks bool) {
	t.Helper()
	for name, want := range x.want {
		var got bytes.Buffer
		if err := s.Fetch(context.Background(), name, 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: %s: %d bytes of %d: %v", what, name, got.Len(), len(want), err)
		}
	}
	if names := snapshotNames(t, s); len(names) != 1 || names[0] != "kept" {
		t.Errorf("%s: snapshots %q", what, names)
	}
	list, err := s.Tokens()
	if len(list) != 2 || err != nil {
		t.Errorf("%s: tokens %v: %v", what, list, err)
	}
	set, _, err := s.Settings()
	if set.Snapshots.Seconds != 7200 || err != nil {
		t.Errorf("%s: settings %v: %v", what, set, err)
	}
	if c, ok := s.Cold(); !ok || c.Dir != filepath.Join(x.root, "cold") {
		t.Errorf("%s: cold tier %v", what, c)
	}
	if !blocks {
		return
	}
	// What gc does takes nothing of this.
	if _, err := s.Sweep(context.Background()); err != nil {
		t.Errorf("%s: sweep: %v", what, err)
	}
	r, err := s.Check(context.Background(), CheckOptions{Data: true})
	if err != nil || r.Count != 0 {
		t.Errorf("%s: check: %v %v", what, r.Problems, err)
	}
}

// fastRoot is a directory in memory, where there is one.
func fastRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "quarxfs-store")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
