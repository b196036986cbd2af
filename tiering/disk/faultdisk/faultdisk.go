// Package faultdisk is a disk in memory that records what is done to it, fails
// what it is told to fail, and can be crashed at any moment.
//
// It keeps two states: what the running program sees, and what would survive a
// power loss. File bytes get from the first to the second by Datasync, names by
// SyncDir. A crash image has all of the second, and of the rest what chance
// has it: each write since the last sync kept, lost or torn between sectors,
// each change of a name made or not.
package faultdisk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// Sector is the unit in which a write may be torn.
const Sector = 512

// An Op is one operation, as the trace shows it and Fail decides on it.
type Op struct {
	N    int    // counts all operations from 0
	Name string // create, open, write, read, datasync, truncate, rename, remove, syncdir, list
	Path string // of a rename, the old one
	To   string // of a rename
	Off  int64
	Len  int64
}

// String shows all but N.
func (o Op) String() string {
	base := filepath.Base(o.Path)
	switch o.Name {
	case "write", "read":
		return fmt.Sprintf("%s %s %d+%d", o.Name, base, o.Off, o.Len)
	case "truncate":
		return fmt.Sprintf("%s %s %d", o.Name, base, o.Len)
	case "rename":
		return fmt.Sprintf("%s %s %s", o.Name, base, filepath.Base(o.To))
	}
	return o.Name + " " + base
}

// A Disk is a disk.FS.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*inode // what the program sees
	durable map[string]*inode
	changes []change // of names, since their SyncDir
	ops     int
	fail    func(Op) error
	trace   func(Op)
}

// A change of names: from is gone, to (if any) is node.
type change struct {
	from, to string
	node     *inode
}

type inode struct {
	data    []byte
	durable []byte
	pending []pending // since the last Datasync, in order
}

// pending is a write, or a truncation if data is nil.
type pending struct {
	off  int64
	data []byte
}

// New returns an empty disk.
func New() *Disk {
	return &Disk{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// Fail has f decide on each operation from now on: if it returns an error, that
// is the operation's, and nothing is done but, for a write, a part of it.
func (d *Disk) Fail(f func(Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// FailNth returns a function for Fail that fails the nth (from 0) of the
// operations that match, once, and tells whether it came to that.
func FailNth(n int, err error, match func(Op) bool) (fail func(Op) error, fired func() bool) {
	seen := -1
	fail = func(op Op) error {
		if !match(op) {
			return nil
		}
		if seen++; seen == n {
			return err
		}
		return nil
	}
	return fail, func() bool { return seen >= n }
}

// Trace has f called for each operation from now on, before it is done.
func (d *Disk) Trace(f func(Op)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace = f
}

// Ops returns how many operations there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Crash returns the disk as it may be after a power loss now. The disk itself
// goes on undisturbed.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Some crashes lose all that is not synced, some nothing, most a part.
	keep := []float64{0, 0.5, 0.9, 1}[rng.IntN(4)]
	names := maps.Clone(d.durable)
	for _, c := range d.changes {
		if rng.Float64() < keep {
			c.apply(names)
		}
	}
	image := New()
	images := map[*inode]*inode{}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		node := names[path]
		if images[node] == nil {
			data := node.crash(rng, keep)
			images[node] = &inode{data: data, durable: slices.Clone(data)}
		}
		image.names[path] = images[node]
		image.durable[path] = images[node]
	}
	return image
}

// Copy returns a disk that has all that a program sees on this one, durably.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	image := New()
	for path, node := range d.names {
		copied := &inode{data: slices.Clone(node.data), durable: slices.Clone(node.data)}
		image.names[path], image.durable[path] = copied, copied
	}
	return image
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" {
		if c.to != "" && names[c.from] == nil {
			return // a rename whose source never got there
		}
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

func (n *inode) crash(rng *rand.Rand, keep float64) []byte {
	data := slices.Clone(n.durable)
	for _, p := range n.pending {
		switch {
		case p.data == nil:
			if rng.Float64() < keep {
				data = resize(data, p.off)
			}
		case rng.Float64() < keep:
			data = put(data, p.data, p.off)
		default:
			data = tear(rng, data, p)
		}
	}
	return data
}

// tear puts a random choice of a write's sectors.
func tear(rng *rand.Rand, data []byte, p pending) []byte {
	mode := rng.IntN(3)
	for start := int64(0); start < int64(len(p.data)); {
		end := min(int64(len(p.data)), (p.off+start)/Sector*Sector+Sector-p.off)
		if mode == 1 && rng.IntN(2) == 0 {
			data = put(data, p.data[start:end], p.off+start)
		}
		if mode == 2 && rng.IntN(8) == 0 { // a prefix
			break
		}
		if mode == 2 {
			data = put(data, p.data[start:end], p.off+start)
		}
		start = end
	}
	return data
}

func put(data, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[off:], p)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

// begin counts an operation and asks whether it is to fail. The caller holds mu.
func (d *Disk) begin(op Op) error {
	op.N = d.ops
	d.ops++
	if d.trace != nil {
		d.trace(op)
	}
	if d.fail != nil {
		if err := d.fail(op); err != nil {
			return &fs.PathError{Op: op.Name, Path: op.Path, Err: err}
		}
	}
	return nil
}

// MkdirAll does nothing: directories are but prefixes of names.
func (d *Disk) MkdirAll(string) error { return nil }

// List implements disk.FS.
func (d *Disk) List(dir string) ([]disk.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "list", Path: dir}); err != nil {
		return nil, err
	}
	var infos []disk.Info
	for _, path := range slices.Sorted(maps.Keys(d.names)) {
		if filepath.Dir(path) == filepath.Clean(dir) {
			infos = append(infos, disk.Info{Name: filepath.Base(path), Size: int64(len(d.names[path].data))})
		}
	}
	return infos, nil
}

