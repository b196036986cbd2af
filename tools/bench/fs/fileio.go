package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// The kinds of data, one stream of seeds each.
const (
	kindSeq uint64 = iota + 1
	kindSmall
	kindRand
	kindWritten
	kindAppend
	kindImage
	kindFresh
	kindFreshWritten
)

func fileWorkloads() []workload {
	return []workload{
		{
			name: "seq-write-new", doc: "sequential write, 1 MiB calls, new half-compressible data, fsync", aim: 0.8,
			setup: func(e *env) error { e.seq(); return nil },
			run:   (*env).writeSeq,
			check: (*env).checkSeq,
		},
		{
			name: "seq-write-dup", doc: "the same data written to a second file, fsync", aim: 1,
			setup: steps((*env).needSeq, (*env).syncAll),
			run:   func(e *env) (amount, error) { return e.write("dup", e.seq(), mib) },
			check: func(e *env) error { return errors.Join(e.compare("dup", e.seq()), os.Remove(e.path("dup"))) },
		},
		{
			name: "seq-write-4k", doc: "sequential write, 4 KiB calls, new data, fsync at the end", aim: 5,
			setup: func(e *env) error { e.small(); return nil },
			run:   func(e *env) (amount, error) { return e.write("small", e.small(), 4*kib) },
			check: func(e *env) error { return errors.Join(e.compare("small", e.small()), os.Remove(e.path("small"))) },
		},
		{
			name: "rand-write-4k", doc: "random 4 KiB writes into a file of 128 MiB, fsync at the end", aim: 0.7,
			setup: setupRandomWrite, run: runRandomWrite, check: checkRandomWrite,
		},
		{
			name: "rand-write-4k-fresh", doc: "a quarter of the pages of a file of 64 MiB that was just written, at random, fsync at the end", aim: 1.5,
			setup: setupFresh, run: runFresh, check: checkFresh,
		},
		{
			name: "fsync-4k", doc: "4 KiB append + fsync, each", aim: 1,
			setup: (*env).syncAll, run: runFsync,
		},
		{
			name: "seq-read-warm", doc: "sequential read, 1 MiB calls, second time", aim: 1,
			setup: steps((*env).needSeq, (*env).checkSeq),
			run:   (*env).readSeq,
			check: (*env).checkSeq,
		},
		{
			name: "seq-read-cold", doc: "sequential read after remount and dropped caches", aim: 0.7,
			setup: steps((*env).needSeq, (*env).cold),
			run:   (*env).readSeq,
			// What was read is in the page cache: this looks at the same bytes.
			check: (*env).checkSeq,
		},
		{
			name: "rand-read-4k-cold", doc: "random 4 KiB reads after remount and dropped caches", aim: 0.5,
			setup: steps((*env).needSeq, (*env).cold),
			run:   runRandomRead,
		},
	}
}

func (e *env) seq() []byte {
	return e.input.data(e.input.seedFor(e.round, kindSeq), e.input.size(512, 1)*mib)
}

func (e *env) small() []byte {
	return e.input.data(e.input.seedFor(e.round, kindSmall), e.input.size(128, 1)*mib)
}

// needSeq writes the file that the read workloads share, once a round.
func (e *env) needSeq() error {
	if e.have["seq"] {
		return nil
	}
	_, err := e.writeSeq()
	return err
}

// write makes a new file in calls of a given size and fsyncs it.
func (e *env) write(name string, data []byte, call int) (amount, error) {
	f, err := os.OpenFile(e.path(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return amount{}, err
	}
	defer f.Close()
	did := amount{}
	for off := 0; off < len(data); off += call {
		if err := e.ctx.Err(); err != nil {
			return did, err
		}
		n, err := f.Write(data[off:min(off+call, len(data))])
		did.Bytes += int64(n)
		did.Ops++
		if err != nil {
			return did, err
		}
	}
	// Within the time: a write that is not durable is only half done. The deferred Close is for the
	// ways out above.
	return did, errors.Join(f.Sync(), f.Close())
}

// compare reads a file and fails on the first byte that differs.
func (e *env) compare(name string, want []byte) error {
	f, err := os.Open(e.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, mib)
	for off := 0; ; {
		// Whole buffers, whatever pieces the filesystem answers in.
		n, err := io.ReadFull(f, buf)
		if n > len(want)-off || !bytes.Equal(buf[:n], want[off:off+n]) {
			return fmt.Errorf("%s: wrong bytes after offset %d", name, off)
		}
		off += n
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if off != len(want) {
				return fmt.Errorf("%s: %d bytes, want %d", name, off, len(want))
			}
			return nil
		default:
			return err
		}
	}
}

func (e *env) writeSeq() (amount, error) {
	e.have["seq"] = true
	return e.write("seq", e.seq(), mib)
}

func (e *env) checkSeq() error { return e.compare("seq", e.seq()) }

func (e *env) readSeq() (amount, error) { return e.read("seq") }

func (e *env) read(name string) (amount, error) {
	f, err := os.Open(e.path(name))
	if err != nil {
		return amount{}, err
	}
	defer f.Close()
	buf := make([]byte, mib)
	did := amount{}
	for e.ctx.Err() == nil {
		n, err := f.Read(buf)
		did.Bytes += int64(n)
		if errors.Is(err, io.EOF) {
			return did, nil
		}
		if err != nil {
			return did, err
		}
		// The call that finds the end is not counted.
		did.Ops++
	}
	return did, e.ctx.Err()
}

