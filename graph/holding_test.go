package graph

import (
	"fmt"
	"slices"
	"testing"
)

func TestHolding(t *testing.T) {
	s := newSample(t)
	for _, test := range []struct {
		chosen []ID
		want   []string
	}{
		{[]ID{fake(1)}, []string{"1 big 0+10", "1 big 30+10"}},
		{[]ID{fake(2)}, []string{"2 big 20+10", "2 big 50+10", "2 small 0+5"}},
		{[]ID{fake(3)}, []string{"3 alias 0+5"}}, // by way of the link table
		{[]ID{fake(4)}, []string{"4 alias 0+0"}}, // extended attributes
		{[]ID{s.bigPart, fake(3)}, []string{"part big 0+30", "part big 30+30", "3 alias 0+5"}},
		{[]ID{s.root, s.table}, []string{"root  0+0", "table  0+0"}},
		{[]ID{s.snapshot}, []string{"snapshot  0+0"}},
		{[]ID{fake(5)}, nil},
	} {
		h := Holding{Source: s, Chosen: func(id ID) bool { return slices.Contains(test.chosen, id) }}
		for round := range 2 {
			var got []string
			err := h.Snapshot(t.Context(), s.snapshot, func(at Held) error {
				got = append(got, fmt.Sprintf("%s %s %d+%d", s.label(at.Block), at.Path, at.Offset, at.Bytes))
				return nil
			})
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("round %d: %q, %v, want %q", round, got, err, test.want)
			}
		}
	}
}

// What was read once and has no chosen block below is not read again.
func TestHoldingReadsOnce(t *testing.T) {
	s := newSample(t)
	h := Holding{Source: s, Chosen: func(ID) bool { return false }}
	for range 3 {
		if err := h.Snapshot(t.Context(), s.snapshot, func(Held) error { return fmt.Errorf("none is chosen") }); err != nil {
			t.Fatal(err)
		}
	}
	if s.reads != 5 {
		t.Errorf("%d reads of 5 vertices", s.reads)
	}
}

// The rest is named when a vertex cannot be read.
func TestHoldingPassesOverWhatIsLost(t *testing.T) {
	s := newSample(t)
	delete(s.blocks, s.bigPart)
	var got []string
	h := Holding{Source: s, Chosen: func(id ID) bool { return id == s.bigPart || id == fake(2) }}
	err := h.Snapshot(t.Context(), s.snapshot, func(at Held) error {
		got = append(got, s.label(at.Block)+" "+at.Path)
		return nil
	})
	if want := []string{"part big", "part big", "2 small"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}
