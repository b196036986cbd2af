package graph

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store"
)

func num(n byte) ID { return ID{31: n} }

func goldenDir() (*node, string) {
	n := &node{form: Directory, items: []item{
		{key: "README", entries: 1, entry: &Entry{
			Name: "README", Mode: syscall.S_IFREG | 0o644, UID: 1000, GID: 100, Size: 70_000, Data: 65_536,
			Mtime: Time{1_764_000_000, 5}, Btime: Time{-1, 999_999_999},
			Xattrs: []Xattr{{"user.a", []byte("123")}}, Link: Link{num(1), store.KindFile},
		}},
		{key: "also", entries: 1, entry: &Entry{Name: "also", Mode: syscall.S_IFREG, Ident: 300}},
		{key: "link", entries: 1, entry: &Entry{Name: "link", Mode: syscall.S_IFLNK | 0o777, Target: "README"}},
		{key: "src", entries: 1, entry: &Entry{
			Name: "src", Mode: syscall.S_IFDIR | 0o755, Entries: 3, Subdirs: 1, Below: Sums{2, 1, 0, 300, 200, 1},
			XattrLink: Link{num(3), store.KindData}, Link: Link{num(2), store.KindTree},
		}},
	}}
	times := "00 00" + "00 00" + "00 00" + "00 00"
	want := "03" + num(1).String() + num(2).String() + num(3).String() + "01 00 00" +
		"06" + hex.EncodeToString([]byte("README")) + "05" + "a48302 e807 64" +
		"00 00" + "8084a4920d 05" + "00 00" + "01 ff93ebdc03" + "f0a204 808004" +
		"01 06" + hex.EncodeToString([]byte("user.a")) + "03 313233" +
		"04" + hex.EncodeToString([]byte("also")) + "20 808002 ac02" +
		"04" + hex.EncodeToString([]byte("link")) + "00 ffc302 00 00" + times + "06" + hex.EncodeToString([]byte("README")) +
		"03" + hex.EncodeToString([]byte("src")) + "19 ed8301 00 00" + times + "03 01" + "02 01 00 ac02 c801 01"
	return n, strings.ReplaceAll(want, " ", "")
}

func goldenInner() (*node, string) {
	n := &node{form: LinkTable, height: 1, items: []item{
		{key: TableKey(77), id: num(1), entries: 90}, {key: TableKey(1 << 20), id: num(2), entries: 2},
	}}
	want := "02" + num(1).String() + num(2).String() + "010101" +
		"08" + "000000000000004d" + "5a" + "08" + "0000000000100000" + "02"
	return n, want
}

func goldenSnapshot() (Snapshot, string) {
	s := Snapshot{
		Root:    Entry{Mode: syscall.S_IFDIR | 0o755, Entries: 4, Subdirs: 1, Below: Sums{1, 1, 3, 300, 200, 1}, Link: Link{num(1), store.KindTree}},
		Table:   num(2),
		Parents: []ID{num(9)},
		Created: Time{1_764_000_000, 0},
		Volume:  "v",
		Host:    "host",
		Message: "first",
		Tags:    []string{"a", "b"},
		Totals: Totals{
			Files: 1, Dirs: 2, Others: 3, Logical: 300, Data: 200, Referenced: 400, Unique: 100,
			Written: 50, New: 40, NewStored: 30, Entropy: 7999,
		},
	}
	want := "02" + num(1).String() + num(2).String() + "01 01" +
		"01 ed8301 00 00" + "00 00 00 00 00 00 00 00" + "04 01" + "01 01 03 ac02 c801 01" +
		"01" + num(9).String() + "8084a4920d 00" + "01 76" + "04 686f7374" + "05 6669727374" +
		"02 01 61 01 62" + "01 02 03 ac02 c801 9003 64 32 28 1e bf3e"
	return s, strings.ReplaceAll(want, " ", "")
}

// The encodings of version 1, byte for byte.
func TestGolden(t *testing.T) {
	for name, golden := range map[string]func() (*node, string){"directory": goldenDir, "inner": goldenInner} {
		n, want := golden()
		if got := hex.EncodeToString(n.encode()); got != want {
			t.Errorf("%s: encoded\n%s, want\n%s", name, got, want)
		}
		b, err := hex.DecodeString(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeNode(b)
		if err != nil || !reflect.DeepEqual(n, got) {
			t.Errorf("%s: decoded %+v: %v", name, got, err)
		}
	}
	s, want := goldenSnapshot()
	b, err := s.Encode()
	if got := hex.EncodeToString(b); got != want || err != nil {
		t.Errorf("snapshot: encoded (%v)\n%s, want\n%s", err, got, want)
	}
	got, err := DecodeSnapshot(b)
	if diff := cmp.Diff(s, got); diff != "" || err != nil {
		t.Errorf("snapshot: decoded: %v\n%s", err, diff)
	}
}

// The sizes that docs/format/vertex.md works out.
func TestWorkedSizes(t *testing.T) {
	dir, _ := goldenDir()
	inner, _ := goldenInner()
	s, _ := goldenSnapshot()
	snap, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string][2]int{
		"directory": {len(dir.encode()), 213}, "inner": {len(inner.encode()), 88}, "snapshot": {len(snap), 163},
		"empty": {len((&node{}).encode()), 4},
	} {
		if x[0] != x[1] {
			t.Errorf("%s takes %d bytes, the page says %d", name, x[0], x[1])
		}
	}
}

