package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/quarxtor/quarxfs/store"
)

// A blockRun fills an index. Block i is its number and the seed, so every
// block that is there can be named without keeping a list.
type blockRun struct {
	o    *options
	dir  string
	st   *store.Store
	size int // blocks 0 to size-1 are stored
	rand uint64
}

const (
	fillWorkers = 2
	fillBatch   = 32768 // blocks between two commits of a fill
	commitOf    = 1000  // blocks of a commit that is measured
)

func (b *blockRun) plain(i int) []byte {
	p := binary.LittleEndian.AppendUint64(make([]byte, 0, 16), uint64(i))
	return binary.LittleEndian.AppendUint64(p, b.o.seed)
}

func (o *options) runBlocks(ctx context.Context, dir string, sizes []int, r *report) error {
	b := &blockRun{o: o, dir: dir, rand: o.seed | 1}
	for _, size := range sizes {
		if err := b.reach(ctx, size, r); err != nil {
			return err
		}
		if err := b.measure(subject{r, "blocks", b.size}); err != nil {
			return err
		}
	}
	return nil
}

// reach fills the store up to size and leaves it closed.
func (b *blockRun) reach(ctx context.Context, size int, r *report) (err error) {
	if b.st, err = b.o.open(b.dir); err != nil {
		return err
	}
	if b.size == 0 { // with --keep there may be a store
		for _, n := range b.st.Stats().Totals.Blocks {
			b.size += int(n)
		}
	}
	s, from := subject{r, "blocks", size}, b.size
	if size > from {
		err = s.took("fill, with commits", "us", size-from, func() error { return b.fillTo(ctx, size) })
	}
	if err != nil {
		return errors.Join(err, b.st.Close())
	}
	// Closed and opened again by measure: a store that has just been filled has its newest rows in
	// memory.
	return s.once("close", b.st.Close)
}

func (b *blockRun) fillTo(ctx context.Context, size int) error {
	for b.size < size {
		if err := errors.Join(ctx.Err(), b.fill(min(fillBatch, size-b.size))); err != nil {
			return err
		}
	}
	return nil
}

// fill puts, refers to and commits the next n blocks.
func (b *blockRun) fill(n int) error {
	// Room for one error of each worker, so that none waits for a reader.
	errs := make(chan error, fillWorkers)
	var wg sync.WaitGroup
	for w := range fillWorkers {
		wg.Go(func() {
			for i := w; i < n; i += fillWorkers {
				if err := b.put(b.size + i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	// Only now, as put goes by the size that was there before.
	b.size += n
	select {
	case err := <-errs:
		return err
	default:
		return b.st.Commit()
	}
}

func (b *blockRun) put(i int) error {
	return b.st.Update(func() error {
		// Until the reference is there a sweep must not take the block.
		defer b.st.Hold()()
		ids, err := b.st.PutAll([][]byte{b.plain(i)})
		if err == nil {
			b.st.Ref(ids[0], 1)
		}
		return err
	})
}

// absent returns an ID that no block has.
func (b *blockRun) absent() (id store.ID) {
	for i := 0; i < len(id); i += 8 {
		binary.LittleEndian.PutUint64(id[i:], uint64(b.random(1<<62)))
	}
	return id
}

// random returns a number below n.
func (b *blockRun) random(n int) int {
	b.rand ^= b.rand << 13
	b.rand ^= b.rand >> 7
	b.rand ^= b.rand << 17
	return int(b.rand % uint64(n))
}

func (b *blockRun) measure(s subject) (err error) {
	cold := dropCaches()
	name := map[bool]string{true: "cold", false: "warm"}[cold]
	if err := s.once("open, "+name, func() (err error) { b.st, err = b.o.open(b.dir); return err }); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = b.st.Close()
		}
	}()
	s.memory("after open")
	// Without root nothing could be dropped, and cold would be a wrong name for it.
	if cold {
		if err := b.checks(s, "cold"); err != nil {
			return err
		}
	}
	// Tables into the page cache by reading them, so that warm means all of them and not what was
	// asked for.
	if err := warm(filepath.Join(b.dir, "db")); err != nil {
		return err
	}
	if err := b.checks(s, "warm"); err != nil {
		return err
	}
	if err := b.writes(s); err != nil {
		return err
	}
	s.memory("in use")
	s.add(row{s.of, s.size, "database on disk, a block", float64(sizeOf(filepath.Join(b.dir, "db"))) / float64(b.size), "B", 0, 0})
	return nil
}

// checks asks for blocks that are not there, and puts ones that are.
func (b *blockRun) checks(s subject, name string) error {
	err := s.each("miss, "+name, b.o.ops, func(i int) error {
		has, err := b.st.Has(b.absent())
		if has {
			return fmt.Errorf("block %d is there", i)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.each("hit (put of a stored block), "+name, b.o.ops, func(int) error {
		_, err := b.st.PutAll([][]byte{b.plain(b.random(b.size))})
		return err
	})
}

func (b *blockRun) writes(s subject) error {
	err := s.each("put of a new block", b.o.ops, func(int) error {
		err := b.put(b.size)
		b.size++
		return err
	})
	if err != nil {
		return err
	}
	if err := b.st.Commit(); err != nil {
		return err
	}
	return s.each(fmt.Sprintf("%d new blocks and commit", commitOf), max(1, b.o.ops/commitOf), func(int) error { return b.fill(commitOf) })
}

// sizeOf returns the bytes that the tables below dir take.
func sizeOf(dir string) int64 {
	var n int64
	for _, name := range filesIn(dir) {
		if info, err := os.Stat(name); err == nil && filepath.Ext(name) == ".sst" {
			n += info.Size()
		}
	}
	return n
}
