package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// A snapBuilder makes the vertices of a snapshot from a view of the rows. Of
// directories that changed since the last snapshot it changes the tree that they
// had then; those that did not change are not looked at. The sweep stands still
// meanwhile, so what was there at the instant of the view stays.
type snapBuilder struct {
	ctx  context.Context
	v    *Volume
	view *meta.View
	last meta.Tracking // the state that changes are counted from
	base uint64        // numbers from here on are new; 0: all is
	anew bool          // no vertex of the last snapshot is relied on: some cannot be read
	seen int64         // marks of bad blocks when it began
	keep bool          // write the rows that the next snapshot builds on

	dirty map[meta.Ino]map[string]struct{} // directories that changed -> names in them that did
	table map[meta.Ino]bool                // files with several names that changed; false: not there any more
	moved map[meta.Ino]bool                // of these, those that changed since the last snapshot

	branches map[meta.Ino]meta.Branch // rows that are not yet written
	gone     []meta.Ino               // directories that are not there any more
	written  int64                    // bytes of files that are new or changed, clones apart

	progress func(looked int64) // may be nil
	looked   int64              // entries made so far
}

// branchBatch is how many directories' rows are gathered before they are written.
const branchBatch = 4096

// A built is a snapshot's vertices but for the top.
type built struct {
	root  graph.Entry
	table store.ID
	inTab meta.Sums // over the table
}

// build makes everything below the snapshot's own vertex.
func (b *snapBuilder) build() (out built, err error) {
	b.dirty = make(map[meta.Ino]map[string]struct{})
	b.table = make(map[meta.Ino]bool)
	b.branches = make(map[meta.Ino]meta.Branch)
	if b.base != 0 && !b.has(b.last.Links) {
		b.base = 0 // no vertex says any more which files have several names
	}
	if b.base != 0 {
		if err := b.collect(); err != nil {
			return out, err
		}
	}
	b.moved = maps.Clone(b.table)
	// Directories before the link table: their entries tell which files have several names.
	root, err := b.inode(meta.Root)
	if err != nil {
		return out, err
	}
	branch, err := b.directory(meta.Root, &root)
	if err != nil {
		return out, err
	}
	if out.root, err = b.entry("", meta.Root, &root, &branch); err != nil {
		return out, err
	}
	if out.table, out.inTab, err = b.links(); err != nil {
		return out, err
	}
	return out, b.saveBranches()
}

// has reports whether a vertex that may have been swept is there; a zero ID is.
func (b *snapBuilder) has(id meta.BlockID) bool {
	if id == (meta.BlockID{}) {
		return true
	}
	has, err := b.v.store.Has(store.ID(id))
	return err == nil && has
}

func (b *snapBuilder) inode(ino meta.Ino) (meta.Inode, error) {
	row, err := b.view.Get(meta.InodeKey(ino))
	if err != nil {
		return meta.Inode{}, fmt.Errorf("inode %d: %w", ino, err)
	}
	return meta.DecodeInode(row)
}

// directory returns the tree of a directory.
func (b *snapBuilder) directory(dir meta.Ino, attr *meta.Inode) (meta.Branch, error) {
	branch, known, err := b.branch(dir)
	if err != nil {
		return branch, err
	}
	// Nobody has looked into it: its tree is what it was cloned from.
	if attr.IsLazy() {
		if !known || branch.ID != attr.LazyID {
			branch, err = b.lazyBranch(attr)
		}
		return branch, err
	}
	// The row may be older than the last snapshot, or its vertex swept: then all names are looked
	// at.
	known = known && !b.anew && b.base != 0 && uint64(dir) < b.base && b.has(branch.ID)
	names, changed := b.dirty[dir]
	switch {
	case !known:
		branch, err = b.wholeDirectory(dir, attr)
	case !changed:
		return branch, nil
	default:
		branch, err = b.changedDirectory(dir, branch, names)
	}
	if err != nil {
		return branch, fmt.Errorf("directory %d: %w", dir, err)
	}
	// Rather no snapshot than one that lacks a name.
	if branch.Entries != attr.Entries {
		return branch, fmt.Errorf("directory %d has %d entries and its tree %d: %w", dir, attr.Entries, branch.Entries, store.ErrCorrupt)
	}
	// Written in batches: a change of the store for each directory would cost more than its row.
	b.branches[dir] = branch
	if len(b.branches) >= branchBatch {
		err = b.saveBranches()
	}
	return branch, err
}

// branch returns what the directory was in the last snapshot.
func (b *snapBuilder) branch(dir meta.Ino) (branch meta.Branch, known bool, err error) {
	row, err := b.view.Get(meta.TreeKey(dir))
	if meta.IsNotFound(err) {
		return branch, false, nil
	}
	if err == nil {
		branch, err = meta.DecodeBranch(row)
	}
	return branch, err == nil, err
}

