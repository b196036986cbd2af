package fsck

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store"
)

// Repair makes the rows of a store's namespace agree with each other (I3, I7). No
// Volume of the store may be open. Inodes that no name leads to get one in
// lost+found; records that are lost are made anew from what belongs to
// them; rows that make no sense are moved aside. No row of extents is removed, and
// references to blocks are the store's to count afterwards. It returns what it did. It takes some
// 300 bytes of memory for each inode and name.
func Repair(ctx context.Context, st *store.Store) ([]store.Repaired, error) {
	ck := st.Chunker()
	r := &repairer{st: st, db: st.DB(), span: meta.PageSpan(ck.Avg(), ck.Max()), inodes: make(map[meta.Ino]*found), now: time.Now()}
	err := st.Update(func() error { return r.run(ctx) })
	if err == nil {
		err = st.Commit()
	}
	if err != nil {
		err = fmt.Errorf("repair volume: %w", err)
	}
	return r.done, err
}

// A found is what the rows say of one inode.
type found struct {
	attr    *meta.Inode // nil: there is no record
	changed bool
	orphan  bool
	xattrs  uint32
	alloc   int64
	written int64 // bytes of alloc in reserved blocks
	end     int64 // of what is known of its bytes
	data    bool  // it has rows of extents or staged bytes
	entries []entry
	names   map[string]uint64
	parents int // entries that lead to it
	reached bool
}

type entry struct {
	pos uint64
	meta.Dirent
}

type repairer struct {
	st     *store.Store
	db     *meta.DB
	span   int64
	inodes map[meta.Ino]*found
	counts meta.Counters
	next   uint64
	now    time.Time
	done   []store.Repaired
	lost   meta.Ino // lost+found

	tracking    [][]byte // keys of the rows that say what changed since the last snapshot
	badTracking bool
}

func (r *repairer) did(format string, args ...any) {
	r.done = append(r.done, store.Repaired{Text: fmt.Sprintf(format, args...), Kind: format})
}

func (r *repairer) at(ino meta.Ino) *found {
	f, ok := r.inodes[ino]
	if !ok {
		f = &found{names: make(map[string]uint64)}
		r.inodes[ino] = f
	}
	return f
}

// sorted returns the inodes' numbers in order, so that a repair is repeatable.
func (r *repairer) sorted() []meta.Ino { return slices.Sorted(maps.Keys(r.inodes)) }

func (r *repairer) run(ctx context.Context) error {
	from, to := meta.Rows()
	rows := 0
	err := r.db.Scan(from, to, func(key, value []byte) error {
		rows++
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.row(key, value)
		if errors.Is(err, meta.ErrCorrupt) {
			r.aside(key, value, err)
			return nil
		}
		return err
	})
	if err != nil || rows == 0 {
		return err // a store without a volume gets one when it is opened
	}
	r.next = max(r.next+1, r.counts.Next, meta.FirstIno)
	// Records first: names are only given to what has one. Then what is reachable, so that the rest
	// can go to lost+found.
	r.fixRecords()
	r.fixEntries()
	r.reach()
	r.attach()
	r.fixCounts()
	r.fixPlaces()
	r.save(ctx)
	r.dropTracking()
	return nil
}

// asidePrefix starts the keys of rows that were moved aside.
const asidePrefix = 'q'

// aside moves a row to where nobody looks for it, but for whoever wants to see
// what was lost.
func (r *repairer) aside(key, value []byte, why error) {
	r.db.Set(append([]byte{asidePrefix}, key...), bytes.Clone(value))
	r.db.Delete(bytes.Clone(key))
	r.did("row %x was moved aside: %v", key, why)
}

