package db

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a program that works on a database until it is
// killed: the value is "job:directory".
const childEnv = "QUARXFS_DB_CHILD"

func child(arg string) int {
	job, dir, _ := strings.Cut(arg, ":")
	work := map[string]func(string) error{"commit": commitForever, "full": fillDisk, "gone": loseDisk}[job]
	if err := work(dir); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func startChild(t *testing.T, job, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+job+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

const crashKeys = 300

func crashKey(n int) []byte { return fmt.Appendf(nil, "key%06d", n) }

// commitForever sets all keys to the number of the commit, and prints the
// number when the commit is acknowledged. Some commits are several Badger
// transactions, and values are large enough for logs and memtables to fill up.
func commitForever(dir string) error {
	d, err := Open(testOptions(dir))
	if err != nil {
		return err
	}
	start, err := crashState(d)
	if err != nil {
		return err
	}
	d.maxRows = crashKeys / 5
	for n := start + 1; ; n++ {
		for k := range crashKeys {
			d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 1000), uint64(n))[:1000])
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// crashState returns the number that all rows hold, or 0 if there are none.
func crashState(d *DB) (int, error) {
	state, rows := 0, 0
	err := d.Scan(nil, nil, func(k, v []byte) error {
		n := int(binary.BigEndian.Uint64(v))
		if rows > 0 && n != state {
			return fmt.Errorf("%s is of commit %d, others of %d", k, n, state)
		}
		state = n
		rows++
		return nil
	})
	if err == nil && rows != 0 && rows != crashKeys {
		err = fmt.Errorf("%d rows of %d", rows, crashKeys)
	}
	return state, err
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	for range 8 {
		cmd, out := startChild(t, "commit", dir)
		time.AfterFunc(time.Duration(100+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		acked := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(lines.Text())
			}
			acked = n
		}
		err := cmd.Wait()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v", err)
		}
		d, err := Open(testOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		state, err := crashState(d)
		if err != nil {
			t.Error(err)
		}
		if acked > 0 && state != acked && state != acked+1 {
			t.Errorf("found commit %d, acknowledged was %d", state, acked)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A content is what is in a file: data, and then zeroes up to its size, which is most of a log of
// Badger's.
type content struct {
	data []byte
	size int64
}

func readContent(name string) (c content, err error) {
	f, err := os.Open(name)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	c.size = info.Size()
	var end int64 // of the last data
	for {
		at, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err == nil {
			end, err = f.Seek(at, unix.SEEK_HOLE)
		}
		if err != nil {
			return c, err
		}
	}
	c.data = make([]byte, min(end, c.size))
	n, err := f.ReadAt(c.data, 0)
	if errors.Is(err, io.EOF) { // Badger has cut it meanwhile
		c.data, c.size, err = c.data[:n], int64(n), nil
	}
	return c, err
}

func (c content) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(c.data)
	return errors.Join(err, f.Truncate(c.size), f.Close())
}

// image copies the files as a power cut would leave them: of the pages of
// Badger's logs that changed since synced, a random half reached the disk, and a log
// made since may be missing. Of the files of a compaction that were not synced, something is there,
// or nothing.
func image(t *testing.T, dir string, synced map[string]content, unsynced map[string]bool, rng *rand.Rand) string {
	t.Helper()
	to := fastDir(t)
	for name, c := range readDir(t, dir) {
		old, ok := synced[name]
		if filepath.Ext(name) == memExt {
			if !ok && rng.IntN(2) == 0 {
				continue
			}
			before := append(old.data[:len(old.data):len(old.data)], make([]byte, max(0, len(c.data)-len(old.data)))...)
			for off := 0; off < len(c.data); off += 4096 {
				end := min(off+4096, len(c.data))
				if !bytes.Equal(c.data[off:end], before[off:end]) && rng.IntN(2) == 0 {
					copy(c.data[off:end], before[off:end])
				}
			}
		}
		if unsynced[name] {
			if rng.IntN(2) == 0 {
				continue
			}
			c.data = c.data[:rng.IntN(len(c.data)+1)]
			c.size = int64(len(c.data))
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := c.write(filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// readDir reads all files, again if the list of tables or the instance in use changed meanwhile.
func readDir(t *testing.T, dir string) map[string]content {
	t.Helper()
	lists := func() string {
		var all []byte
		for _, name := range []string{"", instanceDirs[0], instanceDirs[1]} {
			data, err := os.ReadFile(filepath.Join(dir, name, "MANIFEST"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		return string(all)
	}
	for {
		before := lists()
		files := make(map[string]content)
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return ignoreAbsent(err)
			}
			c, err := readContent(name)
			if err == nil {
				files[strings.TrimPrefix(name, dir+"/")] = c
			}
			return ignoreAbsent(err)
		})
		if err != nil {
			t.Fatal(err)
		}
		if before == lists() {
			return files
		}
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// powerCut is a database whose power is cut after steps of its work. All is
// guarded by the lock of m.
type powerCut struct {
	t            *testing.T
	rng          *rand.Rand
	dir          string
	m            *memDir
	d            *DB // nil while it is opened
	acked, begun int
	synced       map[string]content // Badger's files at the last checkpoint
	unsynced     map[string]bool    // files that a compaction has written
	cuts         []cut
	every        int
	one          bool // of the cuts is enough, each as likely
	steps        int
}

type cut struct {
	dir          string
	m            *memDir
	acked, begun int // when it was made
}

// note takes an image at every so many steps.
func (p *powerCut) note() {
	if p.steps++; p.steps%p.every == 0 {
		if p.one {
			if p.rng.IntN(p.steps/p.every) > 0 {
				return
			}
			p.cuts = nil
		}
		m := p.m.cut(p.rng, []float64{0, 0.5, 1}[p.rng.IntN(3)])
		p.cuts = append(p.cuts, cut{image(p.t, p.dir, p.synced, p.unsynced, p.rng), m, p.acked, p.begun})
	}
}

func (p *powerCut) step(what string) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if what == stepSynced {
		if p.d != nil && p.d.inUse().wal.dirty {
			p.t.Error("Badger's log was not synced")
		}
		p.synced = readDir(p.t, p.dir)
	}
	if what == stepFollowed && p.d != nil {
		// The new instance's logs were synced just now, and it is not in use yet.
		next := filepath.Base(otherDir(p.d.inUse().dir))
		for name, c := range readDir(p.t, p.dir) {
			if filepath.Dir(name) == next {
				p.synced[name] = c
			}
		}
	}
	p.note()
}

// operation comes before each of a compaction.
func (p *powerCut) operation(op, name string) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.note()
	name = strings.TrimPrefix(name, p.dir+"/")
	switch op {
	case "write":
		p.unsynced[name] = true
	case "sync":
		delete(p.unsynced, name) // synced a moment later, but nobody looks meanwhile
	}
	return nil
}

func (p *powerCut) set(acked, begun int) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.acked, p.begun = acked, begun
}

// TestPowerCut commits in all sizes, carries the commits into Badger, and finds
// after a cut at any step the last commit acknowledged, or the one begun, as a
// whole; also when the recovery is cut in turn.
func TestPowerCut(t *testing.T) {
	p := &powerCut{t: t, rng: rand.New(rand.NewPCG(1, 2)), dir: fastDir(t), m: newMemDir(), unsynced: make(map[string]bool), every: 9}
	if testing.Short() {
		p.every = 12
	}
	opt := smallOptions(p.dir)
	opt.logs = p.m
	opt.step = p.step
	opt.disk.before = p.operation
	d := openTest(t, opt)
	d.maxRows = crashKeys / 3
	p.synced = readDir(t, p.dir)
	p.d = d
	p.m.watch(func(string) error {
		p.note()
		return nil
	})
	for n := 1; n <= 14; n++ {
		size := []int{3000, 100, 7000}[n%3]
		if n%7 == 0 {
			size = 15_000 // larger than a log file
		}
		for k := range crashKeys {
			d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(n))[:size])
		}
		p.set(n-1, n)
		commit(t, d)
		p.set(n, n)
		switch n % 4 {
		case 0:
			drain(t, d)
		case 2:
			if _, err := d.Compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps, %d cuts", p.steps, len(p.cuts))
	if len(p.cuts) < 10 {
		t.Fatal("too few cuts")
	}
	for i, c := range p.cuts {
		p.recover(i, c, true)
	}
}

// recover opens what a cut left, and what a cut of that leaves.
func (p *powerCut) recover(i int, c cut, twice bool) {
	inner := &powerCut{t: p.t, rng: p.rng, dir: c.dir, m: c.m, unsynced: make(map[string]bool), every: 1000, one: true, acked: c.acked, begun: c.begun}
	if twice {
		inner.every = 1 + p.rng.IntN(6)
	}
	inner.synced = readDir(p.t, c.dir)
	opt := smallOptions(c.dir)
	opt.logs = c.m
	opt.step = inner.step
	opt.disk.before = inner.operation
	c.m.before = func(string) error {
		inner.note()
		return nil
	}
	d, err := Open(opt)
	if err != nil {
		p.t.Fatalf("cut %d: %v", i, err)
	}
	n, err := crashState(d)
	if err = errors.Join(err, d.Close()); err != nil {
		p.t.Fatalf("cut %d: %v", i, err)
	}
	if n < c.acked || n > c.begun {
		p.t.Fatalf("cut %d: found %d, acknowledged %d, begun %d", i, n, c.acked, c.begun)
	}
	for _, again := range inner.cuts {
		again.acked, again.begun = n, n
		p.recover(i, again, false)
	}
}

// TestDiskErrors fails each operation of the log in turn: the commit gets the
// error, the next one succeeds, and nothing acknowledged is lost in a cut.
func TestDiskErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	step := 1
	if testing.Short() {
		step = 4
	}
	for nth := 0; ; nth += step {
		m := newMemDir()
		opt := smallOptions(fastDir(t))
		opt.logFile = 1 << 18 // a commit fills it
		opt.logs = m
		d, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		left := nth
		m.watch(func(string) error {
			if left--; left == -1 {
				return errDisk
			}
			return nil
		})
		acked := 0
		for n := 1; n <= 9; n++ {
			for k := range crashKeys {
				d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 700), uint64(n))[:700])
			}
			d.Freeze()
			err := d.Write(nil)
			if err != nil && !errors.Is(err, errDisk) {
				t.Fatal(nth, n, err)
			}
			if err == nil {
				acked = n
			}
			if state, err := crashState(d); err != nil || state != n {
				t.Fatal(nth, n, state, err)
			}
		}
		if acked != 9 && nth < 5 {
			t.Fatalf("operation %d failed, then commits up to %d only", nth, acked)
		}
		if err := crash(d); err != nil {
			t.Fatal(err)
		}
		m.watch(nil)
		opt.logs = m.cut(rng, 0.5)
		if d, err = Open(opt); err != nil {
			t.Fatal(nth, err)
		}
		state, err := crashState(d)
		if err = errors.Join(err, d.Close()); err != nil || state < acked {
			t.Fatalf("operation %d failed: found %d, acknowledged %d: %v", nth, state, acked, err)
		}
		if left >= 0 {
			return
		}
	}
}
