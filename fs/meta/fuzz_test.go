package meta

import (
	"bytes"
	"reflect"
	"testing"
)

// Each target feeds a decoder bytes that nobody encoded. What it accepts must
// survive encoding and decoding; what it refuses must be refused with an error.

func FuzzInode(f *testing.F) {
	f.Add(AppendInode(nil, &Inode{Mode: 0o100644, Size: 1 << 40, Atime: Time{-5, 7}, Target: "x"}))
	f.Add(AppendInode(nil, &Inode{Mode: 0o40755, Pos: 7, Shared: true, LazyID: BlockID{1}, Owned: 3}))
	f.Add(AppendInode(nil, &Inode{Mode: 0o100644, Reservation: Reservation{Ranges{{0, 4096}, {12288, 1 << 62}}, 5000}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeInode(b)
		if err != nil {
			return
		}
		again, err := DecodeInode(AppendInode(nil, &n))
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("%+v became %+v (%v)", n, again, err)
		}
	})
}

func FuzzDirent(f *testing.F) {
	f.Add(AppendDirent(nil, Dirent{16, 0o100000, "name"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDirent(b)
		if err != nil {
			return
		}
		again, err := DecodeDirent(AppendDirent(nil, d))
		if err != nil || again != d {
			t.Errorf("%+v became %+v (%v)", d, again, err)
		}
	})
}

func FuzzExtents(f *testing.F) {
	f.Add(AppendExtents(nil, 0, []Extent{{0, 10, 0, BlockID{1}}, {20, 5, 3, BlockID{2}}}), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, page uint16) {
		const span = 1 << 22
		base := int64(page) * (1<<63/span - 1) / (1<<16 - 1) * span // from the first page to the last
		exts, err := DecodeExtents(b, base, span)
		if err != nil {
			return
		}
		at := base
		for _, e := range exts {
			if e.Off < at || e.Len == 0 || e.End() < e.Off || int64(e.Len) > span {
				t.Fatalf("%+v was accepted after %d", e, at)
			}
			at = e.End()
		}
		again, err := DecodeExtents(AppendExtents(nil, base, exts), base, span)
		if err != nil || !reflect.DeepEqual(again, exts) {
			t.Errorf("%+v became %+v (%v)", exts, again, err)
		}
	})
}

func FuzzStaged(f *testing.F) {
	f.Add(AppendStaged(nil, []StagedPart{{0, []byte("a")}, {4000, bytes.Repeat([]byte{1}, 96)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := DecodeStaged(b)
		if err != nil {
			return
		}
		var slot [SlotSize]byte
		for _, p := range parts {
			copy(slot[p.Start:p.Start+len(p.Bytes)], p.Bytes)
		}
		again, err := DecodeStaged(AppendStaged(nil, parts))
		if err != nil || !reflect.DeepEqual(again, parts) {
			t.Errorf("%+v became %+v (%v)", parts, again, err)
		}
	})
}

func FuzzSmall(f *testing.F) {
	f.Add(Counters{Next: 16, Inodes: 1, Logical: -1}.Encode())
	f.Add(Counters{Next: 16, Inodes: 1, Logical: -1, Form: CountsClones}.Encode())
	f.Add(Counters{Next: 16, Inodes: 1, Logical: -1, Form: CountsClones, Generation: 7}.Encode())
	f.Add(Counters{Next: 16, Inodes: 1, Logical: 5, Data: 4, Form: CountsData}.Encode())
	f.Add(EncodePosition(1 << 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCounters(b); err == nil {
			if again, err := DecodeCounters(c.Encode()); err != nil || again != c {
				t.Errorf("%+v became %+v (%v)", c, again, err)
			}
		}
		if pos, err := DecodePosition(b); err == nil {
			if again, err := DecodePosition(EncodePosition(pos)); err != nil || again != pos {
				t.Errorf("%d became %d (%v)", pos, again, err)
			}
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(EntryKey(16, 17))
	f.Add(XattrKey(16, "user.a"))
	f.Fuzz(func(t *testing.T, key []byte) {
		ino, pos, err := KeyNumbers(key)
		if err == nil && !bytes.Equal(EntryKey(ino, pos)[1:], key[1:]) {
			t.Errorf("%x gives %d and %d", key, ino, pos)
		}
		ino, inoErr := KeyIno(key)
		tail, err := KeyTail(key)
		if (err == nil) != (inoErr == nil) {
			t.Errorf("%x: %v and %v", key, err, inoErr)
		}
		if err == nil && !bytes.Equal(XattrKey(ino, tail)[1:], key[1:]) {
			t.Errorf("%x gives %d and %q", key, ino, tail)
		}
		KindOf(key)
	})
}

func FuzzTracking(f *testing.F) {
	f.Add(TouchedKey(300, 16), []byte{1})
	f.Add(GoneKey(300, 16, "name"), Branch{ID: BlockID{1}, Below: Sums{Files: 300}}.Encode())
	f.Add(TrackKey(), Tracking{Epoch: 300, Base: 200, Links: BlockID{4}}.Encode())
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if epoch, ino, flags, err := DecodeTouched(key, value); err == nil {
			if again := TouchedKey(epoch, ino); !bytes.Equal(again[1:], key[1:]) || value[0] != flags {
				t.Errorf("%x became %x", key, again)
			}
		}
		if epoch, dir, name, err := DecodeGone(key); err == nil {
			if again := GoneKey(epoch, dir, name); !bytes.Equal(again[1:], key[1:]) {
				t.Errorf("%x became %x", key, again)
			}
		}
		if b, err := DecodeBranch(value); err == nil {
			if again, err := DecodeBranch(b.Encode()); err != nil || again != b {
				t.Errorf("%+v became %+v (%v)", b, again, err)
			}
		}
		if w, err := DecodeTracking(value); err == nil {
			if again, err := DecodeTracking(w.Encode()); err != nil || again != w {
				t.Errorf("%+v became %+v (%v)", w, again, err)
			}
		}
	})
}