// Create implements disk.FS.
func (d *Disk) Create(path string) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "create", Path: path}); err != nil {
		return nil, err
	}
	if d.names[path] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	n := &inode{}
	d.change(change{to: path, node: n})
	return &file{disk: d, node: n, path: path}, nil
}

// Open implements disk.FS.
func (d *Disk) Open(path string) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "open", Path: path}); err != nil {
		return nil, err
	}
	n := d.names[path]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return &file{disk: d, node: n, path: path}, nil
}

// Rename implements disk.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "rename", Path: from, To: to}); err != nil {
		return err
	}
	n := d.names[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	d.change(change{from: from, to: to, node: n})
	return nil
}

// Remove implements disk.FS.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "remove", Path: path}); err != nil {
		return err
	}
	if d.names[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	d.change(change{from: path})
	return nil
}

func (d *Disk) change(c change) {
	c.apply(d.names)
	d.changes = append(d.changes, c)
}

// SyncDir implements disk.FS.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(Op{Name: "syncdir", Path: dir}); err != nil {
		return err
	}
	prefix := filepath.Clean(dir) + string(filepath.Separator)
	d.changes = slices.DeleteFunc(d.changes, func(c change) bool {
		if !strings.HasPrefix(c.from, prefix) && !strings.HasPrefix(c.to, prefix) {
			return false
		}
		c.apply(d.durable)
		return true
	})
	return nil
}

type file struct {
	disk   *Disk
	node   *inode
	path   string
	closed bool
}

var errClosed = errors.New("file is closed")

func (f *file) begin(op Op) error {
	if f.closed {
		return &fs.PathError{Op: op.Name, Path: f.path, Err: errClosed}
	}
	op.Path = f.path
	return f.disk.begin(op)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin(Op{Name: "read", Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	return len(p), f.write(slices.Clone(p), off)
}

func (f *file) WritePairAt(head, body []byte, off int64) error {
	return f.write(slices.Concat(head, body), off)
}

func (f *file) write(p []byte, off int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.begin(Op{Name: "write", Off: off, Len: int64(len(p))})
	if err != nil {
		p = p[:len(p)/2]
	}
	if len(p) > 0 {
		f.node.data = put(f.node.data, p, off)
		f.node.pending = append(f.node.pending, pending{off: off, data: p})
	}
	return err
}

func (f *file) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *file) Named(path string) (bool, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.disk.names[path] == f.node, nil
}

func (f *file) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin(Op{Name: "truncate", Len: size}); err != nil {
		return err
	}
	f.node.data = resize(f.node.data, size)
	f.node.pending = append(f.node.pending, pending{off: size})
	return nil
}

// Datasync implements disk.File. As on Linux, after a failure the next one may
// succeed though what the failed one should have written is lost.
func (f *file) Datasync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin(Op{Name: "datasync"}); err != nil {
		f.node.pending = nil
		return err
	}
	for _, p := range f.node.pending {
		if p.data == nil {
			f.node.durable = resize(f.node.durable, p.off)
		} else {
			f.node.durable = put(f.node.durable, p.data, p.off)
		}
	}
	f.node.pending = nil
	return nil
}

// Preallocate is not supported here, as on some file systems.
func (f *file) Preallocate(int64) error { return syscall.EOPNOTSUPP }

// WriteBack does nothing: it promises nothing.
func (f *file) WriteBack(int64, int64) error { return nil }

func (f *file) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.path, Err: errClosed}
	}
	f.closed = true
	return nil
}

var _ disk.FS = (*Disk)(nil)
