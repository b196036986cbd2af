package meta

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// TestWorkedSizes holds the format to the sizes that its drawings state.
func TestWorkedSizes(t *testing.T) {
	var page []Extent
	for i := range int64(64) {
		page = append(page, Extent{Off: i << 16, Len: 1 << 16, ID: BlockID{byte(i)}})
	}
	if n := len(AppendExtents(nil, 0, page)); n != 2304 {
		t.Errorf("64 blocks take %d bytes", n)
	}
	if n := len(AppendStaged(nil, []StagedPart{{0, make([]byte, SlotSize)}})); n != 4099 {
		t.Errorf("a whole slot takes %d bytes", n)
	}
}

func TestExtremes(t *testing.T) {
	for _, n := range []Inode{
		{},
		{
			Mode: math.MaxUint32, UID: math.MaxUint32, GID: math.MaxUint32, Nlink: math.MaxUint32, Rdev: math.MaxUint32,
			Size: math.MaxInt64, Alloc: math.MaxInt64, Entries: math.MaxInt64, Parent: math.MaxInt64, Xattrs: math.MaxUint32,
			Atime: Time{math.MinInt64, 999_999_999}, Mtime: Time{math.MaxInt64, 0}, Ctime: Time{-1, 1}, Btime: Time{0, 5},
			Target: strings.Repeat("t", MaxTarget), Pos: math.MaxInt64, Shared: true, LazyID: BlockID{31: 1}, Owned: math.MaxInt64,
			Reservation: Reservation{Ranges{{0, 4096}, {8192, math.MaxInt64 - 4095}}, 4096},
		},
	} {
		if again, err := DecodeInode(AppendInode(nil, &n)); err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("%+v became %+v (%v)", n, again, err)
		}
	}
	last := Extent{Off: math.MaxInt64 - 1, Len: 1, Skip: math.MaxUint32 - 1, ID: BlockID{1}}
	const span = 1 << 22
	base := last.Off / span * span
	if again, err := DecodeExtents(AppendExtents(nil, base, []Extent{last}), base, span); err != nil || again[0] != last {
		t.Errorf("%+v became %+v (%v)", last, again, err)
	}
}

// TestExtents encodes pages at random and cuts every record short.
func TestExtents(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const base, span = 1 << 30, 1 << 20
	for range 300 {
		var page []Extent
		for at := int64(base) + rnd.Int64N(span); at < base+span; {
			e := Extent{Off: at, Len: 1 + rnd.Uint32N(span/4), ID: BlockID{byte(rnd.Uint32())}}
			if rnd.IntN(2) == 0 {
				e.Skip = rnd.Uint32N(1000)
			}
			page = append(page, e)
			at = e.End() + max(0, rnd.Int64N(span/4)-span/8)
		}
		b := AppendExtents(nil, base, page)
		again, err := DecodeExtents(b, base, span)
		if err != nil || !reflect.DeepEqual(again, page) {
			t.Fatalf("%+v became %+v (%v)", page, again, err)
		}
		for cut := range b {
			if some, err := DecodeExtents(b[:cut], base, span); err == nil && !reflect.DeepEqual(some, page[:len(some)]) {
				t.Fatalf("cut to %d bytes: %+v", cut, some)
			}
		}
	}
}

// TestOrder: keys sort as what they name does.
func TestOrder(t *testing.T) {
	keys := [][]byte{
		EntryKey(1, 0), EntryKey(1, 1), EntryKey(1, 256), EntryKey(1, math.MaxUint64), EntryKey(2, 0),
		EntryKey(256, 0), EntryKey(math.MaxInt64, 5),
	}
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			t.Errorf("key %d is not before key %d", i-1, i)
		}
	}
	from, to := EntryRange(1, 1)
	if bytes.Compare(from, keys[1]) > 0 || bytes.Compare(to, keys[3]) <= 0 || bytes.Compare(to, keys[4]) > 0 {
		t.Error("the range of a directory is not its entries")
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, ".": false, "..": false, "...": true, "a/b": false, "a\x00": false, "\xff\xfe": true,
		strings.Repeat("n", MaxName): true, strings.Repeat("n", MaxName+1): false,
	} {
		if got := ValidName(name) == nil; got != want {
			t.Errorf("%q valid: %t", name, got)
		}
	}
}

// TestInodeGolden pins the bytes of records, and that those of version 1 are read.
func TestInodeGolden(t *testing.T) {
	now := Time{1_700_000_000, 123_456_789}
	n := Inode{
		Mode: 0o100644, UID: 1000, GID: 1000, Nlink: 1, Size: 65536, Alloc: 65536, Parent: 200, Pos: 300,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}
	const stamp = "80c49fd50c" + "959aef3a"
	const numbers = "a48302" + "e807" + "e807" + "01" + "00" + "808004" + "808004" + "00"
	want := "02" + numbers + "c801" + "00" + stamp + stamp + stamp + stamp + "00" + "ac02"
	b := AppendInode(nil, &n)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	t.Logf("%d bytes", len(b))
	old, err := hex.DecodeString("01" + numbers + "00" + "00" + stamp + stamp + stamp + stamp)
	if err != nil {
		t.Fatal(err)
	}
	n.Parent, n.Pos = 0, 0
	if got, err := DecodeInode(old); err != nil || !reflect.DeepEqual(got, n) {
		t.Errorf("version 1: %+v (%v)", got, err)
	}
	old[8] = 2 // links
	if got, err := DecodeInode(old); err != nil || !got.Shared || got.Nlink != 2 {
		t.Errorf("version 1 with two links: %+v (%v)", got, err)
	}
}

func TestTrackingRecords(t *testing.T) {
	b := Branch{ID: BlockID{1, 2}, Below: Sums{1, 2, 3, 1 << 40, 5, 6}, Entries: 7, Subdirs: 8}
	if got, err := DecodeBranch(b.Encode()); err != nil || got != b {
		t.Errorf("%+v became %+v (%v)", b, got, err)
	}
	w := Tracking{Epoch: 300, Base: 200, Snapshot: BlockID{3}, Links: BlockID{4}, Table: Sums{Files: 5, Bytes: 6}, Appended: [4]int64{7, 8, 9, 10}}
	if got, err := DecodeTracking(w.Encode()); err != nil || got != w {
		t.Errorf("%+v became %+v (%v)", w, got, err)
	}
	if epoch, dir, name, err := DecodeGone(GoneKey(300, 16, "a")); epoch != 300 || dir != 16 || name != "a" || err != nil {
		t.Errorf("gone: %d %d %q (%v)", epoch, dir, name, err)
	}
	if epoch, ino, flags, err := DecodeTouched(TouchedKey(300, 16), []byte{2}); epoch != 300 || ino != 16 || flags != 2 || err != nil {
		t.Errorf("touched: %d %d %d (%v)", epoch, ino, flags, err)
	}
	for _, key := range [][]byte{TouchedKey(300, 16), GoneKey(300, 16, "a")} {
		for _, in := range []struct {
			first, end uint64
			want       bool
		}{{0, 300, false}, {300, 301, true}, {200, 400, true}, {301, 1 << 40, false}} {
			from, to := TouchedRange(in.first, in.end)
			if KindOf(key) == KindGone {
				from, to = GoneRange(in.first, in.end)
			}
			if got := bytes.Compare(from, key) <= 0 && bytes.Compare(key, to) < 0; got != in.want {
				t.Errorf("%x in [%d, %d): %v", key, in.first, in.end, got)
			}
		}
	}
}
