package vertex

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

func golden() (File, string) {
	a, b := chunk.Sum([]byte("a")), chunk.Sum([]byte("b"))
	v := File{Size: 1 << 21, Data: 70_000, Parts: []Part{
		{ID: a, Len: 65_536}, {Hole: true, Len: 1<<21 - 70_000}, {ID: b, Len: 4464, Skip: 100},
	}}
	return v, "02" + a.String() + b.String() + "01" + "00" + "80808001" + "f0a204" +
		"808010" + "c1f4ee03" + "c28b01" + "64"
}

// The encoding of version 1, byte for byte.
func TestFileGolden(t *testing.T) {
	v, want := golden()
	if got := hex.EncodeToString(v.Encode()); got != want {
		t.Errorf("encoded\n%s, want\n%s", got, want)
	}
	b, err := hex.DecodeString(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeFile(b)
	if diff := cmp.Diff(v, got); diff != "" || err != nil {
		t.Errorf("decoded: %v\n%s", err, diff)
	}
}

func TestFileRefusals(t *testing.T) {
	id := chunk.Sum([]byte("a"))
	for name, v := range map[string]File{
		"size":          {Size: 2, Data: 1, Parts: []Part{{ID: id, Len: 1}}},
		"data":          {Size: 1, Data: 0, Parts: []Part{{ID: id, Len: 1}}},
		"empty part":    {Parts: []Part{{ID: id}}},
		"two holes":     {Size: 2, Parts: []Part{{Hole: true, Len: 1}, {Hole: true, Len: 1}}},
		"hole above":    {Height: 1, Size: 1, Parts: []Part{{Hole: true, Len: 1}}},
		"skip above":    {Height: 1, Size: 1, Data: 1, Parts: []Part{{ID: id, Len: 1, Skip: 1}}},
		"empty above":   {Height: 1},
		"too high":      {Height: maxHeight + 1, Size: 1, Data: 1, Parts: []Part{{ID: id, Len: 1}}},
		"long part":     {Size: 20 << 20, Data: 20 << 20, Parts: []Part{{ID: id, Len: 20 << 20}}},
		"skip too far":  {Size: 1, Data: 1, Parts: []Part{{ID: id, Len: 1, Skip: tiering.MaxRaw}}},
		"more than all": {Height: 1, Size: 1, Data: 2, Parts: []Part{{ID: id, Len: 1}}},
	} {
		if got, err := DecodeFile(v.Encode()); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: decoded %+v, %v", name, got, err)
		}
	}
	v, _ := golden()
	whole := v.Encode()
	for n := range whole {
		if _, err := DecodeFile(whole[:n]); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("the first %d bytes decode: %v", n, err)
		}
	}
	if _, err := DecodeFile(append(bytes.Clone(whole), 0)); !errors.Is(err, errs.ErrCorrupt) {
		t.Error("a byte too many decodes")
	}
}

// What decodes encodes to the same bytes: a vertex has one encoding.
func FuzzFile(f *testing.F) {
	v, _ := golden()
	f.Add(v.Encode())
	f.Add((&File{}).Encode())
	f.Add((&File{Height: 1, Size: 9, Data: 5, Parts: []Part{{ID: chunk.ID{1}, Len: 9}}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeFile(b)
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
			return
		}
		if again := v.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%x encodes to %x", b, again)
		}
	})
}