// lazyBranch adds up what is below a lazy inode. Where its names cannot be read, a snapshot can
// have no more of them than the live tree: their sums stay unknown.
func (b *snapBuilder) lazyBranch(attr *meta.Inode) (meta.Branch, error) {
	branch := meta.Branch{ID: attr.LazyID}
	err := graph.OpenTree(b.v.store, store.ID(attr.LazyID), graph.Directory).Each(b.ctx, "", func(e *graph.Entry) error {
		count(&branch, e, 1)
		return nil
	})
	if errors.Is(err, store.ErrCorrupt) {
		branch.Entries, branch.Subdirs, err = attr.Entries, int64(attr.Nlink)-2, nil
	}
	return branch, err
}

// count adds an entry to what a directory has, sign times.
func count(branch *meta.Branch, e *graph.Entry, sign int64) {
	below := graph.Sums(branch.Below)
	below.Add(e.Sum(), sign)
	branch.Below = meta.Sums(below)
	branch.Entries += sign
	if e.IsDir() {
		branch.Subdirs += sign
	}
}

// wholeDirectory makes a directory's tree from all its entries.
func (b *snapBuilder) wholeDirectory(dir meta.Ino, attr *meta.Inode) (branch meta.Branch, err error) {
	tb := graph.NewTreeBuilder(b.v.store, graph.Directory)
	err = b.eachName(dir, attr, func(d meta.Dirent) error {
		e, own, err := b.child(d)
		if err != nil {
			return err
		}
		count(&branch, &e, 1)
		// A directory whose tree is not known, as one that was a clone until somebody looked
		// into it, may have old files and new ones.
		_, changed := b.dirty[dir][d.Name]
		if changed || uint64(dir) >= b.base || uint64(d.Ino) >= b.base {
			b.written += own
		}
		return tb.Add(&e)
	})
	if err != nil {
		return branch, err
	}
	root, err := tb.Finish()
	branch.ID = meta.BlockID(root.ID)
	return branch, err
}

// eachName calls fn for the entries of a directory in order of their names.
func (b *snapBuilder) eachName(dir meta.Ino, attr *meta.Inode, fn func(meta.Dirent) error) error {
	// Trees are made in order of names, entries are in order of positions: sorted in memory, if
	// they fit.
	if attr.Entries > b.v.table.names.maxDirectory() {
		from, to := meta.NameRange(dir)
		return b.view.Scan(from, to, func(key, _ []byte) error {
			name, err := meta.KeyTail(key)
			if err != nil {
				return err
			}
			d, ok, err := b.lookup(dir, name)
			if err != nil || !ok {
				return orErr(err, store.ErrCorrupt)
			}
			return orErr(b.ctx.Err(), fn(d))
		})
	}
	var list []meta.Dirent
	from, to := meta.EntryRange(dir, 0)
	err := b.view.Scan(from, to, func(_, value []byte) error {
		d, err := meta.DecodeDirent(value)
		list = append(list, d)
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b meta.Dirent) int { return strings.Compare(a.Name, b.Name) })
	for _, d := range list {
		if err := orErr(b.ctx.Err(), fn(d)); err != nil {
			return err
		}
	}
	return nil
}

// lookup returns the entry that a name leads to.
func (b *snapBuilder) lookup(dir meta.Ino, name string) (d meta.Dirent, ok bool, err error) {
	row, err := b.view.Get(meta.NameKey(dir, name))
	if meta.IsNotFound(err) {
		return d, false, nil
	}
	if err != nil {
		return d, false, err
	}
	pos, err := meta.DecodePosition(row)
	if err != nil {
		return d, false, err
	}
	if row, err = b.view.Get(meta.EntryKey(dir, pos)); err != nil {
		return d, false, err
	}
	d, err = meta.DecodeDirent(row)
	return d, true, err
}

// changedDirectory makes a directory's tree from the one that it had.
func (b *snapBuilder) changedDirectory(dir meta.Ino, branch meta.Branch, names map[string]struct{}) (meta.Branch, error) {
	from, to := meta.EntryRange(dir, b.base)
	// Names made since the last snapshot have no marks: their positions say that they are new.
	err := b.view.Scan(from, to, func(_, value []byte) error {
		d, err := meta.DecodeDirent(value)
		if err == nil {
			names[d.Name] = struct{}{}
		}
		return err
	})
	if err != nil {
		return branch, err
	}
	// Its vertices that hold none of these names are not read and stay shared.
	old := graph.OpenTree(b.v.store, store.ID(branch.ID), graph.Directory)
	changes := make([]graph.Change, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c, err := b.change(dir, name, old, &branch)
		if err != nil {
			return branch, err
		}
		changes = append(changes, c)
	}
	root, err := old.Apply(b.ctx, b.v.store, changes)
	branch.ID = meta.BlockID(root.ID)
	return branch, err
}

func (b *snapBuilder) change(dir meta.Ino, name string, old *graph.Tree, branch *meta.Branch) (graph.Change, error) {
	c := graph.Change{Name: name}
	was, err := old.Lookup(b.ctx, name)
	existed := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return c, err
	}
	d, ok, err := b.lookup(dir, name)
	if err != nil {
		return c, err
	}
	// Taken off and added again: the sums follow every change below.
	if existed {
		count(branch, &was, -1)
	}
	if !ok {
		return c, nil
	}
	e, own, err := b.child(d)
	if err != nil {
		return c, err
	}
	count(branch, &e, 1)
	// Only bytes that are not those of before were written.
	if !existed || was.Link != e.Link {
		b.written += own
	}
	c.Entry = &e
	return c, nil
}