// pages returns a repeatable choice of n of a file's 4 KiB pages.
func (e *env) pages(kind uint64, fileSize, n int) []int64 {
	r := rand.New(rand.NewPCG(e.input.seedFor(e.round, kind), 0))
	offs := make([]int64, n)
	for i := range offs {
		offs[i] = r.Int64N(int64(fileSize/(4*kib))) * (4 * kib)
	}
	return offs
}

func (e *env) randomSizes() (file, writes int) {
	return e.input.size(128, 1) * mib, e.input.size(16384, 64)
}

func setupRandomWrite(e *env) error {
	size, writes := e.randomSizes()
	_, err := e.write("rand", e.input.data(e.input.seedFor(e.round, kindRand), size), mib)
	// Made now, so that run finds it made.
	e.input.data(e.input.seedFor(e.round, kindWritten), writes*4*kib)
	return errors.Join(err, e.syncAll())
}

func runRandomWrite(e *env) (amount, error) {
	size, writes := e.randomSizes()
	written := e.input.data(e.input.seedFor(e.round, kindWritten), writes*4*kib)
	return e.writePages("rand", written, e.pages(kindWritten, size, writes))
}

func checkRandomWrite(e *env) error {
	size, writes := e.randomSizes()
	return e.checkPages("rand", kindRand, kindWritten, size, e.pages(kindWritten, size, writes))
}

// writePages writes pages of 4 KiB, one after the other of data, to these offsets of a file.
func (e *env) writePages(name string, data []byte, offs []int64) (amount, error) {
	f, err := os.OpenFile(e.path(name), os.O_WRONLY, 0)
	if err != nil {
		return amount{}, err
	}
	defer f.Close()
	for i, off := range offs {
		if err := e.ctx.Err(); err != nil {
			return amount{}, err
		}
		if _, err := f.WriteAt(data[i*4*kib:(i+1)*4*kib], off); err != nil {
			return amount{}, err
		}
	}
	return amount{Bytes: int64(len(data)), Ops: int64(len(offs))}, errors.Join(f.Sync(), f.Close())
}

// checkPages compares with a file of one kind of data, over which pages of another were written by
// writePages, and removes it.
func (e *env) checkPages(name string, kind, over uint64, size int, offs []int64) error {
	// The buffer of data is one, and is used for the file's bytes next.
	written := bytes.Clone(e.input.data(e.input.seedFor(e.round, over), len(offs)*4*kib))
	want := e.input.data(e.input.seedFor(e.round, kind), size)
	for i, off := range offs {
		copy(want[off:], written[i*4*kib:(i+1)*4*kib])
	}
	e.input.spoiled()
	return errors.Join(e.compare(name, want), os.Remove(e.path(name)))
}

// freshPages are a quarter of the pages of a file of so many bytes, each once, at random.
func (e *env) freshPages(size int) []int64 {
	pages := rand.New(rand.NewPCG(e.input.seedFor(e.round, kindFresh), 0)).Perm(size / (4 * kib))[:size/(16*kib)]
	offs := make([]int64, len(pages))
	for i, p := range pages {
		offs[i] = int64(p) * 4 * kib
	}
	return offs
}

func (e *env) freshSize() int { return e.input.size(64, 1) * mib }

func setupFresh(e *env) error {
	size := e.freshSize()
	_, err := e.write("fresh", e.input.data(e.input.seedFor(e.round, kindFresh), size), mib)
	e.input.data(e.input.seedFor(e.round, kindFreshWritten), size/4) // made now, so that run finds it made
	return err
}

func runFresh(e *env) (amount, error) {
	size := e.freshSize()
	return e.writePages("fresh", e.input.data(e.input.seedFor(e.round, kindFreshWritten), size/4), e.freshPages(size))
}

func checkFresh(e *env) error {
	size := e.freshSize()
	return e.checkPages("fresh", kindFresh, kindFreshWritten, size, e.freshPages(size))
}

func runFsync(e *env) (amount, error) {
	n := e.input.size(1000, 20)
	page := make([]byte, 4*kib)
	f, err := os.OpenFile(e.path("log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return amount{}, err
	}
	defer f.Close()
	seed := e.input.seedFor(e.round, kindAppend)
	for i := range n {
		if err := e.ctx.Err(); err != nil {
			return amount{}, err
		}
		// Other bytes each time, or all but the first would be duplicates. Making 4 KiB takes a
		// microsecond or two.
		fill(page, seed+uint64(i))
		if _, err := f.Write(page); err != nil {
			return amount{}, err
		}
		if err := f.Sync(); err != nil {
			return amount{}, err
		}
	}
	return amount{Bytes: int64(n) * 4 * kib, Ops: int64(n)}, f.Close()
}

func runRandomRead(e *env) (amount, error) {
	n := e.input.size(4096, 64)
	f, err := os.Open(e.path("seq"))
	if err != nil {
		return amount{}, err
	}
	defer f.Close()
	want := e.seq()
	page := make([]byte, 4*kib)
	for _, off := range e.pages(kindSeq, len(want), n) {
		if err := e.ctx.Err(); err != nil {
			return amount{}, err
		}
		if _, err := f.ReadAt(page, off); err != nil {
			return amount{}, err
		}
		// Compared within the time, as it costs next to nothing beside a cold read.
		if !bytes.Equal(page, want[off:off+4*kib]) {
			return amount{}, fmt.Errorf("wrong bytes at offset %d", off)
		}
	}
	return amount{Bytes: int64(n) * 4 * kib, Ops: int64(n)}, f.Close()
}
