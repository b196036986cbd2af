package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
	Number uint64
	File   string // without its directory
	What   string // is wrong
	Lost   bool   // it is gone, or its end is: nobody has to choose between files
}

// inspectors is how many segments are looked at at a time.
const inspectors = 8

// Inspect looks whether the segments of the claims are in dir, without changing anything. It
// returns what the claims are now, those that say something new only, and all faults in order of
// their files. A file that is as it was seen before is not opened. Damage inside of a segment is
// not looked for: scrub does that.
func Inspect(d disk.FS, dir string, claims []Claim) (news []Claim, faults []Fault, err error) {
	files, err := d.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	// One listing for all: a look at each file by name would be a request each in a bucket.
	there := make(map[uint64]disk.Info)
	for _, f := range files {
		n, state, ok := segment.ParseName(f.Name)
		if !ok || state == segment.Trash {
			continue
		}
		// Sealing renames, so a segment has one name; two are copies that somebody put there.
		if other, ok := there[n]; ok {
			faults = append(faults, Fault{n, other.Name, "is there, and so is " + f.Name, false})
		}
		there[n] = f
	}
	var found struct {
		sync.Mutex
		news   []Claim
		faults []Fault
	}
	var looks errgroup.Group
	looks.SetLimit(inspectors)
	for _, c := range claims {
		looks.Go(func() error {
			f, ok := there[c.Number]
			now, fault, err := inspectOne(d, dir, f, ok, c)
			found.Lock()
			defer found.Unlock()
			if fault != nil {
				found.faults = append(found.faults, *fault)
			}
			// Only what has changed is written to the database.
			if now != c {
				found.news = append(found.news, now)
			}
			return err
		})
	}
	err = looks.Wait()
	faults = append(faults, found.faults...)
	// The goroutines end in any order, and the first fault is what an error says.
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.File, b.File) })
	return found.news, faults, err
}

func inspectOne(d disk.FS, dir string, f disk.Info, ok bool, c Claim) (Claim, *Fault, error) {
	switch {
	case !ok:
		return c, &Fault{c.Number, segment.Name(c.Number, segment.Sealed), "is missing, and so is " + segment.Name(c.Number, segment.Open), true}, nil
	case f.Size < c.End:
		return c, &Fault{c.Number, f.Name, fmt.Sprintf("was cut, or is an older one: it has %d bytes, and there were records up to %d", f.Size, c.End), true}, nil
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
		return c, &Fault{c.Number, f.Name, "is of another store", false}, nil
	case errors.Is(err, ErrCorrupt):
		return c, nil, nil // damaged as well, but no other's
	}
	return c, nil, err
}

// Inspect looks whether the segments of the claims are in a tier of theirs, as it is now: files
// may have been taken away beneath it. ErrNoTier; ErrUnavailable.
func (s *Set) Inspect(id uint8, claims []Claim) ([]Fault, error) {
	t, err := s.tier(id)
	if err != nil {
		return nil, err
	}
	// A segment that is being sealed has two names, one after the other: what is found once only
	// is no fault.
	var faults []Fault
	for range inspectTries {
		_, faults, err = Inspect(t.fs, t.dir, claims)
		if t.remote { // what was uploaded is in the spool until that is durable
			faults = slices.DeleteFunc(faults, func(f Fault) bool { return !f.Lost })
		}
		if err == nil && len(faults) == 0 {
			return nil, nil
		}
	}
	return faults, s.reached(t, err)
}

// inspectTries is how often a tier that is in use is looked at before a fault counts.
const inspectTries = 3

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
