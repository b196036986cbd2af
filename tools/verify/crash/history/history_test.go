package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// ops numbers the given operations in time and acknowledges all of them.
func ops(list ...Op) []Op {
	for i := range list {
		list[i].Start, list[i].End = int64(10*i+1), int64(10*i+5)
	}
	return list
}

// unfinished takes back the acknowledgement of the last.
func unfinished(list []Op) []Op {
	list[len(list)-1].End = 0
	return list
}

func write(path string, off, n int64, tag int) Op {
	return Op{Kind: Write, Path: path, Off: off, Len: n, Tag: NewTag(1, 1, tag)}
}

// after is the state after some ops on an empty directory.
func after(list ...Op) State {
	s := State{}
	for _, op := range list {
		s.Apply(op)
	}
	return s
}

func TestFillDependsOnTagAndOffsetOnly(t *testing.T) {
	whole := make([]byte, 3*PageSize)
	Fill(whole, NewTag(1, 2, 3), 100)
	part := make([]byte, 1000)
	Fill(part, NewTag(1, 2, 3), 100+777)
	if string(part) != string(whole[777:1777]) {
		t.Error("a part filled by itself differs from the same part of the whole")
	}
	for i := 0; i+8 <= len(whole); i += 8 {
		if string(whole[i:i+8]) == strings.Repeat("\x00", 8) {
			t.Fatalf("zeroes at %d: a lost page could not be told", i)
		}
	}
	other := make([]byte, len(whole))
	Fill(other, NewTag(1, 2, 4), 100)
	if string(other[:unit]) == string(whole[:unit]) {
		t.Error("two tags, the same bytes")
	}
}

func TestOrdered(t *testing.T) {
	history := ops(
		Op{Kind: Create, Path: "a"},           // 1
		write("a", 0, 8192, 1),                // 2
		Op{Kind: Fsync, Path: "a"},            // 3
		write("a", 4096, 4096, 2),             // 4
		Op{Kind: Create, Path: "b"},           // 5
		write("b", 0, 4096, 3),                // 6
		Op{Kind: Rename, Path: "b", To: "a"},  // 7
		Op{Kind: Mkdir, Path: "d/"},           // 8
		Op{Kind: Truncate, Path: "a", Len: 5}, // 9
	)
	at := func(n int) State { return after(history[:n]...) }
	for n := 2; n <= len(history); n++ {
		m, err := Ordered(State{}, history, at(n))
		if err != nil || n < m.First || n > m.Last {
			t.Errorf("the state after %d ops: %+v, %v", n, m, err)
		}
	}
	zeroed := at(6)
	clear(zeroed["a"][:4096])
	foreign := at(6)
	copy(foreign["a"], foreign["b"])
	for name, tc := range map[string]struct {
		seen State
		want string
	}{
		"fsynced write lost":           {at(1), "a: 0 bytes long, not 8192"},
		"everything lost":              {State{}, "a is missing"},
		"zeroes where data was":        {zeroed, "a: at offset 0: zeroes, not bytes of write 1.1.1 for offset 0"},
		"another file's bytes":         {foreign, "bytes of write 1.1.3 for offset 0, not bytes of write 1.1.1"},
		"rename without source's data": {State{"a": {}}, "0 bytes long"},
		"a name from nowhere":          {State{"a": at(4)["a"], "x": {}}, "x should not be there"},
	} {
		_, err := Ordered(State{}, history, tc.seen)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, tc.want)
		}
	}
	skipped := after(history[0], history[1], history[4]) // op 5 without op 4
	if _, err := Ordered(State{}, history, skipped); err == nil {
		t.Error("an op is there and one before it is not, and nobody minds")
	}
}

func TestOrderedTakesAPartOfTheLastWriteOnly(t *testing.T) {
	torn := func(n int64) State { return after(Op{Kind: Create, Path: "a"}, write("a", 0, n, 1)) }
	history := unfinished(ops(Op{Kind: Create, Path: "a"}, write("a", 0, 3*PageSize, 1)))
	if _, err := Ordered(State{}, history, torn(2*PageSize)); err != nil {
		t.Error(err)
	}
	if _, err := Ordered(State{}, history, torn(2*PageSize-1)); err == nil {
		t.Error("half a page is taken")
	}
	history = ops(Op{Kind: Create, Path: "a"}, write("a", 0, 3*PageSize, 1))
	if _, err := Ordered(State{}, history, torn(2*PageSize)); err == nil {
		t.Error("a part of an acknowledged write is taken")
	}
}

