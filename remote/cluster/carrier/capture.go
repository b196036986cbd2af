package carrier

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// A Capture is the disk of a store whose files are to be mirrored. It passes everything on and
// notes what was done, in order. Bytes are not kept: they are read again when they are sent, mostly
// from the page cache. What has changed since then is noted once more, behind it.
//
// Lock: mu, which is held over the rename of a file and no other call.
type Capture struct {
	disk.FS
	root string

	mu struct {
		sync.Mutex
		noted []noted
		first uint64 // the number of noted[0]
		given uint64 // what is below it was given out, and may not grow any more
		files map[string]*captured
	}
}

// A noted change is of a file of which the bytes are still where they were written.
type noted struct {
	kind kind
	path string // below root, as it was then
	to   string
	file *captured
	from int64 // of a write
	end  int64 // of a write; the size of a truncation
}

// A captured file keeps its identity when it is renamed.
type captured struct {
	path string // now, from the root of the system on; empty: it was removed. Capture.mu guards it.
}

// mostNoted bounds what is kept between two commits, and for a copy that takes long: some 5 MB. A
// copy that lacks what was dropped is begun anew.
const mostNoted = 1 << 16

var errBehind = errors.New("too much has changed meanwhile")

// NewCapture is of the store in the directory root.
func NewCapture(on disk.FS, root string) *Capture {
	c := &Capture{FS: on, root: filepath.Clean(root)}
	c.mu.files = make(map[string]*captured)
	return c
}

// below is a path as the copies know it.
func (c *Capture) below(path string) (string, error) {
	rel, err := filepath.Rel(c.root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "", fmt.Errorf("%s: a mirrored volume has all its segments in its own directory", path)
	}
	return filepath.ToSlash(rel), nil
}

// file returns the file at a path, which is made known. The caller holds mu.
func (c *Capture) file(path string) *captured {
	f := c.mu.files[path]
	if f == nil {
		f = &captured{path: path}
		c.mu.files[path] = f
	}
	return f
}

// note adds a change. The caller holds mu.
func (c *Capture) note(n noted) {
	if last := len(c.mu.noted) - 1; last >= 0 && n.kind == kindWrite && c.mu.first+uint64(last) >= c.mu.given {
		// Most writes append to what was written last.
		if p := &c.mu.noted[last]; p.kind == kindWrite && p.file == n.file && p.end == n.from {
			p.end = n.end
			return
		}
	}
	// Here, and not with the next commit: a disk that is written to for long without one would fill
	// the memory. Half of it at once, since what stays is moved each time.
	if len(c.mu.noted) >= mostNoted {
		c.drop(mostNoted / 2)
	}
	c.mu.noted = append(c.mu.noted, n)
}

// drop forgets the n oldest. The caller holds mu.
func (c *Capture) drop(n int) {
	c.mu.noted = slices.Delete(c.mu.noted, 0, n)
	c.mu.first += uint64(n)
}

// Create makes a file, which copies then make, too.
func (c *Capture) Create(path string) (disk.File, error) {
	rel, err := c.below(path)
	if err != nil {
		return nil, err
	}
	f, err := c.FS.Create(path)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.files, path) // another one that was removed beneath the store
	of := c.file(path)
	c.note(noted{kind: kindMake, path: rel, file: of})
	return &capturedFile{f, c, of}, nil
}

// Open opens a file that is there.
func (c *Capture) Open(path string) (disk.File, error) {
	if _, err := c.below(path); err != nil {
		return nil, err
	}
	f, err := c.FS.Open(path)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &capturedFile{f, c, c.file(path)}, nil
}

