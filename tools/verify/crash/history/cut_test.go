package history

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCutOfSpans(t *testing.T) {
	times := []Span{{10, 20}, {30, 0}, {50, 60}, {70, 80}}
	for _, tc := range []struct {
		cut                 Cut
		begun, acknowledged int
	}{
		{Cut{1, 2}, 0, 0},
		{Cut{19, 19}, 1, 0},
		{Cut{20, 20}, 1, 1},
		{Cut{20, 29}, 1, 1},
		{Cut{20, 30}, 2, 1},
		{Cut{59, 75}, 4, 1},
		{Cut{60, 69}, 3, 3},
		{Cut{100, 200}, 4, 4},
	} {
		begun, acknowledged := tc.cut.count(times)
		if begun != tc.begun || acknowledged != tc.acknowledged {
			t.Errorf("%+v: %d begun, %d acknowledged; want %d, %d", tc.cut, begun, acknowledged, tc.begun, tc.acknowledged)
		}
	}
}

// The cut history is an own one: the whole is judged again, by later images.
func TestCutLeavesTheWholeAlone(t *testing.T) {
	list := ops(Op{Kind: Create, Path: "a"}, Op{Kind: Fsync, Path: "a"}, Op{Kind: Unlink, Path: "a"})
	whole := slices.Clone(list)
	cut := Cut{Began: list[1].End - 1, Ended: list[2].Start}.Ops(list)
	if !slices.Equal(list, whole) || len(cut) != 3 || cut[0].End == 0 || cut[1].End != 0 || cut[2].End != 0 {
		t.Errorf("%+v, of %+v", cut, list)
	}

	s := Saver{Base: []byte("0"), Saves: [][]byte{[]byte("1"), []byte("2")}, Synced: 2, Times: []Span{{1, 5}, {6, 9}}}
	c := Cut{Began: 8, Ended: 8}.Saver(s)
	if len(c.Saves) != 2 || c.Synced != 1 || c.Times[1].End != 0 || s.Synced != 2 || s.Times[1].End != 9 {
		t.Errorf("%+v, of %+v", c, s)
	}
	j := Journaled{Txns: []Txn{{Tag: 1}, {Tag: 2}}, Committed: 2, Times: []Span{{1, 5}, {6, 9}}}
	if c := (Cut{Began: 4, Ended: 5}).Journaled(j); len(c.Txns) != 1 || c.Committed != 0 || j.Committed != 2 {
		t.Errorf("%+v, of %+v", c, j)
	}
}

// An image holds what was done at some instant of the copying: it is accepted,
// and one from before the last acknowledged fsync, or from after it, is not.
func TestCutOfRandomHistories(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		list := randomHistory(r, 40)
		cut := Cut{Began: r.Int64N(400)}
		cut.Ended = cut.Began + r.Int64N(60)
		kept := cut.Ops(list)
		promised := durable(kept)
		for n := 0; n <= len(list); n++ {
			s := after(list[:n]...)
			before := n > 0 && list[n-1].Start > cut.Ended
			allowed := n >= promised && !before
			_, err := Ordered(State{}, kept, s)
			if allowed && err != nil {
				t.Fatalf("seed %d: prefix %d of %d, promised %d: %v", seed, n, len(kept), promised, err)
			}
			if !allowed && err == nil && !sameAsAllowed(list, s, promised, len(kept)) {
				t.Fatalf("seed %d: prefix %d is taken, of %d, promised %d", seed, n, len(kept), promised)
			}
		}
	}
}

func sameAsAllowed(list []Op, s State, from, to int) bool {
	for n := from; n <= to; n++ {
		if after(list[:n]...).Diff(s) == "" {
			return true
		}
	}
	return false
}

// Several ops can be without an acknowledgement, and a part of any write among
// them can be there.
func TestPartOfAWriteInTheMiddleOfACut(t *testing.T) {
	list := ops(
		Op{Kind: Create, Path: "a"},
		write("a", 0, 3*PageSize, 1),
		write("a", 3*PageSize, PageSize, 2),
		Op{Kind: Create, Path: "b"},
	)
	kept := Cut{Began: list[0].End, Ended: list[3].Start}.Ops(list)
	seen := after(list[0], write("a", 0, 2*PageSize, 1))
	m, err := Ordered(State{}, kept, seen)
	if err != nil || m != (Match{2, 2}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// A write whose first page was there before it, from another with the same tag,
// is not known to be there.
func TestPartOfAWriteThatChangesNothing(t *testing.T) {
	list := unfinished(ops(
		Op{Kind: Create, Path: "a"},
		write("a", 0, 2*PageSize, 1),
		write("a", PageSize, 2*PageSize, 1),
	))
	m, err := Ordered(State{}, list, after(list[:2]...))
	if err != nil || m != (Match{2, 3}) {
		t.Errorf("%+v, %v", m, err)
	}
}
