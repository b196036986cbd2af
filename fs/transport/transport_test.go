package transport_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/transport"
)

// patient is longer than any test waits for what must come.
const patient = time.Minute

// A testFS has files whose names say how they are answered: "quick..." at once; "stuck..." once
// released is closed, "deaf..." too, whatever interrupts it; those in names have bytes.
type testFS struct {
	fuse.RawFileSystem
	released chan struct{}
	waiting  atomic.Int32 // answers that wait for released
	names    []string     // of files with bytes, by inode from firstData
	lent     atomic.Int32
}

const firstData = 100

func newTestFS() *testFS {
	return &testFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), released: make(chan struct{})}
}

func (f *testFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.fill(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *testFS) fill(node uint64, a *fuse.Attr) {
	a.Ino, a.Mode, a.Nlink = node, syscall.S_IFREG|0o644, 1
	if node == fuse.FUSE_ROOT_ID {
		a.Mode = syscall.S_IFDIR | 0o755
	} else if node >= firstData {
		a.Size = maxFile
	}
}

func (f *testFS) Lookup(cancel <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId = 2
	switch {
	case strings.HasPrefix(name, "stuck"), strings.HasPrefix(name, "deaf"):
		if strings.HasPrefix(name, "deaf") {
			cancel = nil
		}
		f.waiting.Add(1)
		defer f.waiting.Add(-1)
		select {
		case <-f.released:
		case <-cancel:
			return fuse.EINTR
		}
	case strings.HasPrefix(name, "quick"):
	default:
		for i, n := range f.names {
			if n == name {
				out.NodeId = firstData + uint64(i)
			}
		}
		if out.NodeId == 2 {
			return fuse.ENOENT
		}
	}
	f.fill(out.NodeId, &out.Attr)
	return fuse.OK
}

func (f *testFS) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO // READs as the reader asks for them
	return fuse.OK
}

const maxFile = 3 << 20

// fileBytes are those of all data files.
var fileBytes = sync.OnceValue(func() []byte {
	b := make([]byte, maxFile)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i)
	}
	return b
})

// A result counts how many are not done yet.
type result struct {
	fuse.ReadResult
	lent *atomic.Int32
}

func (r result) Done() { r.lent.Add(-1); r.ReadResult.Done() }

// sliced is a result in slices.
type sliced struct{ result }

func (s sliced) Slices() ([][]byte, fuse.Status) {
	return s.ReadResult.(interface {
		Slices() ([][]byte, fuse.Status)
	}).Slices()
}

func (f *testFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	all := fileBytes()
	b := all[min(in.Offset, maxFile):min(in.Offset+uint64(in.Size), maxFile)]
	f.lent.Add(1)
	switch f.names[in.NodeId-firstData] {
	case "in place":
		return result{fuse.ReadResultData(buf[:copy(buf, b)]), &f.lent}, fuse.OK
	case "bytes":
		return result{fuse.ReadResultData(b), &f.lent}, fuse.OK
	case "slices":
		var v [][]byte
		for n := 1; len(b) > 0; n *= 3 {
			n = min(n, len(b))
			v = append(v, b[:n])
			b = b[n:]
		}
		return sliced{result{fuse.ReadResultVector(v), &f.lent}}, fuse.OK
	}
	f.lent.Add(-1)
	return nil, fuse.EIO
}

// over runs a test over the device, and over rings where they are switched on.
func over(t *testing.T, test func(t *testing.T, kind transport.Kind)) {
	for _, kind := range []transport.Kind{transport.Device, transport.Ring} {
		t.Run(kind.String(), func(t *testing.T) {
			if kind == transport.Ring {
				needRings(t)
			}
			test(t, kind)
		})
	}
}

// needRings skips the test where the kernel offers no rings. That is set for the whole machine, so
// a test leaves it alone.
func needRings(t *testing.T) {
	t.Helper()
	const file = "/sys/module/fuse/parameters/enable_uring"
	if b, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(b, []byte("Y")) {
		t.Skipf("no rings: %s is %q (%v); root may write Y there", file, b, err)
	}
}

// serve mounts f until the test ends.
func serve(t *testing.T, f *testFS, kind transport.Kind) (*transport.Server, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := mount(t, f, dir, transport.Options{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	if in, why := s.InUse(); in != kind {
		t.Errorf("in use is %v: %v", in, why)
	}
	return s, dir
}

// mount mounts f at dir until the test ends.
func mount(t *testing.T, f *testFS, dir string, own transport.Options) (*transport.Server, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts without a helper")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	o := &fuse.MountOptions{
		Name: "test", MaxWrite: 1 << 20, DirectMountStrict: true, MaxBackground: 64, Logger: logger(t),
	}
	s, err := transport.New(f, dir, o, own)
	if err != nil {
		return nil, err
	}
	s.Serve()
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the test may have done so
		if !within(s.Wait) {
			t.Error("the server has not ended")
		}
	})
	return s, nil
}

