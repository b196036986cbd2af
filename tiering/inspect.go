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

func (f *Fault) Error() string { return f.File + " " + f.What }

// An Inspection is what the files of a tier are found to be.
type Inspection struct {
	News   []Claim // what claims are now, those that say something new only
	Faults []Fault // in order of their files
	// Commits is how many commits there were, as the segments' stamps say, and Newest the file that
	// says so. 0: none has a stamp, of those that were looked at.
	Commits uint64
	Newest  string
	// Foreign is the file of a claim that belongs to another volume, as its stamp says; "": none.
	Foreign string
	volume  [16]byte
	there   map[uint64]disk.Info
}

// inspectors is how many segments are looked at at a time.
const inspectors = 8

// Inspect looks whether the segments of the claims are in dir, without changing anything. A sealed
// file that is as it was seen before is not opened; all others are asked for their stamps, also
// those that no claim is about. Stamps of another volume say nothing. Damage inside of a segment is
// not looked for: scrub does that.
func Inspect(d disk.FS, dir string, volume [16]byte, claims []Claim) (*Inspection, error) {
	in, err := listSegments(d, dir)
	if err != nil {
		return nil, err
	}
	in.volume = volume
	return in, in.look(d, dir, claims, true)
}

// listSegments finds what segments are in dir.
func listSegments(d disk.FS, dir string) (*Inspection, error) {
	in := &Inspection{there: make(map[uint64]disk.Info)}
	files, err := d.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// One listing for all: a look at each file by name would be a request each in a bucket.
	for _, f := range files {
		n, state, ok := segment.ParseName(f.Name)
		if !ok || state == segment.Trash {
			continue
		}
		// Sealing renames, so a segment has one name; two are copies that somebody put there.
		if other, ok := in.there[n]; ok {
			in.Faults = append(in.Faults, Fault{n, other.Name, "is there, and so is " + f.Name, false})
		}
		in.there[n] = f
	}
	return in, nil
}

// look looks at the files of the claims and, if asked to, at all others.
func (in *Inspection) look(d disk.FS, dir string, claims []Claim, others bool) error {
	var mu sync.Mutex // guards in
	var looks errgroup.Group
	looks.SetLimit(inspectors)
	claimed := make(map[uint64]bool, len(claims))
	for _, c := range claims {
		claimed[c.Number] = true
		looks.Go(func() error {
			f, ok := in.there[c.Number]
			l, err := inspectOne(d, dir, f, ok, c)
			mu.Lock()
			defer mu.Unlock()
			in.add(f.Name, c, l)
			return err
		})
	}
	for n, f := range in.there {
		if claimed[n] || !others {
			continue
		}
		looks.Go(func() error {
			// Nothing is needed of it, so what cannot be read of it is no fault.
			l, _ := inspectOne(d, dir, f, true, Claim{Number: n})
			mu.Lock()
			defer mu.Unlock()
			in.stamped(f.Name, l.stamp)
			return nil
		})
	}
	err := looks.Wait()
	// The goroutines end in any order, and the first fault is what an error says.
	slices.SortFunc(in.Faults, func(a, b Fault) int { return strings.Compare(a.File, b.File) })
	return err
}

// add notes what the look at a claim's file found.
func (in *Inspection) add(file string, c Claim, l look) {
	if l.fault != nil {
		in.Faults = append(in.Faults, *l.fault)
	}
	// Only what has changed is written to the database.
	if l.claim != c {
		in.News = append(in.News, l.claim)
	}
	in.stamped(file, l.stamp)
	if l.fault == nil && l.stamp != (Stamp{}) && l.stamp.Volume != in.volume && (in.Foreign == "" || file < in.Foreign) {
		in.Foreign = file
	}
}

// stamped notes what a file's stamp says. Of equal ones the first file is told, so that an error
// says the same each time.
func (in *Inspection) stamped(file string, s Stamp) {
	if s.Volume == in.volume && (s.Commits > in.Commits || s.Commits == in.Commits && file < in.Newest) {
		in.Commits, in.Newest = s.Commits, file
	}
}

// A look is what the file of one claim is found to be.
type look struct {
	claim Claim // as it is now
	fault *Fault
	stamp Stamp // the last one, if the file was opened
}

func inspectOne(d disk.FS, dir string, f disk.Info, ok bool, c Claim) (look, error) {
	l := look{claim: c}
	_, state, _ := segment.ParseName(f.Name)
	switch {
	case !ok:
		l.fault = &Fault{c.Number, segment.Name(c.Number, segment.Sealed), "is missing, and so is " + segment.Name(c.Number, segment.Open), true}
		return l, nil
	case f.Size < c.End:
		l.fault = &Fault{c.Number, f.Name, fmt.Sprintf("was cut, or is an older one: it has %d bytes, and there were records up to %d", f.Size, c.End), true}
		return l, nil
	case state == segment.Sealed && c.Salt != 0 && !c.Seen.IsZero() && f.Modified.Equal(c.Seen):
		return l, nil
	}
	file, err := d.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return l, err
	}
	defer file.Close() // nothing was written
	h, err := readFileHeader(file, c.Number)
	if err == nil && (c.Salt == 0 || h.Salt == c.Salt) {
		l.claim.Salt, l.claim.Seen = h.Salt, f.Modified
		l.stamp, err = segment.LastStamp(file, h, f.Size)
		return l, err
	}
	footer, known := headerInFooter(file, c.Number)
	switch {
	case known && (c.Salt == 0 || footer.Salt == c.Salt):
		l.stamp, _ = segment.LastStamp(file, footer, f.Size)
		return l, nil // a damaged header, which scrub reports
	case err == nil || known:
		l.fault = &Fault{c.Number, f.Name, "is of another store", false}
		return l, nil
	case errors.Is(err, ErrCorrupt):
		return l, nil // damaged as well, but no other's
	}
	return l, err
}

// inspectFaults is Inspect without a look at what no claim is about, nor, in a remote tier, at
// files that are there twice: what was uploaded is in the spool until that is durable.
func inspectFaults(d disk.FS, dir string, claims []Claim, remote bool) ([]Fault, error) {
	in, err := listSegments(d, dir)
	if err == nil {
		err = in.look(d, dir, claims, false)
	}
	if err != nil {
		return nil, err
	}
	if remote {
		in.Faults = slices.DeleteFunc(in.Faults, func(f Fault) bool { return !f.Lost })
	}
	return in.Faults, nil
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
		faults, err = inspectFaults(t.fs, t.dir, claims, t.remote)
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