func (r *repairer) row(key, value []byte) error {
	kind := meta.KindOf(key)
	switch kind {
	case meta.KindCounters:
		var err error
		if r.counts, err = meta.DecodeCounters(value); err != nil {
			r.did("the volume's counters were damaged")
			r.counts = meta.Counters{}
		}
		return nil
	case meta.KindTouched, meta.KindGone, meta.KindTree, meta.KindTrack:
		r.tracking = append(r.tracking, bytes.Clone(key))
		// They only save the next snapshot work: damaged ones are dropped all together, and it
		// looks at everything.
		r.badTracking = r.badTracking || meta.CheckTracked(kind, key, value) != nil
		return nil
	}
	ino, err := meta.KeyIno(key)
	if err != nil {
		return err
	}
	// Greater numbers are those of files in snapshots, which have no rows.
	if ino == 0 || uint64(ino) > 1<<62 {
		return fmt.Errorf("inode number %d: %w", ino, meta.ErrCorrupt)
	}
	f := r.at(ino)
	r.next = max(r.next, uint64(ino))
	switch kind {
	case meta.KindInode:
		attr, err := meta.DecodeInode(value)
		if err != nil {
			return err
		}
		// Records come before extents and staged bytes, which look at what is reserved.
		f.attr = &attr
	case meta.KindOrphan:
		f.orphan = true
	case meta.KindXattr:
		f.xattrs++
	case meta.KindEntry:
		return r.entryRow(f, key, value)
	case meta.KindName:
		return r.nameRow(f, key, value)
	case meta.KindExtents:
		return r.extentsRow(ino, f, key, value)
	case meta.KindStaged:
		return r.stagedRow(f, key, value)
	default:
		return fmt.Errorf("kind %q: %w", byte(kind), meta.ErrCorrupt)
	}
	return nil
}

func (r *repairer) entryRow(f *found, key, value []byte) error {
	_, pos, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	d, err := meta.DecodeDirent(value)
	if err != nil {
		return err
	}
	r.next = max(r.next, pos)
	f.entries = append(f.entries, entry{pos, d})
	return nil
}

func (r *repairer) nameRow(f *found, key, value []byte) error {
	name, err := meta.KeyTail(key)
	if err != nil {
		return err
	}
	pos, err := meta.DecodePosition(value)
	if err != nil {
		return err
	}
	f.names[name] = pos
	return nil
}

// extentsRow leaves a page that cannot be decoded in its place: reads of it must
// fail, and not find a hole.
func (r *repairer) extentsRow(ino meta.Ino, f *found, key, value []byte) error {
	_, i, err := meta.KeyNumbers(key)
	if err != nil || i > uint64(1<<62/r.span) {
		return fmt.Errorf("page of extents: %w", meta.ErrCorrupt)
	}
	f.data = true
	base := int64(i) * r.span
	page, err := meta.DecodeExtents(value, base, r.span)
	if err != nil {
		r.did("inode %d: the extents from byte %d on are damaged, and reading there fails", ino, base)
		return nil
	}
	kept := page[:0]
	for _, e := range page {
		if e.Off < f.end { // it overlaps the one before
			cut := f.end - e.Off
			if cut >= int64(e.Len) {
				continue
			}
			e.Off, e.Len, e.Skip = f.end, e.Len-uint32(cut), e.Skip+uint32(cut)
		}
		kept = append(kept, e)
		f.end = e.End()
		f.alloc += int64(e.Len)
		if f.attr != nil { // records come before extents
			f.written += f.attr.Reserved.Covered(e.Off, e.End())
		}
	}
	if again := meta.AppendExtents(nil, base, kept); !bytes.Equal(again, value) {
		r.did("inode %d: extents from byte %d on overlapped", ino, base)
		// The row as it was stays aside: which of two overlapping extents was the right one, nobody
		// knows.
		r.db.Set(append([]byte{asidePrefix}, key...), bytes.Clone(value))
		r.db.Set(bytes.Clone(key), again)
	}
	return nil
}