// logger has what the server logs be seen where a test fails.
func logger(t *testing.T) *log.Logger { return log.New(t.Output(), "", 0) }

func within(f func()) bool {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(patient):
		return false
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

// stat has other processes look the names up, which it starts and does not wait for.
func stat(t *testing.T, dir string, names ...string) (wait func() error) {
	t.Helper()
	var all []*exec.Cmd
	for _, n := range names {
		cmd := exec.Command("stat", filepath.Join(dir, n))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	return func() error {
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("%v: %w", cmd.Args, err)
			}
		}
		return nil
	}
}

func named(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint(prefix, i))
	}
	return names
}

// However many answers that should be quick are not, there is somebody who reads.
func TestStuckAnswers(t *testing.T) { over(t, testStuckAnswers) }

func testStuckAnswers(t *testing.T, kind transport.Kind) {
	f := newTestFS()
	_, dir := serve(t, f, kind)
	const many = 40 // more than keep idle, and than there are processors
	stuck := stat(t, dir, named("stuck", many)...)
	until(t, "all that are stuck have been asked for", func() bool { return f.waiting.Load() == many })
	for range 3 {
		if err := stat(t, dir, named("quick", 20)...)(); err != nil {
			t.Error(err)
		}
	}
	close(f.released)
	if err := stuck(); err != nil {
		t.Error(err)
	}
	if err := stat(t, dir, named("quick", 20)...)(); err != nil {
		t.Error("after that: ", err)
	}
}

// After an idle time the first answers may be stuck as well.
func TestStuckAfterRest(t *testing.T) { over(t, testStuckAfterRest) }

func testStuckAfterRest(t *testing.T, kind transport.Kind) {
	f := newTestFS()
	_, dir := serve(t, f, kind)
	if err := stat(t, dir, "quick")(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // for the watch to rest; that it does is not needed
	stuck := stat(t, dir, "stuck")
	until(t, "it has been asked for", func() bool { return f.waiting.Load() == 1 })
	if err := stat(t, dir, "quick2")(); err != nil {
		t.Error(err)
	}
	close(f.released)
	if err := stuck(); err != nil {
		t.Error(err)
	}
}

// What a READ gives, as slices, as bytes or where it was asked to, arrives, and is kept until then.
func TestRead(t *testing.T) { over(t, testRead) }

func testRead(t *testing.T, kind transport.Kind) {
	f := newTestFS()
	f.names = []string{"slices", "bytes", "in place", "fails"}
	_, dir := serve(t, f, kind)
	want := fileBytes()
	for _, name := range f.names[:3] {
		for _, size := range []string{"7777", "4096", "65536", "1048576"} {
			out, err := exec.Command("dd", "if="+filepath.Join(dir, name), "bs="+size, "status=none").Output()
			if err != nil || !bytes.Equal(out, want) {
				t.Errorf("%s in reads of %s: %d bytes that are not the file's, %v", name, size, len(out), err)
			}
		}
	}
	if out, err := exec.Command("cat", filepath.Join(dir, "fails")).CombinedOutput(); err == nil {
		t.Errorf("a failing read: %q", out)
	}
	until(t, "every result is done", func() bool { return f.lent.Load() == 0 })
	// Several at a time, each with an answer of its own.
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			name := f.names[i%3]
			out, err := exec.Command("cat", filepath.Join(dir, name)).Output()
			if err != nil || !bytes.Equal(out, want) {
				t.Errorf("%s beside others: %d bytes, %v", name, len(out), err)
			}
		})
	}
	g.Wait()
}

// However a mount ends, its server does, and whatever its answers wait for.
func TestEnds(t *testing.T) { over(t, testEnds) }

