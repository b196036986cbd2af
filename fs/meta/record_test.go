package meta

import (
	"bytes"
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
	if n := len(AppendPatches(nil, []Patch{{0, make([]byte, SlotSize)}})); n != 4099 {
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
			Target: strings.Repeat("t", MaxTarget),
		},
	} {
		if again, err := DecodeInode(AppendInode(nil, &n)); err != nil || again != n {
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