func (r *repairer) stagedRow(f *found, key, value []byte) error {
	_, slot, err := meta.KeyNumbers(key)
	if err != nil || slot > 1<<62/meta.SlotSize {
		return fmt.Errorf("staged slot: %w", meta.ErrCorrupt)
	}
	parts, err := meta.DecodeStaged(value)
	if err != nil || len(parts) == 0 {
		return fmt.Errorf("staged slot: %w", meta.ErrCorrupt)
	}
	last := parts[len(parts)-1]
	f.data = true
	// Staged bytes count for the length: they become blocks at the next mount.
	f.end = max(f.end, int64(slot)*meta.SlotSize+int64(last.Start+len(last.Bytes)))
	return nil
}

func (r *repairer) time() meta.Time {
	return meta.Time{Sec: r.now.Unix(), Nsec: uint32(r.now.Nanosecond())}
}

func (r *repairer) record(mode uint32) *meta.Inode {
	t := r.time()
	return &meta.Inode{Mode: mode, Atime: t, Mtime: t, Ctime: t, Btime: t}
}

// fixRecords makes records for inodes that have entries or data and none, and
// makes each record fit its rows.
func (r *repairer) fixRecords() {
	root := r.at(meta.Root)
	if root.attr == nil || root.attr.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		root.attr, root.changed = r.record(syscall.S_IFDIR|0o755), true
		root.attr.Parent = meta.Root
		r.did("the root directory was made anew")
	}
	for _, ino := range r.sorted() {
		f := r.inodes[ino]
		// What has bytes was a file, what has entries a directory; anything else has left nothing
		// worth a name.
		if f.attr == nil {
			switch {
			case f.data:
				f.attr, f.changed = r.record(syscall.S_IFREG|0o600), true
			case len(f.entries) > 0:
				f.attr, f.changed = r.record(syscall.S_IFDIR|0o700), true
			default:
				continue
			}
			f.attr.Size = f.end
			r.did("inode %d: its record was lost, and made anew", ino)
		}
		a := f.attr
		if typ := f.typeOf(); ino != meta.Root && typ != a.Mode&syscall.S_IFMT {
			r.did("inode %d: its type is %o, and not %o", ino, typ, a.Mode&syscall.S_IFMT)
			a.Mode, f.changed = a.Mode&^syscall.S_IFMT|typ, true
		}
		if a.Mode&syscall.S_IFMT != syscall.S_IFREG && a.Alloc != 0 {
			a.Alloc, f.changed = 0, true
		}
		// The bytes win: a size that is too small would hide some for ever.
		if a.Mode&syscall.S_IFMT == syscall.S_IFREG && f.end > a.Size {
			r.did("inode %d: its size was %d, and its bytes end at %d", ino, a.Size, f.end)
			a.Size, f.changed = f.end, true
		}
		if a.Mode&syscall.S_IFMT == syscall.S_IFREG && a.Alloc != f.alloc && !a.IsLazy() {
			r.did("inode %d: %d bytes are allocated, and not %d", ino, f.alloc, a.Alloc)
			a.Alloc, f.changed = f.alloc, true
		}
		if unwritten := a.Reserved.Bytes() - f.written; unwritten != a.Unwritten && !a.IsLazy() {
			r.did("inode %d: %d reserved bytes have no data, and not %d", ino, unwritten, a.Unwritten)
			a.Unwritten, f.changed = unwritten, true
		}
		// Nobody looks for attributes of an inode that counts none.
		if a.Xattrs != f.xattrs {
			r.did("inode %d: it has %d extended attributes, and not %d", ino, f.xattrs, a.Xattrs)
			a.Xattrs, f.changed = f.xattrs, true
		}
	}
}

// typeOf returns the type that an inode's rows make it.
func (f *found) typeOf() uint32 {
	switch typ := f.attr.Mode & syscall.S_IFMT; {
	case f.data:
		return syscall.S_IFREG
	case len(f.entries) > 0:
		return syscall.S_IFDIR
	case typ == syscall.S_IFREG, typ == syscall.S_IFDIR, typ == syscall.S_IFLNK, typ == syscall.S_IFIFO,
		typ == syscall.S_IFSOCK, typ == syscall.S_IFCHR, typ == syscall.S_IFBLK:
		return typ
	}
	return syscall.S_IFREG
}

