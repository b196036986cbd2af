// Package fsck checks the rows of a store's namespace against each other and repairs them:
// Inspect finds what is wrong, Repair mends it and puts in lost+found what has no name.
// The store's own Check and Repair do the same for blocks.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store"
)

// A Finding is one thing that Inspect found wrong.
type Finding struct {
	Rule string   `json:"rule"`            // the invariant that is broken, I1 to I9; RuleRecord
	Ino  meta.Ino `json:"inode,omitempty"` // the inode concerned, or 0
	Path string   `json:"path,omitempty"`  // one of its paths from the root, without a leading slash; empty when no name leads to it
	What string   `json:"what"`
}

// RuleRecord is the rule that every row of the database can be decoded.
const RuleRecord = "record"

// Inspect compares the rows of the namespace with each other
// and with the index of blocks: I1 for the blocks that extents name, I3, I7 and
// the volume's counters. ref is called for every reference that an extent makes,
// so that the caller can check I4; report for everything that is wrong. Both may
// be nil. It looks at rows only, as of the last commit, and so works on a store at a standstill.
// A volume must be quiet: what changes meanwhile may be reported. It
// takes some 200 bytes of memory for each inode and each name.
func Inspect(ctx context.Context, st *store.Store, ref func(store.ID), report func(Finding)) error {
	ck := st.Chunker()
	c := &checker{
		st: st, db: st.DB(), span: meta.PageSpan(ck.Avg(), ck.Max()),
		ref: ref, report: report, inodes: make(map[meta.Ino]*tally),
	}
	// One pass: what one row says of an inode is compared with the rest only when all are seen.
	from, to := meta.Rows()
	err := c.db.Scan(from, to, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.row(key, value)
	})
	if err == nil {
		err = c.compare(ctx)
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// A checker counts what the rows say of each inode. Scan's order brings all
// directory entries before anything else that has an inode, so that findings
// can be given with paths at once.
type checker struct {
	st     *store.Store
	db     *meta.DB
	span   int64
	ref    func(store.ID)
	report func(Finding)
	inodes map[meta.Ino]*tally
	counts meta.Counters
	number uint64 // the largest inode number or position in use
}

func (c *checker) note(n uint64) { c.number = max(c.number, n) }

// A tally is what the rows say of one inode.
type tally struct {
	attr    *meta.Inode // nil: it has no record
	orphan  bool
	links   uint32   // entries that lead to it
	parent  meta.Ino // directory of the last such entry
	name    string   // and the name there
	typ     uint32   // and the type there
	pos     uint64   // and where that is in the directory
	entries int64    // of a directory: entries in it
	names   int64    // rows that lead from a name to an entry
	subdirs uint32
	xattrs  uint32
	alloc   int64
	written int64 // bytes of alloc in reserved blocks
	end     int64 // of the extent before
	staged  int64 // end of the last staged byte
}

func (c *checker) at(ino meta.Ino) *tally {
	t, ok := c.inodes[ino]
	if !ok {
		t = &tally{}
		c.inodes[ino] = t
	}
	return t
}

func (c *checker) found(rule string, ino meta.Ino, format string, args ...any) {
	if c.report != nil {
		c.report(Finding{rule, ino, c.path(ino), fmt.Sprintf(format, args...)})
	}
}

// path returns a path that leads to an inode, from the root, or "" when there
// is none.
func (c *checker) path(ino meta.Ino) string {
	path := ""
	// Bounded, as a damaged tree may lead in a circle.
	for range syscall.PathMax {
		t, ok := c.inodes[ino]
		if ino == meta.Root || !ok || t.links == 0 {
			break
		}
		if path != "" {
			path = "/" + path
		}
		path = t.name + path
		ino = t.parent
	}
	if ino != meta.Root {
		return ""
	}
	return path
}

// removed reports whether an inode is below a directory that was removed as a
// whole and that the reaper has not yet come to.
func (c *checker) removed(ino meta.Ino) bool {
	for range syscall.PathMax {
		t, ok := c.inodes[ino]
		switch {
		case !ok || ino == meta.Root:
			return false
		case t.orphan:
			return true
		}
		ino = t.parent
	}
	return false
}

func (c *checker) row(key, value []byte) error {
	kind := meta.KindOf(key)
	switch kind {
	case meta.KindCounters:
		counts, err := meta.DecodeCounters(value)
		c.counts = counts
		return c.decoded(0, err)
	case meta.KindTouched, meta.KindGone, meta.KindTree, meta.KindTrack:
		return c.decoded(0, meta.CheckTracked(kind, key, value))
	}
	// All other kinds begin with an inode number.
	ino, err := meta.KeyIno(key)
	if err != nil {
		return c.decoded(0, err)
	}
	// The largest number in use: the counters must be behind it, or a number would be given out
	// twice.
	c.note(uint64(ino))
	switch kind {
	case meta.KindEntry:
		err = c.entry(ino, key, value)
	case meta.KindInode:
		var attr meta.Inode
		// A record that cannot be decoded leaves attr nil, and its other rows are told of as well.
		if attr, err = meta.DecodeInode(value); err == nil {
			c.at(ino).attr = &attr
			err = c.lazy(ino, &attr)
		}
	case meta.KindName:
		err = c.name(ino, key, value)
	case meta.KindOrphan:
		c.at(ino).orphan = true
	case meta.KindExtents:
		err = c.extents(ino, key, value)
	case meta.KindStaged:
		err = c.slot(ino, key, value)
	case meta.KindXattr:
		c.at(ino).xattrs++
	}
	return c.decoded(ino, err)
}

// decoded makes a finding of a row that cannot be decoded; another error ends
// the check.
func (c *checker) decoded(ino meta.Ino, err error) error {
	if !errors.Is(err, meta.ErrCorrupt) {
		return err
	}
	c.found(RuleRecord, ino, "%v", err)
	return nil
}

// lazy checks that what an inode is lazy of is there.
func (c *checker) lazy(ino meta.Ino, attr *meta.Inode) error {
	if !attr.IsLazy() {
		return nil
	}
	id := store.ID(attr.LazyID)
	if c.ref != nil {
		c.ref(id)
	}
	// The index alone: that the vertex can be read is the store's check.
	b, err := c.st.Lookup(id)
	switch typ := attr.Mode & syscall.S_IFMT; {
	case errors.Is(err, store.ErrNotFound):
		c.found("I1", ino, "what it holds is in block %s, which the store does not have", id)
	case errors.Is(err, store.ErrCorrupt):
		c.found(RuleRecord, ino, "what it holds is in block %s: %v", id, err)
	case err != nil:
		return err
	case typ == syscall.S_IFDIR && b.Kind != store.KindTree,
		typ == syscall.S_IFREG && b.Kind != store.KindFile && b.Kind != store.KindData,
		typ != syscall.S_IFDIR && typ != syscall.S_IFREG:
		c.found("I3", ino, "a file of type %o holds what is in a %s", typ, b.Kind)
	}
	return nil
}

func (c *checker) entry(dir meta.Ino, key, value []byte) error {
	_, pos, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	c.note(pos)
	d := c.at(dir)
	d.entries++
	e, err := meta.DecodeDirent(value)
	if err != nil {
		return err
	}
	// Scan's order brings entries before records, so that findings can name paths.
	t := c.at(e.Ino)
	t.links++
	if e.Type == syscall.S_IFDIR {
		d.subdirs++
		if t.links > 1 {
			c.found("I7", e.Ino, "the directory has more than one name; another one is %q in inode %d", e.Name, dir)
		}
	}
	// Of several names the last one counts: any of them leads there.
	t.parent, t.name, t.typ, t.pos = dir, e.Name, e.Type, pos
	return nil
}

func (c *checker) name(dir meta.Ino, key, value []byte) error {
	name, err := meta.KeyTail(key)
	if err != nil {
		return err
	}
	pos, err := meta.DecodePosition(value)
	if err != nil {
		return err
	}
	c.at(dir).names++
	// Names and entries are two rows of one fact, and readdir and look-ups each use one of them.
	b, err := c.db.Get(meta.EntryKey(dir, pos))
	if meta.IsNotFound(err) {
		c.found("I7", dir, "the name %q leads to position %d, where no entry is", name, pos)
		return nil
	}
	if err != nil {
		return err
	}
	if e, err := meta.DecodeDirent(b); err == nil && e.Name != name {
		c.found("I7", dir, "the name %q leads to position %d, where %q is", name, pos, e.Name)
	}
	return nil // an entry that cannot be decoded was found as such
}

func (c *checker) extents(ino meta.Ino, key, value []byte) error {
	_, i, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	// Before it is multiplied: an overflow would look like a page at the start of the file.
	if i > uint64(math.MaxInt64/c.span) {
		return fmt.Errorf("page %d of extents is beyond every file: %w", i, meta.ErrCorrupt)
	}
	page, err := meta.DecodeExtents(value, int64(i)*c.span, c.span)
	if err != nil {
		return err
	}
	t := c.at(ino)
	for _, e := range page {
		if e.Off < t.end {
			c.found("I3", ino, "the extent at %d overlaps the one before, which ends at %d", e.Off, t.end)
		}
		t.end = max(t.end, e.End())
		t.alloc += int64(e.Len)
		if t.attr != nil { // records come before extents
			t.written += t.attr.Reserved.Covered(e.Off, e.End())
		}
		if err := c.extent(ino, e); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) extent(ino meta.Ino, e meta.Extent) error {
	id := store.ID(e.ID)
	if c.ref != nil {
		// Told before anything is judged: the store compares the counts of references, those of bad
		// extents too.
		c.ref(id)
	}
	if int64(e.Len) > c.span {
		c.found("I3", ino, "the extent at %d has %d bytes, more than a page covers", e.Off, e.Len)
	}
	// An extent may be a part of a block: an overlay has cut it, or a copy began inside.
	b, err := c.st.Lookup(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.found("I1", ino, "bytes %d to %d are in block %s, which the store does not have", e.Off, e.End(), id)
	case errors.Is(err, store.ErrCorrupt):
		c.found(RuleRecord, ino, "bytes %d to %d: block %s: %v", e.Off, e.End(), id, err)
	case err != nil:
		return err
	case b.Lost(): // the store tells, once for each block
	case uint64(e.Skip)+uint64(e.Len) > uint64(b.Raw):
		c.found("I3", ino, "bytes %d to %d are said to be bytes %d to %d of block %s, which has %d",
			e.Off, e.End(), e.Skip, uint64(e.Skip)+uint64(e.Len), id, b.Raw)
	}
	return nil
}

func (c *checker) slot(ino meta.Ino, key, value []byte) error {
	_, slot, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	if slot > math.MaxInt64/meta.SlotSize {
		return fmt.Errorf("staged slot %d is beyond every file: %w", slot, meta.ErrCorrupt)
	}
	parts, err := meta.DecodeStaged(value)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		c.found("I3", ino, "the staged slot %d is empty", slot)
		return nil
	}
	// Parts are in order, which decoding has checked; only the end is left to compare with the
	// size.
	last := parts[len(parts)-1]
	t := c.at(ino)
	t.staged = int64(slot)*meta.SlotSize + int64(last.Start) + int64(len(last.Bytes))
	return nil
}

// compare checks what was counted.
func (c *checker) compare(ctx context.Context) error {
	var counted meta.Counters
	for ino, t := range c.inodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if t.attr == nil {
			c.noRecord(ino, t)
			continue
		}
		counted.AddInode(t.attr)
		if t.attr.IsLazyDir() && c.counts.Form >= meta.CountsClones {
			// A tree that cannot be read is found as a block that cannot.
			sums, _ := rows.LazySums(ctx, c.st, c.db, ino, t.attr)
			counted.Add(rows.Inodes(sums), sums.Bytes, sums.Data)
		}
		switch t.attr.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			c.file(ino, t)
		case syscall.S_IFDIR:
			c.directory(ino, t)
		case syscall.S_IFLNK, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
		default:
			c.found(RuleRecord, ino, "mode %o has no type", t.attr.Mode)
		}
		c.inode(ino, t)
	}
	if c.inodes[meta.Root] == nil || c.inodes[meta.Root].attr == nil {
		c.found("I7", meta.Root, "there is no root directory")
	}
	if c.counts.Next <= c.number {
		c.found("I7", 0, "the next unused number is %d, but %d is in use", c.counts.Next, c.number)
	}
	for _, n := range []struct {
		what         string
		counts, have int64
		since        meta.Form
	}{
		{"inodes", c.counts.Inodes, counted.Inodes, meta.CountsRows},
		{"bytes in files", c.counts.Logical, counted.Logical, meta.CountsRows},
		{"bytes of files in blocks", c.counts.Data, counted.Data, meta.CountsData},
	} {
		if c.counts.Form >= n.since && n.counts != n.have {
			c.found("I7", 0, "the volume counts %d %s and has %d", n.counts, n.what, n.have)
		}
	}
	return nil
}

