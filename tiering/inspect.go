package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// A Claim is what is known of a segment that has something in it.
type Claim struct {
	Number uint64
	End    int64     // of the last record that was made durable
	Salt   uint64    // of its header, by which it is known; 0: not noted yet
	Seen   time.Time // when the file was last written to as the salt was found right; zero: never
}

// A Fault is a segment's file that is not what it must be.
type Fault struct {
	File string // without its directory
	What string // is wrong
}

// inspectors is how many segments are looked at at a time.
const inspectors = 8

// Inspect looks whether the segments of the claims are in dir, without changing anything. It
// returns what the claims are now, those that say something new only, and the first fault that it
// finds. A file that is as it was seen before is not opened. Damage inside of a segment is not
// looked for: scrub does that.
func Inspect(d disk.FS, dir string, claims []Claim) (news []Claim, fault *Fault, err error) {
	files, err := d.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	there := make(map[uint64]disk.Info)
	for _, f := range files {
		n, state, ok := segment.ParseName(f.Name)
		if !ok || state == segment.Trash {
			continue
		}
		if other, ok := there[n]; ok {
			return nil, &Fault{other.Name, "is there, and so is " + f.Name}, nil
		}
		there[n] = f
	}
	next := make(chan Claim)
	var found struct {
		sync.Mutex
		news  []Claim
		fault *Fault
		err   error
	}
	var wg sync.WaitGroup
	for range min(inspectors, len(claims)) {
		wg.Go(func() {
			for c := range next {
				f, ok := there[c.Number]
				now, fault, err := inspectOne(d, dir, f, ok, c)
				found.Lock()
				if found.fault == nil || fault != nil && fault.File < found.fault.File {
					found.fault = fault
				}
				found.err = errors.Join(found.err, err)
				if now != c {
					found.news = append(found.news, now)
				}
				found.Unlock()
			}
		})
	}
	for _, c := range claims {
		next <- c
	}
	close(next)
	wg.Wait()
	return found.news, found.fault, found.err
}

func inspectOne(d disk.FS, dir string, f disk.Info, ok bool, c Claim) (Claim, *Fault, error) {
	switch {
	case !ok:
		return c, &Fault{segment.Name(c.Number, segment.Sealed), "is missing, and so is " + segment.Name(c.Number, segment.Open)}, nil
	case f.Size < c.End:
		return c, &Fault{f.Name, fmt.Sprintf("was cut, or is an older one: it has %d bytes, and there were records up to %d", f.Size, c.End)}, nil
	case c.Salt != 0 && !c.Seen.IsZero() && f.Modified.Equal(c.Seen):
		return c, nil, nil
	}
	file, err := d.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return c, nil, err
	}
	h, err := readFileHeader(file, c.Number)
	if err == nil && (c.Salt == 0 || h.Salt == c.Salt) {
		c.Salt, c.Seen = h.Salt, f.Modified
		return c, nil, file.Close()
	}
	footer, known := headerInFooter(file, c.Number)
	_ = file.Close() // nothing was written
	switch {
	case known && (c.Salt == 0 || footer.Salt == c.Salt):
		return c, nil, nil // a damaged header, which scrub reports
	case err == nil || known:
		return c, &Fault{f.Name, "is of another store"}, nil
	case errors.Is(err, ErrCorrupt):
		return c, nil, nil // damaged as well, but no other's
	}
	return c, nil, err
}

// Salt is what a segment is known by; 0: it cannot be read.
func (s *Set) Salt(number uint64) uint64 {
	t, err := s.holder(number)
	if err != nil {
		return 0
	}
	h, err := t.table.acquire(number)
	if err != nil {
		return 0
	}
	salt := h.header.Salt
	_ = h.release() // it stays open for others
	return salt
}

// IsSegment reports whether a file of this name is a segment.
func IsSegment(name string) bool {
	_, state, ok := segment.ParseName(name)
	return ok && state != segment.Trash
}