func TestDurable(t *testing.T) {
	for _, tc := range []struct {
		name string
		ops  []Op
		want int
	}{
		{"nothing", nil, 0},
		{"no fsync", ops(Op{Kind: Create, Path: "a"}), 0},
		{"file", ops(Op{Kind: Create, Path: "a"}, Op{Kind: Create, Path: "b"}, Op{Kind: Fsync, Path: "a"}), 1},
		{"unacknowledged", unfinished(ops(Op{Kind: Create, Path: "a"}, Op{Kind: Fsync, Path: "a"})), 0},
		{"renamed", ops(Op{Kind: Create, Path: "a"}, Op{Kind: Rename, Path: "a", To: "b"}, Op{Kind: Fsync, Path: "b"}), 2},
		{"directory", ops(Op{Kind: Create, Path: "d/a"}, write("d/a", 0, 1, 1), Op{Kind: Create, Path: "b"}, Op{Kind: FsyncDir, Path: "d"}), 1},
		{"root", ops(Op{Kind: Create, Path: "d/a"}, Op{Kind: Mkdir, Path: "e/"}, Op{Kind: FsyncDir, Path: ""}), 2},
		{"moved out", ops(Op{Kind: Rename, Path: "d/a", To: "a"}, Op{Kind: FsyncDir, Path: "d"}), 1},
	} {
		if got := durable(tc.ops); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestConsistent(t *testing.T) {
	a := Timeline{"a", []Op{{Kind: Create, Path: "x", Start: 10, End: 20}}, Match{0, 0}}
	b := Timeline{"b", []Op{{Kind: Create, Path: "y", Start: 30, End: 40}}, Match{1, 1}}
	if err := Consistent([]Timeline{a, b}); err == nil {
		t.Error("b's op began after a's returned; a's is lost and b's is there")
	}
	together := b
	together.Ops = []Op{{Kind: Create, Path: "y", Start: 15, End: 40}}
	if err := Consistent([]Timeline{a, together}); err != nil {
		t.Error("ops at the same time:", err)
	}
	both := a
	both.Match = Match{1, 1}
	if err := Consistent([]Timeline{both, b}); err != nil {
		t.Error(err)
	}
}

func TestPaged(t *testing.T) {
	history := ops(
		Op{Kind: Create, Path: "a"},
		write("a", 0, 3*PageSize, 1),
		Op{Kind: Fsync, Path: "a"},
		write("a", 100, 2*PageSize, 2),      // dirties pages 0 to 2
		write("a", 3*PageSize, PageSize, 3), // page 3
		write("a", 4*PageSize, 10, 4),       // the first bytes of page 4
		Op{Kind: Create, Path: "b"},
	)
	old, newest := after(history[:2]...)["a"], after(history...)["a"]
	mixed := func(pages ...int) State {
		c := slices.Clone(old)
		for _, p := range pages {
			end := min((p+1)*PageSize, len(newest))
			c = resize(c, int64(max(len(c), end)))
			copy(c[p*PageSize:end], newest[p*PageSize:end])
		}
		return State{"a": c}
	}
	for _, pages := range [][]int{{}, {0}, {1}, {2, 0}, {3}, {4}, {0, 1, 2, 3, 4}} {
		if err := Paged(State{}, history, mixed(pages...)); err != nil {
			t.Errorf("pages %v written back: %v", pages, err)
		}
	}
	bad := map[string]State{
		"zero page within what was fsynced": mixed(),
		"half a page":                       mixed(),
		"shorter than fsynced":              {"a": old[:PageSize]},
		"longer than ever":                  {"a": append(slices.Clone(newest), 1)},
		"foreign page":                      mixed(3),
		"missing":                           {},
		"made up":                           {"a": old, "c": {}},
	}
	clear(bad["zero page within what was fsynced"]["a"][PageSize : 2*PageSize])
	copy(bad["half a page"]["a"][PageSize:], newest[PageSize:PageSize+500])
	Fill(bad["foreign page"]["a"][3*PageSize:], NewTag(9, 9, 9), 0)
	for name, seen := range bad {
		if err := Paged(State{}, history, seen); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestPagedFollowsRenames(t *testing.T) {
	history := ops(
		Op{Kind: Create, Path: "a"}, write("a", 0, PageSize, 1), Op{Kind: Fsync, Path: "a"},
		Op{Kind: Create, Path: "b"}, write("b", 0, PageSize, 2), Op{Kind: Fsync, Path: "b"},
		Op{Kind: Rename, Path: "b", To: "a"},
		write("a", 0, PageSize, 3), Op{Kind: Fsync, Path: "a"},
	)
	b3 := after(history...)
	if err := Paged(State{}, history, b3); err != nil {
		t.Error(err)
	}
	if err := Paged(State{}, history, after(history[:7]...)); err == nil {
		t.Error("the write after the rename was fsynced and is lost, and nobody minds")
	}
	if err := Paged(State{}, history[:7], after(history[:6]...)); err != nil {
		t.Error("before the rename:", err)
	}
	swapped := after(history[:6]...)
	swapped["a"], swapped["b"] = swapped["b"], swapped["a"]
	if err := Paged(State{}, history[:7], swapped); err == nil {
		t.Error("files with each other's bytes are taken")
	}
}

func TestSaver(t *testing.T) {
	h := Saver{Base: []byte("base"), Saves: [][]byte{[]byte("one"), []byte("two"), []byte("three")}, Synced: 2}
	for content, ok := range map[string]bool{"base": false, "one": false, "two": true, "three": true, "thr": false, "": false} {
		if err := h.Judge([]byte(content)); (err == nil) != ok {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestJournaled(t *testing.T) {
	base := make([]byte, 4*PageSize)
	Fill(base, NewTag(0, 0, 0), 0)
	h := Journaled{Base: base, Txns: []Txn{
		{Pages: []int{0, 2}, Tag: NewTag(0, 0, 1)}, {Pages: []int{1, 2}, Tag: NewTag(0, 0, 2)},
	}, Committed: 1}
	one := slices.Clone(base)
	h.Txns[0].apply(one)
	two := slices.Clone(one)
	h.Txns[1].apply(two)
	half := slices.Clone(one)
	copy(half[PageSize:], two[PageSize:2*PageSize])
	journal := MakeJournal(one, h.Txns[1])

	for name, tc := range map[string]struct {
		db, journal []byte
		ok          bool
	}{
		"committed":                     {two, nil, true},
		"not begun":                     {one, nil, true},
		"half, rolled back":             {half, journal, true},
		"whole, rolled back":            {two, journal, true},
		"torn journal, db untouched":    {one, journal[:len(journal)/2], true},
		"half without a journal":        {half, nil, false},
		"half with a torn journal":      {half, journal[:len(journal)-1], false},
		"acknowledged transaction lost": {base, nil, false},
		"short":                         {one[:PageSize], nil, false},
		"short, with a journal":         {one[:PageSize], journal, false},
	} {
		if _, err := h.Judge(tc.db, tc.journal); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	flipped := slices.Clone(journal)
	flipped[100]++
	if _, err := ParseJournal(flipped); err == nil {
		t.Error("a journal with a wrong byte is taken")
	}
}

// Every prefix of a random history is allowed if long enough, and no state with
// one byte changed ever is.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		history := randomHistory(r, 40)
		promised := durable(history)
		cut := promised + r.IntN(len(history)-promised+1)
		seen := after(history[:cut]...)
		if m, err := Ordered(State{}, history, seen); err != nil || cut < m.First || cut > m.Last {
			t.Fatalf("seed %d: prefix %d of %d (promised %d): %+v, %v", seed, cut, len(history), promised, m, err)
		}
		if err := Paged(State{}, history, seen); err != nil {
			t.Fatalf("seed %d: prefix %d of %d (promised %d): %v", seed, cut, len(history), promised, err)
		}
		for name, content := range seen {
			if len(content) == 0 {
				continue
			}
			spoiled := seen.Clone()
			spoiled[name][r.IntN(len(content))] ^= 0x40
			if _, err := Ordered(State{}, history, spoiled); err == nil {
				t.Errorf("seed %d: a byte of %s changed, Ordered minds nothing", seed, name)
			}
			if err := Paged(State{}, history, spoiled); err == nil {
				t.Errorf("seed %d: a byte of %s changed, Paged minds nothing", seed, name)
			}
		}
	}
}

func randomHistory(r *rand.Rand, n int) []Op {
	s := State{}
	var list []Op
	for len(list) < n {
		name := fmt.Sprintf("f%d", r.IntN(4))
		content, exists := s[name]
		op := Op{Kind: Create, Path: name}
		if exists {
			switch r.IntN(8) {
			case 0:
				op = Op{Kind: Rename, Path: name, To: "g" + name}
			case 1:
				op = Op{Kind: Unlink, Path: name}
			case 2, 3:
				op = Op{Kind: Fsync, Path: name}
			default:
				op = write(name, r.Int64N(int64(len(content)+1)), 1+r.Int64N(3*PageSize), len(list))
			}
		}
		s.Apply(op)
		list = append(list, op)
	}
	return ops(list...)
}