func (f *found) isDir() bool {
	return f != nil && f.attr != nil && f.attr.Mode&syscall.S_IFMT == syscall.S_IFDIR
}

// fixEntries removes entries that lead nowhere and second names of directories, and
// makes names and entries fit each other.
func (r *repairer) fixEntries() {
	for _, dir := range r.sorted() {
		f := r.inodes[dir]
		if len(f.entries) == 0 && len(f.names) == 0 {
			continue
		}
		// The older of two entries with a name keeps it, whatever order the rows came in.
		slices.SortFunc(f.entries, func(a, b entry) int { return cmp.Compare(a.pos, b.pos) })
		taken := make(map[string]bool)
		kept := f.entries[:0]
		for _, e := range f.entries {
			if r.keeps(dir, f, &e, taken) {
				kept = append(kept, e)
				taken[e.Name] = true
			}
		}
		f.entries = kept
		if !f.isDir() {
			for name := range f.names {
				r.db.Delete(meta.NameKey(dir, name))
			}
			continue
		}
		// The entry is the truth, and the row of its name made to lead there: it can be made anew,
		// an entry not.
		for _, e := range kept {
			if pos, ok := f.names[e.Name]; !ok || pos != e.pos {
				r.db.Set(meta.NameKey(dir, e.Name), meta.EncodePosition(e.pos))
				r.did("inode %d: the name %q was made to lead to its entry", dir, e.Name)
			}
		}
		for name := range f.names {
			if !taken[name] {
				r.db.Delete(meta.NameKey(dir, name))
				r.did("inode %d: the name %q led nowhere", dir, name)
			}
		}
	}
}

// keeps reports whether an entry stays, and counts it.
func (r *repairer) keeps(dir meta.Ino, f *found, e *entry, taken map[string]bool) bool {
	t := r.inodes[e.Ino]
	drop := ""
	switch {
	case !f.isDir():
		drop = "is in what is no directory"
	case t == nil || t.attr == nil:
		drop = "leads to an inode that does not exist"
	case e.Ino == meta.Root:
		drop = "leads to the root directory"
	case t.isDir() && t.parents > 0:
		drop = "is the second one of a directory"
	}
	// Aside, not away: the name may be all that is known of a lost file.
	if drop != "" {
		r.aside(meta.EntryKey(dir, e.pos), meta.AppendDirent(nil, e.Dirent), fmt.Errorf("the name %q in inode %d %s", e.Name, dir, drop))
		return false
	}
	typ := t.attr.Mode & syscall.S_IFMT
	if taken[e.Name] || e.Type != typ {
		if taken[e.Name] {
			r.did("inode %d: a second %q got another name", dir, e.Name)
			e.Name = unused(e.Name, taken)
		}
		e.Type = typ
		r.db.Set(meta.EntryKey(dir, e.pos), meta.AppendDirent(nil, e.Dirent))
		r.did("inode %d: the entry %q was corrected", dir, e.Name)
	}
	// Counted here and not from the rows: only entries that stay give a link.
	t.parents++
	if t.isDir() && t.attr.Parent != dir {
		t.attr.Parent, t.changed = dir, true
		r.did("inode %d: its .. leads to inode %d now", e.Ino, dir)
	}
	return true
}

func unused(name string, taken map[string]bool) string {
	for i := 1; ; i++ {
		end := fmt.Sprintf("~%d", i)
		try := name[:min(len(name), meta.MaxName-len(end))] + end
		if !taken[try] {
			return try
		}
	}
}

