package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

// A load writes to a volume, one operation after the other, each with an fsync. Operation i writes
// record(i): each fourth into a new file, the others into one of twelve files, over what is there.
// So what a directory holds tells after which operation that was, and whether it is exactly that.
type load struct {
	seed uint64

	mu    sync.Mutex
	acks  []ack // in order
	begun int   // the last operation that was begun
}

// An ack is an fsync that has returned.
type ack struct {
	op   int
	at   time.Time
	took time.Duration
}

const (
	recordSize = 4096
	loadRate   = 50 // operations a second
	slots      = 16
	loadDir    = "load" // below the mountpoint: what is not mounted does not have it
)

// record is what an operation writes.
func (l *load) record(op int) []byte {
	rng := rand.New(rand.NewPCG(l.seed, uint64(op)))
	b := make([]byte, recordSize)
	for i := 8; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	binary.LittleEndian.PutUint64(b, uint64(op))
	return b
}

func makesFile(op int) bool { return op%4 == 3 }

func fileOf(op int) string {
	if makesFile(op) {
		return fmt.Sprintf("new-%07d", op)
	}
	return fmt.Sprintf("slot-%02d", op%slots)
}

// run writes from an operation on until ctx ends or one fails, and returns a function that waits
// for that.
func (l *load) run(ctx context.Context, dir string, from int) (wait func() error) {
	ended := make(chan error, 1)
	if err := os.Mkdir(filepath.Join(dir, loadDir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		ended <- err
		return func() error { return <-ended }
	}
	go func() {
		tick := time.NewTicker(time.Second / loadRate)
		defer tick.Stop()
		for op := from; ctx.Err() == nil; op++ {
			l.mu.Lock()
			l.begun = op
			l.mu.Unlock()
			begun := time.Now()
			if err := l.write(dir, op); err != nil {
				ended <- fmt.Errorf("operation %d: %w", op, err)
				return
			}
			now := time.Now()
			l.mu.Lock()
			l.acks = append(l.acks, ack{op, now, now.Sub(begun)})
			l.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		ended <- nil
	}()
	return func() error { return <-ended }
}

func (l *load) write(dir string, op int) error {
	// No truncation: the old record stays until the page with the new one replaces it.
	f, err := os.OpenFile(filepath.Join(dir, loadDir, fileOf(op)), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(l.record(op), 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeSynced returns when the file's bytes are acknowledged.
func writeSynced(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// lastAck is the last operation that was acknowledged at a time; 0: none.
func (l *load) lastAck(at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.acks), func(i int) bool { return l.acks[i].at.After(at) })
	if i == 0 {
		return 0
	}
	return l.acks[i-1].op
}

// timeOf is when an operation was acknowledged; the zero time: it was not.
func (l *load) timeOf(op int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.acks), func(i int) bool { return l.acks[i].op >= op })
	if i == len(l.acks) || l.acks[i].op != op {
		return time.Time{}
	}
	return l.acks[i].at
}

func (l *load) lastBegun() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// rewind forgets all operations after one, as they are not in the volume any more.
func (l *load) rewind(op int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.acks) > 0 && l.acks[len(l.acks)-1].op > op {
		l.acks = l.acks[:len(l.acks)-1]
	}
}

// state returns after which operation the directory was as it is, and an error if it never was so:
// it must hold exactly what all operations up to that one have left. The next one may have begun.
func (l *load) state(dir string) (last int, err error) {
	dir = filepath.Join(dir, loadDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	has := make(map[string][]byte)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, err
		}
		has[e.Name()] = b
		if len(b) == recordSize {
			last = max(last, int(binary.LittleEndian.Uint64(b)))
		}
	}
	want := make(map[string][]byte)
	for op := 1; op <= last; op++ {
		want[fileOf(op)] = nil
	}
	for op := last; op > 0; op-- {
		if name := fileOf(op); want[name] == nil {
			want[name] = l.record(op)
		}
	}
	for name, b := range want {
		if there, ok := has[name]; !ok {
			return last, fmt.Errorf("after operation %d: %s: %w", last, name, fs.ErrNotExist)
		} else if !bytes.Equal(there, b) {
			return last, fmt.Errorf("after operation %d: %s has other bytes: %d of them, of operation %d", last, name, len(there), opOf(there))
		}
		delete(has, name)
	}
	if next := fileOf(last + 1); len(has[next]) == 0 {
		delete(has, next) // it was made, and its bytes are not there yet
	}
	for name := range has {
		return last, fmt.Errorf("after operation %d: %s should not be there", last, name)
	}
	return last, nil
}

func opOf(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}
