package history

import (
	"bytes"
	"fmt"
	"slices"
)

// Paged judges a worker that writes through the kernel's page cache, which
// hands dirty pages to the daemon when and in what order it likes, while
// changes of names go there at once. So after a crash
//   - the names are those after some prefix of the ops, no shorter than
//     promised;
//   - each page of a file is as it was at some moment since the file's last
//     acknowledged fsync, followed by zeroes where only a later page made the
//     file longer;
//   - the file is no shorter than it was then, and no longer than it ever was.
//
// Such a worker makes no truncates, which would mix pages of several moments.
func Paged(base State, ops []Op, seen State) error {
	files := newFiles(base)
	promised := durable(ops)
	var problem error
	for k := 0; k <= len(ops); k++ {
		if k > 0 {
			files.apply(ops[k-1])
		}
		if k < promised || !files.sameNames(seen) {
			continue
		}
		if k > promised && !ops[k-1].names() {
			continue // judged at k-1: no other names, so the same files
		}
		// Contents are judged with all versions, those after k too: the file
		// must be followed to the end.
		problem = files.judge(ops[k:], seen)
		if problem == nil {
			return nil
		}
	}
	if problem == nil {
		problem = fmt.Errorf("the names %q are those of no moment between op %d, promised by fsync, and op %d, the last", seen.Names(), promised, len(ops))
	}
	return problem
}

// A file has an identity that renames do not change.
type file struct {
	versions [][]byte // since the last acknowledged fsync, that one first
}

type files map[string]*file

func newFiles(base State) files {
	fs := files{}
	for name, content := range base {
		fs[name] = &file{versions: [][]byte{content}}
	}
	return fs
}

func (fs files) apply(op Op) {
	switch op.Kind {
	case Create, Mkdir:
		fs[op.Path] = &file{versions: [][]byte{{}}}
	case Write:
		f := fs[op.Path]
		// A version is never changed once it is listed, as the page of any of them may be what is
		// seen.
		s := State{op.Path: slices.Clone(f.versions[len(f.versions)-1])}
		s.Apply(op)
		f.versions = append(f.versions, s[op.Path])
	case Rename:
		fs[op.To] = fs[op.Path]
		delete(fs, op.Path)
	case Unlink, Rmdir:
		delete(fs, op.Path)
	case Fsync:
		// An fsync that returned rules out all versions before it.
		if f := fs[op.Path]; op.End != 0 {
			f.versions = f.versions[len(f.versions)-1:]
		}
	case Truncate:
		// A bug of the caller's, which is to choose none.
		panic("history: Paged cannot judge a truncate")
	}
}

func (fs files) sameNames(seen State) bool {
	if len(fs) != len(seen) {
		return false
	}
	for name := range fs {
		if _, ok := seen[name]; !ok {
			return false
		}
	}
	return true
}

// judge follows copies of the files through the rest of the ops, and then looks
// at those that were there before.
func (fs files) judge(rest []Op, seen State) error {
	later := files{}
	at := map[string]*file{}
	for name, f := range fs {
		// In both maps the same copy: names change as the rest goes on, and the file is found again
		// by the name it had here.
		c := &file{versions: slices.Clone(f.versions)}
		later[name], at[name] = c, c
	}
	for _, op := range rest {
		later.apply(op)
	}
	for name, f := range at {
		if err := f.allows(seen[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (f *file) allows(seen []byte) error {
	least, most := len(f.versions[0]), len(f.versions[len(f.versions)-1])
	if len(seen) < least || len(seen) > most {
		return fmt.Errorf("%d bytes long; it was between %d, when last fsynced, and %d", len(seen), least, most)
	}
	for off := 0; off < len(seen); off += PageSize {
		// Each page by itself, since the kernel may have written any of them and in any order.
		page := seen[off:min(off+PageSize, len(seen))]
		if !slices.ContainsFunc(f.versions, func(v []byte) bool { return pageOf(v, off, page) }) {
			newest := f.versions[len(f.versions)-1]
			return fmt.Errorf("page at %d is of none of the %d versions since the last fsync; %s",
				off, len(f.versions), explain(newest[:min(len(newest), off+len(page))], seen[:off+len(page)]))
		}
	}
	return nil
}

// pageOf tells whether page is version's at off, cut or extended by zeroes.
func pageOf(version []byte, off int, page []byte) bool {
	var have []byte
	if off < len(version) {
		have = version[off:min(len(version), off+len(page))]
	}
	if !bytes.Equal(page[:len(have)], have) {
		return false
	}
	for _, b := range page[len(have):] {
		if b != 0 {
			return false
		}
	}
	return true
}
