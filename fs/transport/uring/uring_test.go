package uring_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/transport/uring"
)

func TestLayout(t *testing.T) {
	if n := unsafe.Sizeof(uring.Submission{}); n != 128 {
		t.Errorf("a submission has %d bytes", n)
	}
	if n := unsafe.Offsetof(uring.Submission{}.Command); n != 48 {
		t.Errorf("its command begins at %d", n)
	}
	if n := unsafe.Sizeof(uring.Completion{}); n != 16 {
		t.Errorf("a completion has %d bytes", n)
	}
}

// newRing locks the test to its thread: the kernel works for the one that has submitted.
func newRing(t *testing.T, entries uint32) *uring.Ring {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := uring.New(entries)
	if err != nil {
		t.Skip("no io_uring: ", err)
	}
	t.Cleanup(r.Close)
	return r
}

// Nothing is lost and nothing comes twice, however often the rings' counters pass their ends.
func TestNop(t *testing.T) {
	r := newRing(t, 4)
	for round := range uint64(1000) {
		n := round%4 + 1
		for i := range n {
			s := r.Next()
			if s == nil {
				t.Fatal("no room for entry ", i)
			}
			s.Opcode, s.UserData = uring.OpNop, round*10+i
		}
		if n == 4 && r.Next() != nil {
			t.Fatal("a fifth of four")
		}
		if round%2 == 0 {
			if err := r.Submit(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			c, err := r.Wait()
			if err != nil || c.Err() != nil || c.UserData != round*10+i {
				t.Fatalf("round %d, entry %d: %+v, %v", round, i, c, err)
			}
		}
		if c, ok := r.Completed(); ok {
			t.Fatalf("one too many: %+v", c)
		}
	}
}

func TestRead(t *testing.T) {
	r := newRing(t, 1)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 16<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	s := r.Next()
	s.Opcode, s.FD, s.Addr, s.Len = uring.OpRead, int32(f.Fd()), uint64(uintptr(unsafe.Pointer(&buf[0]))), 100
	s.SetOffset(5)
	if c, err := r.Wait(); err != nil || c.Result != 100 || !bytes.Equal(buf[:100], want[5:105]) {
		t.Errorf("%+v, %v: %q", c, err, buf[:100])
	}
	s = r.Next()
	s.Opcode, s.FD, s.Addr, s.Len = uring.OpRead, -1, uint64(uintptr(unsafe.Pointer(&buf[0]))), 100
	if c, err := r.Wait(); err != nil || !errors.Is(c.Err(), unix.EBADF) {
		t.Errorf("of no file: %+v, %v", c, err)
	}
}

// A driver's command of a file that has none is refused, and the ring goes on.
func TestCommand(t *testing.T) {
	r := newRing(t, 1)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 3 {
		s := r.Next()
		s.Opcode, s.FD = uring.OpCommand, int32(f.Fd())
		s.SetCommand(77)
		if err := r.Submit(); err != nil {
			t.Fatal(err)
		}
		if c, err := r.Wait(); err != nil || c.Err() == nil {
			// Since Linux 6.2 the driver of /dev/null takes commands and does nothing.
			if err == nil && c.Result == 0 {
				continue
			}
			t.Errorf("%+v, %v", c, err)
		}
	}
}