// Every byte cut off, and every byte more, is refused.
func TestCutShort(t *testing.T) {
	dir, _ := goldenDir()
	inner, _ := goldenInner()
	s, _ := goldenSnapshot()
	snap, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(b []byte, decode func([]byte) error) {
		for cut := range b {
			if err := decode(b[:cut]); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%x cut to %d bytes: %v", b, cut, err)
			}
		}
		if err := decode(append(bytes.Clone(b), 0)); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%x and a byte more: %v", b, err)
		}
	}
	node := func(b []byte) error { _, err := decodeNode(b); return err }
	refuse(dir.encode(), node)
	refuse(inner.encode(), node)
	refuse(snap, func(b []byte) error { _, err := DecodeSnapshot(b); return err })
}

func TestEntryRefusals(t *testing.T) {
	file := func(change func(e *Entry)) *Entry {
		e := fileEntry("a", 1)
		change(e)
		return e
	}
	for name, e := range map[string]*Entry{
		"file without content":   file(func(e *Entry) { e.Link = Link{} }),
		"file with a tree":       file(func(e *Entry) { e.Link.Kind = store.KindTree }),
		"empty file and content": file(func(e *Entry) { e.Size, e.Data = 0, 0 }),
		"more data than size":    file(func(e *Entry) { e.Data++ }),
		"negative size":          file(func(e *Entry) { e.Size = -1 }),
		"late nanosecond":        file(func(e *Entry) { e.Mtime.Nsec = 1e9 }),
		"stray target":           file(func(e *Entry) { e.Target = "x" }),
		"stray device":           file(func(e *Entry) { e.Rdev = 1 }),
		"stray entries":          file(func(e *Entry) { e.Entries = 1 }),
		"links in a directory":   file(func(e *Entry) { e.Nlink = 2 }),
		"an identity and more":   file(func(e *Entry) { e.Ident = 2 }),
		"xattrs in no order":     file(func(e *Entry) { e.Xattrs = []Xattr{{"b", nil}, {"a", nil}} }),
		"xattrs too long":        file(func(e *Entry) { e.Xattrs = []Xattr{{"b", make([]byte, 1024)}} }),
		"xattrs twice": file(func(e *Entry) {
			e.Xattrs, e.XattrLink = []Xattr{{"b", nil}}, Link{num(1), store.KindData}
		}),
		"name with a slash": file(func(e *Entry) { e.Name = "a/b" }),
		"dot":               file(func(e *Entry) { e.Name = "." }),
		"long name":         file(func(e *Entry) { e.Name = strings.Repeat("n", 256) }),
		"link to nowhere":   {Name: "a", Mode: syscall.S_IFLNK},
		"fifo with content": {Name: "a", Mode: syscall.S_IFIFO, Link: Link{num(1), store.KindData}},
		"dir without tree":  {Name: "a", Mode: syscall.S_IFDIR},
		"no type":           {Name: "a", Mode: 0o644},
		"two types":         {Name: "a", Mode: syscall.S_IFMT},
	} {
		if err := NewTreeBuilder(newMemory(), Directory).Add(e); !errors.Is(err, store.ErrConfig) {
			t.Errorf("%s: add says %v", name, err)
		}
		n := &node{items: []item{{key: e.Name, entry: e, entries: 1}}}
		if got, err := decodeNode(n.encode()); err == nil && got.items[0].entry.Equal(e) {
			t.Errorf("%s: decoded", name)
		}
	}
	for name, e := range map[string]*Entry{
		"no number of links": file(func(e *Entry) { e.Name = TableKey(5) }),
		"a name":             file(func(e *Entry) { e.Nlink = 2 }),
		"identity 0":         file(func(e *Entry) { e.Name, e.Nlink = TableKey(0), 2 }),
	} {
		if err := NewTreeBuilder(newMemory(), LinkTable).Add(e); !errors.Is(err, store.ErrConfig) {
			t.Errorf("%s in a link table: %v", name, err)
		}
	}
}

func TestXattrSet(t *testing.T) {
	set := []Xattr{{"user.a", []byte("123")}, {"user.b", []byte{}}}
	b := AppendXattrs(nil, set)
	if got, err := DecodeXattrs(b); err != nil || cmp.Diff(set, got) != "" || len(b) != XattrsSize(set) || XattrsSize(set[:1]) != 12 {
		t.Errorf("%v (%v), %d bytes", got, err, len(b))
	}
	for cut := range b {
		if _, err := DecodeXattrs(b[:cut]); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("cut to %d: %v", cut, err)
		}
	}
}

// What a decoder takes, its encoder makes of the result, byte for byte.

func FuzzTreeVertex(f *testing.F) {
	dir, _ := goldenDir()
	inner, _ := goldenInner()
	for _, n := range []*node{dir, inner, {}} {
		f.Add(n.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNode(b)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := n.encode(); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
		if _, err := treeEdges(b); err != nil {
			t.Error(err)
		}
	})
}

func FuzzSnapshotVertex(f *testing.F) {
	s, _ := goldenSnapshot()
	b, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSnapshot(b)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x became %x (%v)", b, again, err)
		}
	})
}

func FuzzXattrs(f *testing.F) {
	f.Add(AppendXattrs(nil, []Xattr{{"user.a", []byte("123")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := DecodeXattrs(b)
		if err == nil && !bytes.Equal(AppendXattrs(nil, set), b) {
			t.Errorf("%x became %v", b, set)
		}
	})
}