// noRecord names the rows of an inode that has no record.
func (c *checker) noRecord(ino meta.Ino, t *tally) {
	if t.links > 0 {
		c.found("I7", ino, "the name leads to an inode that does not exist")
	}
	for _, rows := range []struct {
		are  bool
		what string
	}{
		{t.orphan, "is on the list of orphans"},
		{t.entries > 0 || t.names > 0, "has directory entries"},
		{t.alloc > 0, "has extents"},
		{t.staged > 0, "has staged bytes"},
		{t.xattrs > 0, "has extended attributes"},
	} {
		if rows.are {
			c.found("I7", ino, "an inode that does not exist %s", rows.what)
		}
	}
}

// inode checks what holds for every type.
func (c *checker) inode(ino meta.Ino, t *tally) {
	typ := t.attr.Mode & syscall.S_IFMT
	if t.links > 0 && t.typ != typ {
		c.found("I7", ino, "the entry says type %o, the inode %o", t.typ, typ)
	}
	if t.attr.Xattrs != t.xattrs {
		c.found("I7", ino, "the inode counts %d extended attributes and has %d", t.attr.Xattrs, t.xattrs)
	}
	// The list of orphans is what the next mount removes: one that has a name would be lost.
	if orphan := t.attr.Nlink == 0; orphan != t.orphan {
		c.found("I7", ino, "it has %d links and is on the list of orphans: %t", t.attr.Nlink, t.orphan)
	}
	if typ != syscall.S_IFDIR {
		if t.attr.Nlink != t.links {
			c.found("I7", ino, "it has %d links and %d names", t.attr.Nlink, t.links)
		}
		if t.entries > 0 || t.names > 0 {
			c.found("I7", ino, "it is no directory and has entries")
		}
		if t.links > 1 && !t.attr.Shared {
			c.found("I7", ino, "it has %d names and its record says that it never had two", t.links)
		}
	}
	// Snapshots find the name of a changed inode by this place; a wrong one makes them wrong.
	if t.links == 1 && !t.attr.Shared && t.attr.Pos != 0 && (t.attr.Pos != t.pos || t.attr.Parent != t.parent) {
		c.found("I7", ino, "its name is at %d in inode %d, and its record says at %d in inode %d", t.pos, t.parent, t.attr.Pos, t.attr.Parent)
	}
	if typ != syscall.S_IFREG && (t.alloc > 0 || t.staged > 0 || t.attr.Alloc != 0) {
		c.found("I3", ino, "it is no regular file and has data")
	}
}

