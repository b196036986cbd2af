package store

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"
)

func goldenName() (ObjectInfo, string) {
	o := ObjectInfo{Name: "backup", ID: ID{31: 1}, Size: 70_000, Data: 65_536, Created: time.UnixMilli(1_764_000_000_123)}
	return o, "01" + o.ID.String() + "01" + "f6a1bfe9d666" + "f0a204" + "808004" + hex.EncodeToString([]byte("backup"))
}

// The encoding of version 1, byte for byte.
func TestNameVertexGolden(t *testing.T) {
	o, want := goldenName()
	b := o.vertex()
	if got := hex.EncodeToString(b); got != want || len(b) != 52 {
		t.Errorf("%d bytes %s, want %s", len(b), got, want)
	}
	if got, err := decodeNameVertex(b); err != nil || got != o {
		t.Errorf("decoded %+v (%v)", got, err)
	}
	for cut := range len(b) - len(o.Name) + 1 {
		if _, err := decodeNameVertex(b[:cut]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
}

func FuzzNameVertex(f *testing.F) {
	o, _ := goldenName()
	f.Add(o.vertex())
	f.Add(o.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := decodeNameVertex(b); err == nil {
			// Numbers may be longer than they need be, and decode alike.
			if again, err := decodeNameVertex(o.vertex()); err != nil || again != o {
				t.Errorf("%+v became %+v (%v)", o, again, err)
			}
		}
		if o, err := decodeObject("x", b); err == nil {
			if again, err := decodeObject("x", o.encode()); err != nil || again != o {
				t.Errorf("%+v became %+v (%v)", o, again, err)
			}
		}
	})
}