// progressStep is how many entries are made between two calls of progress.
const progressStep = 1000

// child makes the entry of a name, and returns how many bytes of its file are in no
// clone. Those of a file with several names are counted with the link table.
func (b *snapBuilder) child(d meta.Dirent) (e graph.Entry, own int64, err error) {
	if b.looked++; b.looked%progressStep == 0 && b.progress != nil {
		b.progress(b.looked)
	}
	attr, err := b.inode(d.Ino)
	if err != nil {
		return e, 0, err
	}
	if attr.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		// Depth first: a directory's entry has the ID of its tree, so what is below comes first.
		branch, err := b.directory(d.Ino, &attr)
		if err != nil {
			return e, 0, err
		}
		e, err = b.entry(d.Name, d.Ino, &attr, &branch)
		return e, 0, err
	}
	// In the directory is its identity only; its row in the link table changes with each of its
	// names.
	if attr.Shared {
		b.table[d.Ino] = true
		return graph.Entry{Name: d.Name, Mode: attr.Mode & syscall.S_IFMT, Ident: uint64(d.Ino)}, 0, nil
	}
	e, err = b.entry(d.Name, d.Ino, &attr, nil)
	return e, ownBytes(&attr, &e), err
}

// ownBytes returns the size of a file that is no clone's, whose bytes nobody has written.
func ownBytes(attr *meta.Inode, e *graph.Entry) int64 {
	if attr.IsLazy() {
		return 0
	}
	return e.Size
}

// links makes the link table.
func (b *snapBuilder) links() (id store.ID, sums meta.Sums, err error) {
	idents := slices.Sorted(maps.Keys(b.table))
	// No table to build on: it is made of all files with several names that were met.
	if b.base == 0 || b.anew || b.last.Links == (meta.BlockID{}) {
		tb := graph.NewTreeBuilder(b.v.store, graph.LinkTable)
		rows := 0
		for _, ino := range idents {
			if !b.table[ino] {
				continue
			}
			e, own, err := b.linkRow(ino)
			if err != nil {
				return id, sums, err
			}
			rows++
			addRow(&sums, &e, 1)
			if !b.anew || uint64(ino) >= b.base || b.moved[ino] {
				b.written += own
			}
			if err := tb.Add(&e); err != nil {
				return id, sums, err
			}
		}
		if rows == 0 {
			return id, sums, nil
		}
		root, err := tb.Finish()
		return root.ID, sums, err
	}
	old := graph.OpenTree(b.v.store, store.ID(b.last.Links), graph.LinkTable)
	// The last snapshot's sums, corrected below by each row that changes.
	sums = b.last.Table
	var changes []graph.Change
	for _, ino := range idents {
		c := graph.Change{Name: graph.TableKey(uint64(ino))}
		// A row that is not there is that of a file which got its second name now.
		was, err := old.Lookup(b.ctx, c.Name)
		switch {
		case err == nil:
			addRow(&sums, &was, -1)
		case !errors.Is(err, store.ErrNotFound):
			return id, sums, err
		}
		if b.table[ino] {
			e, own, err := b.linkRow(ino)
			if err != nil {
				return id, sums, err
			}
			addRow(&sums, &e, 1)
			if was.Link != e.Link {
				b.written += own
			}
			c.Entry = &e
		}
		changes = append(changes, c)
	}
	root, err := old.Apply(b.ctx, b.v.store, changes)
	if err != nil || root.Entries == 0 {
		return id, sums, err
	}
	return root.ID, sums, nil
}

func addRow(sums *meta.Sums, e *graph.Entry, sign int64) {
	s := graph.Sums(*sums)
	s.Add(e.Sum(), sign)
	*sums = meta.Sums(s)
}

// linkRow makes a row of the link table, and returns how many bytes of its file are in
// no clone.
func (b *snapBuilder) linkRow(ino meta.Ino) (e graph.Entry, own int64, err error) {
	attr, err := b.inode(ino)
	if err != nil {
		return e, 0, err
	}
	e, err = b.entry(graph.TableKey(uint64(ino)), ino, &attr, nil)
	e.Nlink = attr.Nlink
	return e, ownBytes(&attr, &e), err
}

// saveBranches writes the rows of the directories that were looked at. That
// they are newer than the state of tracking says does no harm: every name that
// changed since is looked at again.
func (b *snapBuilder) saveBranches() error {
	if len(b.branches) == 0 || !b.keep {
		clear(b.branches)
		return nil
	}
	err := b.v.store.Change(func() error {
		for dir, branch := range b.branches {
			b.v.db.Set(meta.TreeKey(dir), branch.Encode())
		}
		return nil
	})
	clear(b.branches)
	b.v.store.MaybeCommit()
	return err
}