// Rename gives a file another name.
func (c *Capture) Rename(from, to string) error {
	relFrom, err1 := c.below(from)
	relTo, err2 := c.below(to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	// Held over the call: whoever reads the file meanwhile finds it under one name or the other.
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.FS.Rename(from, to); err != nil {
		return err
	}
	f := c.file(from)
	delete(c.mu.files, from)
	if over := c.mu.files[to]; over != nil {
		over.path = ""
	}
	f.path = to
	c.mu.files[to] = f
	c.note(noted{kind: kindRename, path: relFrom, to: relTo, file: f})
	return nil
}

// Remove removes a file.
func (c *Capture) Remove(path string) error {
	rel, err := c.below(path)
	if err != nil {
		return err
	}
	if err := c.FS.Remove(path); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.file(path)
	delete(c.mu.files, path)
	f.path = ""
	c.note(noted{kind: kindRemove, path: rel, file: f})
	return nil
}

// mark is a place between two changes: what is noted from now on is behind it.
func (c *Capture) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.given = c.mu.first + uint64(len(c.mu.noted))
	return c.mu.given
}

// since returns what was noted behind a mark, and the mark behind that.
func (c *Capture) since(mark uint64) ([]noted, uint64, error) {
	next := c.mark()
	c.mu.Lock()
	defer c.mu.Unlock()
	if mark < c.mu.first {
		return nil, 0, errBehind
	}
	return slices.Clone(c.mu.noted[mark-c.mu.first : next-c.mu.first]), next, nil
}

// forget drops what is before the oldest mark that somebody has.
func (c *Capture) forget(oldest uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if oldest > c.mu.first {
		c.drop(int(min(oldest-c.mu.first, uint64(len(c.mu.noted)))))
	}
}

// path returns where a file is now; empty: it was removed.
func (c *Capture) path(f *captured) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.path
}

// read opens a file where it is now. nil: it was removed.
func (c *Capture) read(f *captured) (disk.File, error) {
	for {
		p := c.path(f)
		if p == "" {
			return nil, nil
		}
		r, err := c.FS.Open(p)
		if errors.Is(err, fs.ErrNotExist) && c.path(f) != p {
			continue // it was renamed or removed meanwhile
		}
		return r, err
	}
}

// send sends a change with its bytes, as they are now. What a removed file had no copy needs: its
// removal comes next.
func (c *Capture) send(to *stream, n noted) (err error) {
	one := change{kind: n.kind, path: n.path, to: n.to, offset: n.end}
	if n.kind != kindWrite {
		return to.send(one.kind, one.encode(nil))
	}
	r, err := c.read(n.file)
	if err != nil || r == nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return sendBytes(to, n.path, r, n.from, n.end)
}

// sendBytes sends a range of a file, up to its end.
func sendBytes(to *stream, path string, r disk.File, from, end int64) error {
	buf := make([]byte, min(maxPart, end-from))
	for from < end {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), end-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return nil // it was cut since, which is noted, too
		}
		one := change{kind: kindWrite, path: path, offset: from}
		if err := to.send(kindWrite, one.encode(nil), buf[:n]); err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// A capturedFile notes what is written to it.
type capturedFile struct {
	disk.File
	c  *Capture
	of *captured
}

func (f *capturedFile) wrote(from, n int64) {
	if n == 0 {
		return
	}
	f.noteAs(kindWrite, from, from+n)
}

func (f *capturedFile) noteAs(k kind, from, end int64) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.of.path == "" {
		return
	}
	rel, err := f.c.below(f.of.path)
	if err == nil { // it was opened by that name
		f.c.note(noted{kind: k, path: rel, file: f.of, from: from, end: end})
	}
}

func (f *capturedFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	f.wrote(off, int64(n))
	return n, err
}

func (f *capturedFile) WritePairAt(head, body []byte, off int64) error {
	err := f.File.WritePairAt(head, body, off)
	// After an error as well: some of it may be there, and nobody refers to it.
	f.wrote(off, int64(len(head)+len(body)))
	return err
}

func (f *capturedFile) Truncate(size int64) error {
	err := f.File.Truncate(size)
	if err == nil {
		f.noteAs(kindTruncate, 0, size)
	}
	return err
}