// fixCounts makes links, entries and the list of orphans fit.
func (r *repairer) fixCounts() {
	for _, ino := range r.sorted() {
		f := r.inodes[ino]
		if f.attr == nil {
			r.leftovers(ino, f)
			continue
		}
		nlink, entries := uint32(f.parents), int64(0)
		if f.isDir() {
			entries = int64(len(f.entries))
			if f.parents > 0 || ino == meta.Root {
				nlink = 2
			}
			for _, e := range f.entries {
				if e.Type == syscall.S_IFDIR && nlink > 0 {
					nlink++
				}
			}
		}
		a := f.attr
		if f.isDir() && a.IsLazy() { // it has more in its vertex
			nlink, entries = max(nlink, a.Nlink), a.Entries
		}
		if a.Nlink != nlink || a.Entries != entries {
			r.did("inode %d: it has %d links and %d entries, and not %d and %d", ino, nlink, entries, a.Nlink, a.Entries)
			a.Nlink, a.Entries, f.changed = nlink, entries, true
		}
		if f.orphan && nlink > 0 {
			r.db.Delete(meta.OrphanKey(ino))
			r.did("inode %d: it was on the list of orphans and has a name", ino)
		}
	}
}

// fixPlaces makes each record say where the inode's only name is.
func (r *repairer) fixPlaces() {
	for _, dir := range r.sorted() {
		for _, e := range r.inodes[dir].entries {
			f := r.inodes[e.Ino]
			a := f.attr
			if f.parents > 1 && !a.Shared && !f.isDir() {
				a.Shared, a.Parent, a.Pos, f.changed = true, 0, 0, true
				r.did("inode %d: it has %d names", e.Ino, f.parents)
			}
			if !a.Shared && a.Pos != 0 && (a.Pos != e.pos || a.Parent != dir) {
				a.Parent, a.Pos, f.changed = dir, e.pos, true
				r.did("inode %d: its name is at %d in inode %d", e.Ino, e.pos, dir)
			}
		}
	}
}

// dropTracking forgets what changed since the last snapshot when something was
// repaired, or else the next one could miss it. That one looks at everything.
func (r *repairer) dropTracking() {
	if len(r.tracking) == 0 || len(r.done) == 0 && !r.badTracking {
		return
	}
	for _, key := range r.tracking {
		r.db.Delete(key)
	}
	r.did("the next snapshot looks at all files")
}

// leftovers drops the rows of an inode that has neither a record nor data.
func (r *repairer) leftovers(ino meta.Ino, f *found) {
	if f.orphan {
		r.db.Delete(meta.OrphanKey(ino))
		r.did("inode %d: it was on the list of orphans and does not exist", ino)
	}
	if f.xattrs == 0 {
		return
	}
	_ = r.db.ScanPrefix(meta.XattrPrefix(ino), func(key, value []byte) error {
		r.aside(key, value, fmt.Errorf("inode %d does not exist", ino))
		return nil
	})
}

func (r *repairer) save(ctx context.Context) {
	counts := meta.Counters{Next: r.next, Form: meta.CountsData, Generation: r.counts.Generation}
	if r.counts == (meta.Counters{}) {
		counts.Generation = meta.NewGeneration() // numbers that were used and removed are not known any more
	}
	for _, ino := range r.sorted() {
		f := r.inodes[ino]
		if f.attr == nil {
			continue
		}
		counts.AddInode(f.attr)
		if f.attr.IsLazyDir() {
			sums, err := rows.LazySums(ctx, r.st, r.db, ino, f.attr)
			if err != nil {
				r.did("inode %d: what is below the cloned directory cannot be counted: %v", ino, err)
			}
			counts.Add(rows.Inodes(sums), sums.Bytes, sums.Data)
		}
		if f.changed {
			r.db.Set(meta.InodeKey(ino), meta.AppendInode(nil, f.attr))
		}
	}
	if counts != r.counts {
		r.db.Set(meta.CounterKey(), counts.Encode())
		if counts.Inodes != r.counts.Inodes || counts.Logical != r.counts.Logical || r.counts.Form == meta.CountsData && counts.Data != r.counts.Data {
			r.did("the volume has %d inodes and %d bytes in files, %d of them in blocks", counts.Inodes, counts.Logical, counts.Data)
		}
	}
}