func (c *checker) file(ino meta.Ino, t *tally) {
	if t.end > t.attr.Size {
		c.found("I3", ino, "extents end at %d, beyond the size of %d", t.end, t.attr.Size)
	}
	if t.staged > t.attr.Size {
		c.found("I3", ino, "staged bytes end at %d, beyond the size of %d", t.staged, t.attr.Size)
	}
	if t.alloc != t.attr.Alloc && !(t.attr.IsLazy() && t.alloc < t.attr.Alloc) {
		c.found("I3", ino, "the inode counts %d allocated bytes and has %d", t.attr.Alloc, t.alloc)
	}
	if unwritten := t.attr.Reserved.Bytes() - t.written; unwritten != t.attr.Unwritten && !t.attr.IsLazy() {
		c.found("I3", ino, "the inode counts %d reserved bytes without data and has %d", t.attr.Unwritten, unwritten)
	}
}

func (c *checker) directory(ino meta.Ino, t *tally) {
	// The reaper takes a removed tree apart name by name: its counts are behind meanwhile.
	removed := c.removed(ino)
	if t.entries != t.attr.Entries && !t.attr.IsLazy() && !removed || t.names != t.entries {
		c.found("I7", ino, "the directory counts %d entries and has %d, with %d names", t.attr.Entries, t.entries, t.names)
	}
	switch {
	case ino == meta.Root:
		if t.links != 0 || t.attr.Parent != meta.Root {
			c.found("I7", ino, "the root directory has a name")
		}
	case t.attr.Nlink == 0 && t.links > 0:
		c.found("I7", ino, "the directory has no links and %d names", t.links)
	case t.attr.Nlink == 0:
		return
	case t.links == 0:
		c.found("I7", ino, "no name leads to the directory")
	case t.parent != t.attr.Parent:
		c.found("I7", ino, "the directory is in inode %d, but its .. leads to %d", t.parent, t.attr.Parent)
	case c.path(ino) == "" && !removed:
		c.found("I7", ino, "the directory cannot be reached from the root")
	}
	// A lazy directory counts subdirectories that are still in its vertex.
	if t.attr.Nlink != 2+t.subdirs && !removed && !(t.attr.IsLazy() && t.attr.Nlink > t.subdirs) {
		c.found("I7", ino, "the directory has %d links and %d subdirectories", t.attr.Nlink, t.subdirs)
	}
}
