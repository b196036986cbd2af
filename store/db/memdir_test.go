package db

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"sync"
)

// memDir is a logDir in memory that knows what is durable.
type memDir struct {
	mu      sync.Mutex // held by all operations, and so while before runs
	names   map[string]*memFile
	durable map[string]*memFile
	// before is called before each operation that changes or syncs something,
	// writes being noted as pending already. Its error fails the operation.
	before func(op string) error
}

type memFile struct {
	dir     *memDir
	data    []byte
	durable []byte
	pending []pendingOp
}

// pendingOp is a write, or a change of the size.
type pendingOp struct {
	off  int64
	data []byte
	size int64 // if data is nil
}

func newMemDir() *memDir {
	return &memDir{names: make(map[string]*memFile), durable: make(map[string]*memFile)}
}

// watch sets before.
func (m *memDir) watch(before func(op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

func (m *memDir) call(op string) error {
	if m.before == nil {
		return nil
	}
	return m.before(op)
}

func (m *memDir) open(name string) (logDevice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (m *memDir) create(name string) (logDevice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("create"); err != nil {
		return nil, err
	}
	m.names[name+tmpExt] = &memFile{dir: m}
	return m.names[name+tmpExt], nil
}

func (m *memDir) finish(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("rename"); err != nil {
		return err
	}
	m.names[name] = m.names[name+tmpExt]
	delete(m.names, name+tmpExt)
	return nil
}

func (m *memDir) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("syncdir"); err != nil {
		return err
	}
	m.durable = maps.Clone(m.names)
	return nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) size() (int64, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	op := pendingOp{off: off, data: append([]byte{}, b...)}
	f.pending = append(f.pending, op)
	f.data = op.apply(f.data)
	if err := f.dir.call("write"); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *memFile) resize(name string, size int64) error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.call(name); err != nil {
		return err
	}
	op := pendingOp{size: size}
	f.pending = append(f.pending, op)
	f.data = op.apply(f.data)
	return nil
}

func (f *memFile) allocate(end int64) error {
	size, _ := f.size()
	return f.resize("allocate", max(end, size))
}

func (f *memFile) truncate(size int64) error { return f.resize("truncate", size) }

// sync loses a part of what was written if it fails, and the cache says
// otherwise, as on Linux.
func (f *memFile) sync() error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.call("sync"); err != nil {
		f.durable = f.image(rand.New(rand.NewPCG(uint64(len(f.pending)), 1)), 0.5)
		f.pending = nil
		return err
	}
	for _, op := range f.pending {
		f.durable = op.apply(f.durable)
	}
	f.pending = nil
	return nil
}

func (op pendingOp) apply(data []byte) []byte {
	end := op.size
	if op.data != nil {
		end = max(int64(len(data)), op.off+int64(len(op.data)))
	}
	if end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[op.off:], op.data)
	return data[:end]
}

const sector = 512

// image is what a power cut leaves: each sector not synced with probability p.
func (f *memFile) image(rng *rand.Rand, p float64) []byte {
	data := append([]byte(nil), f.durable...)
	for _, op := range f.pending {
		if op.data == nil {
			if rng.Float64() < p {
				data = op.apply(data)
			}
			continue
		}
		for at := 0; at < len(op.data); at += sector {
			if rng.Float64() < p {
				part := pendingOp{off: op.off + int64(at), data: op.data[at:min(at+sector, len(op.data))]}
				data = part.apply(data)
			}
		}
	}
	return data
}

// cut returns the directory after a power cut. The caller holds mu, or is alone.
func (m *memDir) cut(rng *rand.Rand, p float64) *memDir {
	to := newMemDir()
	names := m.durable
	if rng.Float64() < p {
		names = m.names
	}
	for name, f := range names {
		data := f.image(rng, p)
		to.names[name] = &memFile{dir: to, data: data, durable: append([]byte(nil), data...)}
	}
	to.durable = maps.Clone(to.names)
	return to
}

var errDisk = errors.New("disk failed")
