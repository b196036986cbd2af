package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/tiering/also"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

// An Owner is a store's directory, which may change a cold tier. A copy of the store has the tier's
// name in it as well: what it appended or removed there would be missed by the other one.
type Owner struct {
	ID   string // the same as long as the directory is the same, wherever it is renamed to; "": nobody asks
	Path string // where it was, for people
}

// OwnerName is the file in a cold tier's directory that says which store owns it.
const OwnerName = "quarxfs-tier.owner"

const (
	ownerMagic = "quarxfs cold tier's owner, version 1\n"
	ownerMost  = 32 << 10 // the longest path, each byte of it as \x00, and more
)

// IsOther reports whether o is known to be another one than me.
func (o Owner) IsOther(me Owner) bool { return o.ID != "" && me.ID != "" && o.ID != me.ID }

func (o Owner) encode() []byte { return fmt.Appendf(nil, "%s%s\n%q\n", ownerMagic, o.ID, o.Path) }

// OwnerOf returns whose a cold tier is; none: nobody has said so yet. What does not read is
// somebody's all the same.
func OwnerOf(d disk.FS, dir string) (Owner, error) {
	f, err := d.Open(filepath.Join(dir, OwnerName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Owner{}, nil
	case errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrPermission):
		return unknownOwner, nil
	}
	if err != nil {
		return Owner{}, err
	}
	defer f.Close() // nothing was written
	size, err := f.Size()
	if err != nil {
		return Owner{}, err
	}
	b := make([]byte, min(size, ownerMost))
	if _, err := f.ReadAt(b, 0); err != nil {
		return Owner{}, err
	}
	text, ok := strings.CutPrefix(string(b), ownerMagic)
	id, rest, _ := strings.Cut(text, "\n")
	o := Owner{ID: id}
	_, err = fmt.Sscanf(rest, "%q", &o.Path)
	if !ok || err != nil || string(o.encode()) != string(b) {
		return unknownOwner, nil
	}
	return o, nil
}

var unknownOwner = Owner{ID: "?", Path: "?"}

// own makes the tier o's. A crash may leave it nobody's.
func own(d disk.FS, dir string, o Owner) error {
	name := filepath.Join(dir, OwnerName)
	// An object is written once, and what a crash left is in the way.
	for _, old := range []string{name, name + ".new"} {
		if err := d.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeWhole(d, dir, OwnerName, o.encode())
}

// foreign refuses a change of a tier that is another store's. It is ErrForeign, and ErrUnavailable:
// for what would change it the tier is out of reach.
func foreign(owner Owner) error {
	return also.Is(fmt.Errorf("%w: it belongs to the store that was at %q, and this one is a copy, or was put back from one;"+
		" quarxfs tier relocate STORE cold DIR, with the same or another DIR, makes it this one's", ErrForeign, owner.Path), ErrUnavailable)
}

// claim finds out whether the tier may be changed here, and says so in it where nobody has yet. The
// error is ErrForeign, or that of the disk.
func (c *coldTier) claim(d disk.FS) error {
	me := c.cold.Owner
	if me.ID == "" {
		return nil
	}
	o, err := OwnerOf(d, c.cold.Dir)
	switch {
	case err != nil || o.ID == me.ID:
		return err
	case o.IsOther(me) && !c.cold.Take:
		return foreign(o)
	case c.opts.ReadOnly:
		return nil // nothing is changed, and so it stays nobody's
	}
	c.cold.Take = false // once: it may be given to another one meanwhile
	err = own(d, c.cold.Dir, me)
	if err != nil && o.ID == "" {
		// It may be full, or read-only by now: what is in it can be read all the same. One that is
		// gone is noticed when it is opened.
		c.log.Warn("cannot note whose the cold tier is", "dir", c.cold.Dir, "err", err)
		err = nil
	}
	return err
}