func testEnds(t *testing.T, kind transport.Kind) {
	abort := func(t *testing.T, dir string) { // force has the kernel give up on what is asked
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		label string
		end   func(t *testing.T, dir string)
	}{
		{"unmount", func(t *testing.T, dir string) {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		}},
		{"detach", func(t *testing.T, dir string) {
			if err := transport.Detach(dir); err != nil {
				t.Error(err)
			}
		}},
		{"abort", abort},
	} {
		t.Run(c.label+" at rest", func(t *testing.T) {
			f := newTestFS()
			s, dir := serve(t, f, kind)
			if err := stat(t, dir, "quick")(); err != nil {
				t.Error(err)
			}
			c.end(t, dir)
			if !within(s.Wait) {
				t.Fatal("the server has not ended")
			}
			if st := s.InodeNotify(2, 0, 0); st.Ok() {
				t.Error("the kernel was told something afterwards")
			}
		})
	}
	// The answers that are stuck then are interrupted; those that do not listen are waited for.
	for _, name := range []string{"stuck", "deaf"} {
		t.Run("abort under "+name+" answers", func(t *testing.T) {
			f := newTestFS()
			s, dir := serve(t, f, kind)
			_ = stat(t, dir, named(name, 5)...) // they fail
			until(t, "they have been asked for", func() bool { return f.waiting.Load() == 5 })
			abort(t, dir)
			if name == "deaf" {
				close(f.released)
			}
			if !within(s.Wait) || f.waiting.Load() != 0 {
				t.Fatal("the server has not ended")
			}
		})
	}
}

// An interrupted caller leaves at once.
func TestInterrupt(t *testing.T) { over(t, testInterrupt) }

func testInterrupt(t *testing.T, kind transport.Kind) {
	f := newTestFS()
	_, dir := serve(t, f, kind)
	cmd := exec.Command("stat", filepath.Join(dir, "stuck"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it has been asked for", func() bool { return f.waiting.Load() == 1 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !within(func() { _ = cmd.Wait() }) {
		t.Fatal("the caller waits on")
	}
	until(t, "the answer was interrupted", func() bool { return f.waiting.Load() == 0 })
}

// What the kernel is told reaches it.
func TestNotify(t *testing.T) { over(t, testNotify) }

func testNotify(t *testing.T, kind transport.Kind) {
	f := newTestFS()
	s, dir := serve(t, f, kind)
	if err := stat(t, dir, "quick")(); err != nil {
		t.Fatal(err)
	}
	if st := s.InodeNotify(2, 0, 0); !st.Ok() {
		t.Error("an inode that it knows: ", st)
	}
	if st := s.EntryNotify(fuse.FUSE_ROOT_ID, "quick"); !st.Ok() && st != fuse.ENOENT { // it may have forgotten it by itself
		t.Error("a name: ", st)
	}
	if st := s.InodeNotify(77, 0, 0); st != fuse.ENOENT {
		t.Error("an inode that it does not know: ", st)
	}
}

// A kernel that refuses an entry has been promised rings and gets the device, on a mount made anew,
// or with Ring no mount.
func TestRefusedEntry(t *testing.T) {
	needRings(t)
	for _, kind := range []transport.Kind{transport.Auto, transport.Ring} {
		t.Run(kind.String(), func(t *testing.T) {
			var asked atomic.Int32
			own := transport.Options{Kind: kind}
			own.Spoil(func(cpu int) bool { asked.Add(1); return cpu == 0 }) // the others' are accepted
			dir := t.TempDir()
			s, err := mount(t, newTestFS(), dir, own)
			var noRing *transport.ErrNoRing
			if kind == transport.Ring {
				if !errors.As(err, &noRing) {
					t.Errorf("the error is %v", err)
				}
				if err := unix.Unmount(dir, 0); err != unix.EINVAL { // of what is no mountpoint
					t.Error("something is mounted all the same: ", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			in, why := s.InUse()
			if asked.Load() == 0 {
				t.Skip("no rings: ", why) // the kernel is not trusted with them
			}
			if in != transport.Device || !errors.As(why, &noRing) {
				t.Errorf("in use is %v: %v", in, why)
			}
			if err := stat(t, dir, named("quick", 20)...)(); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(dir, 0); err != unix.EINVAL {
				t.Error("the first mount is still there: ", err)
			}
		})
	}
}

func TestBadMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts without a helper")
	}
	for _, o := range []*fuse.MountOptions{
		{Name: "test", DirectMountStrict: true, Options: []string{"nonsense=1"}},
		{Name: "test", DirectMount: true, Options: []string{"nonsense=1"}},
	} {
		dir := t.TempDir()
		if s, err := transport.New(newTestFS(), dir, o, transport.Options{}); err == nil {
			s.Serve()
			_ = transport.Detach(dir)
			t.Errorf("%+v was mounted", o)
		}
	}
	if _, err := transport.New(newTestFS(), filepath.Join(t.TempDir(), "none"), &fuse.MountOptions{Name: "test", DirectMountStrict: true}, transport.Options{}); err == nil {
		t.Error("a directory that there is not was mounted at")
	}
}
