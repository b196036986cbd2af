package carrier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// someBytes is content of which no two sectors are the same.
func someBytes(n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func contentOf(t *testing.T, on disk.FS, path string) []byte {
	t.Helper()
	f, err := on.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	size, err := f.Size()
	b := make([]byte, size)
	if _, rerr := f.ReadAt(b, 0); err != nil || rerr != nil && !errors.Is(rerr, io.EOF) {
		t.Fatal(err, rerr)
	}
	return b
}

// aLink is a link of a store in dir to whoever is at the other end of the connection.
func aLink(t *testing.T, dir string) (l *link, other net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	w := &Writer{
		Capture: NewCapture(disk.OS(), dir), dir: dir, opt: WriterOptions{Degrade: time.Minute}, clock: Boottime,
		log: slog.New(slog.DiscardHandler), changed: make(chan struct{}), links: map[string]*link{}, waiting: map[*link]bool{},
	}
	return &link{Writer: w, stream: newStream(ours, w.opt.Degrade), node: "b"}, theirs
}

// A copy is killed at any moment while a sealed segment is sent to it, and loses power: what has a
// sealed segment's name then is that segment. The writer counts it as equal by its size and end.
func TestSealedIsDurable(t *testing.T) {
	want, dir := someBytes(3<<20+1000), t.TempDir()
	name := filepath.Join(dir, "hot", "0000000000000001.seg")
	l, other := aLink(t, dir)
	if err := errors.Join(l.Capture.FS.MkdirAll(filepath.Dir(name)), writeAll(l.Capture.FS, name, want)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(l.sendWhole("hot/0000000000000001.seg", name), l.flush(), l.Conn.Close()) }()
	on, random := faultdisk.New(), rand.New(rand.NewPCG(2, 2))
	r, err := OpenReplica(t.TempDir(), ReplicaOptions{Node: "b", Volume: "v", Disk: on})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, s, copied := &following{Replica: r}, newStream(other, time.Minute), filepath.Join(r.dir, "hot", filepath.Base(name))
	whole := false
	for {
		k, b, err := s.receive()
		if errors.Is(err, io.EOF) {
			break
		}
		c, derr := decodeChange(k, b)
		if err := errors.Join(err, derr, f.change(c)); err != nil {
			t.Fatal(err)
		}
		live := contentOf(t, on, copied)
		whole = live != nil
		for range 4 {
			// Its name may be lost, and is listed no more then; not so its bytes.
			if after := contentOf(t, on.Crash(random), copied); after != nil && !bytes.Equal(after, want) {
				t.Fatalf("after a %v the power is cut, and %d of %d bytes count as the segment", k, len(after), len(want))
			}
		}
		if live != nil && !bytes.Equal(live, want) {
			t.Fatalf("after a %v the copy is killed, and %d of %d bytes count as the segment", k, len(live), len(want))
		}
	}
	if err := <-sent; err != nil || !whole {
		t.Fatalf("it has come: %t, %v", whole, err)
	}
	// Sent in place it would be as above.
	in := change{kind: kindWrite, path: "hot/0000000000000001.seg", data: []byte("bytes")}
	if err := f.change(in); !errors.Is(err, errFrame) {
		t.Errorf("a sealed segment is written to: %v", err)
	}
}

func writeAll(on disk.FS, path string, b []byte) error {
	f, err := on.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// A copy that comes back knows nothing of what was begun before, and makes all names durable.
func TestBegunIsRemoved(t *testing.T) {
	on, dir := faultdisk.New(), t.TempDir()
	part, whole := filepath.Join(dir, "hot", "1.seg"+partExt), filepath.Join(dir, "hot", "2.seg")
	if err := errors.Join(writeAll(on, part, []byte("half")), writeAll(on, whole, nil)); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReplica(dir, ReplicaOptions{Node: "b", Volume: "v", Disk: on})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := (&following{Replica: r}).syncFiles(); err != nil {
		t.Fatal(err)
	}
	infos, err := on.Crash(rand.New(rand.NewPCG(1, 1))).List(filepath.Dir(part))
	if err != nil || len(infos) != 1 || infos[0].Name != "2.seg" {
		t.Errorf("%v, %v", infos, err)
	}
}

// A file that could not be made durable is not taken for durable when it is asked for again, as the
// system has forgotten by then that it could not. Another one in its place is.
func TestFailedDatasync(t *testing.T) {
	on := faultdisk.New()
	r, err := OpenReplica(t.TempDir(), ReplicaOptions{Node: "b", Volume: "v", Disk: on})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := &following{Replica: r}
	do := func(changes ...change) {
		t.Helper()
		for _, c := range changes {
			if err := f.change(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	do(change{kind: kindMake, path: "hot/1.open"}, change{kind: kindWrite, path: "hot/1.open", data: []byte("bytes")})
	fails := true
	on.Fail(func(op faultdisk.Op) error {
		if fails && op.Name == "datasync" {
			return syscall.EIO
		}
		return nil
	})
	if err := f.syncFiles(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	fails = false
	for range 2 {
		if err := f.syncFiles(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a commit is taken without the bytes: %v", err)
		}
	}
	do(
		change{kind: kindMake, path: "hot/1.open.part"}, change{kind: kindWrite, path: "hot/1.open.part", data: []byte("bytes")},
		change{kind: kindRename, path: "hot/1.open.part", to: "hot/1.open"},
	)
	if err := f.syncFiles(); err != nil {
		t.Fatal(err)
	}
}

// Nobody waits for a side that hangs: not who asks the copy meanwhile, as its lock is held while it
// answers, and not the writer for the list of a copy's files.
func TestHangingSides(t *testing.T) {
	t.Run("the writer", func(t *testing.T) {
		r, err := OpenReplica(t.TempDir(), ReplicaOptions{Node: "b", Volume: "v", Patience: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe() // of which what nobody reads is not sent
		defer ours.Close()
		served := make(chan error, 1)
		go func() { served <- r.Serve(t.Context(), theirs) }()
		s := newStream(ours, time.Minute)
		g := greeting{Format: wireFormat, Volume: "v", Epoch: 1, Record: mirror.Record{Epoch: 1, Stamp: mirror.Stamp{Generation: 1, Revision: 1}}}
		if err := errors.Join(s.sendJSON(kindGreet, g), s.expect(kindWelcome, nil), s.send(kindPing), s.flush()); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err == nil {
			t.Error("it has ended without an error")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("the copy", func(t *testing.T) {
		l, other := aLink(t, t.TempDir())
		l.opt.Degrade = 20 * time.Millisecond
		go func() { _, _ = io.Copy(io.Discard, other) }()
		if err := l.sendFiles(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it waits for a list: %v", err)
		}
	})
}

// What is kept of changes is bounded at any time, and whoever lacks some is told so.
func TestMostNoted(t *testing.T) {
	dir := t.TempDir()
	c := NewCapture(disk.OS(), dir)
	mark, f := c.mark(), c.file(filepath.Join(dir, "hot", "1.open"))
	for i := range int64(3 * mostNoted) {
		c.note(noted{kind: kindWrite, file: f, from: 2 * i, end: 2*i + 1}) // none goes on from the last
		if len(c.mu.noted) > mostNoted {
			t.Fatalf("%d changes are kept", len(c.mu.noted))
		}
	}
	if _, _, err := c.since(mark); !errors.Is(err, errBehind) {
		t.Errorf("what was dropped is not missed: %v", err)
	}
	last := c.mark()
	c.note(noted{kind: kindWrite, file: f, end: 1})
	if n, _, err := c.since(last); err != nil || len(n) != 1 {
		t.Errorf("%d changes, %v", len(n), err)
	}
}

// A copy that lists files without end does not fill the writer's memory.
func TestEndlessList(t *testing.T) {
	l, other := aLink(t, t.TempDir())
	var stop atomic.Bool
	defer stop.Store(true)
	go func() { _, _ = io.Copy(io.Discard, other) }()
	go func() {
		s := newStream(other, time.Minute)
		one := encodeListed("hot/"+strings.Repeat("x", maxPath-4), 1, nil)
		for !stop.Load() && s.send(kindListed, one) == nil {
			continue
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Conn.Close() })()
	if err := l.sendFiles(); !errors.Is(err, errFrame) {
		t.Error(err)
	}
}
