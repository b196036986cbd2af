package graph

import (
	"context"

	"github.com/quarxtor/quarxfs/store"
)

// A Group is a part of a store whose use of space is asked for: files of the live
// filesystem and names of objects and snapshots. Groups do not overlap.
type Group struct {
	Name  string
	Files []uint64 // inodes
	Rows  []int    // of names
}

// Usage is what a group takes, in stored bytes: of blocks as they are in
// segments, compressed and with their headers. Freed is what would come free if
// the group were removed: Unique + SharedInside + Vertices.
type Usage struct {
	Name          string `json:"name"`
	Files         int64  `json:"files"`         // regular files, each once; set by who knows them
	Apparent      int64  `json:"apparent"`      // bytes of theirs that are not in holes; likewise
	Unique        int64  `json:"unique"`        // of data blocks that are used once
	SharedInside  int64  `json:"shared_inside"` // more than once, and by this group only
	SharedOutside int64  `json:"shared_outside"`
	Vertices      int64  `json:"vertices"` // of vertices that only this group uses
	Freed         int64  `json:"freed_if_deleted"`
}

// An Account says where all stored bytes are: Total is the sum of the groups'
// Freed and of the fields below.
type Account struct {
	Groups         []Usage `json:"groups"`
	Elsewhere      int64   `json:"elsewhere"`       // used only by what is in no group
	Shared         int64   `json:"shared"`          // data blocks of several groups, or of a group and elsewhere
	SharedVertices int64   `json:"shared_vertices"` // likewise
	Unused         int64   `json:"unused"`          // nothing leads to it; the next sweep takes it
	Total          int64   `json:"total"`
}

// Account finds out what each group takes. It goes along every edge once, and for
// what is not a group's alone once for each group that has it.
func (m *Matrix) Account(ctx context.Context, groups []Group) (Account, error) {
	a := newAccountant(m)
	// First, as its references must not count for anybody.
	acc := Account{Unused: a.waste()}
	taken := make([]bool, m.firstVer)
	for i, g := range groups {
		if err := ctx.Err(); err != nil {
			return acc, err
		}
		rows := append([]int{}, g.Rows...)
		for _, ino := range g.Files {
			if r, ok := m.FileRowOf(ino); ok {
				rows = append(rows, r)
			}
		}
		for _, r := range rows {
			taken[r] = true
		}
		// Each group is judged alone, with all others in place: sum puts back what it took.
		u := a.group(rows, uint32(i+1))
		u.Name = g.Name
		acc.Groups = append(acc.Groups, u)
	}
	var rest, all []int
	for r := range m.firstVer {
		all = append(all, r)
		if !taken[r] {
			rest = append(rest, r)
		}
	}
	// Stamps are the groups' numbers from 1 on: seen is all zeroes at first.
	acc.Elsewhere = a.group(rest, uint32(len(groups)+1)).Freed
	// Before all rows are taken as one group, which would add to the sums.
	data, vertices := a.data, a.vertices
	everything := a.group(all, uint32(len(groups)+2))
	for c := range m.info {
		acc.Total += int64(m.info[c].stored)
	}
	// What goes only if all go is what no group alone would free.
	acc.Shared, acc.SharedVertices = everything.Unique+everything.SharedInside-data, everything.Vertices-vertices
	return acc, nil
}

// An accountant takes groups away and puts them back.
type accountant struct {
	m       *Matrix
	base    []uint32 // references of each column, without those of what is unused
	left    []uint32 // references of each column that are not the group's
	used    []uint8  // how often the group uses it: 0, 1, or 2 for more
	seen    []uint32 // the group that came to it last
	touched []uint32
	freed   []uint32 // to be gone through

	data, vertices int64 // that single groups would free
}

func newAccountant(m *Matrix) *accountant {
	n := m.Columns()
	a := &accountant{m: m, base: make([]uint32, n), left: make([]uint32, n), used: make([]uint8, n), seen: make([]uint32, n)}
	for c := range a.left {
		a.left[c] = uint32(m.References(c))
	}
	return a
}

// waste takes away, for good, what nothing leads to, and returns its bytes.
func (a *accountant) waste() int64 {
	for c, n := range a.left {
		if n == 0 {
			a.used[c] = 1
			a.touched = append(a.touched, uint32(c))
			a.freed = append(a.freed, uint32(c))
		}
	}
	a.cascade()
	// A block that waste refers to and something else as well is no waste, but has lost a
	// reference.
	sum := int64(0)
	for _, c := range a.touched {
		if a.left[c] == 0 {
			sum += int64(a.m.info[c].stored)
		}
		a.used[c] = 0
	}
	a.touched = a.touched[:0]
	// From here on this is where each group begins.
	copy(a.base, a.left)
	return sum
}

// cascade goes on with what nothing refers to any more.
func (a *accountant) cascade() {
	for len(a.freed) > 0 {
		// A stack, not a recursion: a directory may be a million levels deep.
		c := a.freed[len(a.freed)-1]
		a.freed = a.freed[:len(a.freed)-1]
		if r, ok := a.m.VertexRowOf(int(c)); ok {
			for _, child := range a.m.rowCols(r) {
				a.drop(child, a.used[c])
			}
		}
	}
}

// group takes away some rows and all that then nothing refers to, from the top
// down, as the sweep would.
func (a *accountant) group(rows []int, stamp uint32) Usage {
	var u Usage
	for _, r := range rows {
		a.m.EachInRow(r, func(e Use) bool {
			a.drop(uint32(e.Col), 1)
			return true
		})
	}
	a.cascade()
	a.sum(&u, stamp)
	return u
}

// drop takes away one edge to a column, from something that is used so often.
func (a *accountant) drop(c uint32, used uint8) {
	// Only the first time: sum goes through touched, where each column may be once.
	if a.used[c] == 0 {
		a.touched = append(a.touched, c)
	}
	a.used[c] = min(2, a.used[c]+used)
	if a.left[c]--; a.left[c] == 0 {
		a.freed = append(a.freed, c)
	}
}

// sum adds up what was touched and puts it back.
func (a *accountant) sum(u *Usage, stamp uint32) {
	for _, c := range a.touched {
		stored := int64(a.m.info[c].stored)
		switch {
		// Somebody else refers to it, too: it would stay.
		case a.left[c] > 0:
			a.outside(u, c, stamp)
		case a.m.info[c].kind != store.KindData:
			u.Vertices += stored
		case a.used[c] == 1:
			u.Unique += stored
		default:
			u.SharedInside += stored
		}
	}
	// Only what was touched is put back, so that a small group costs little in a large store.
	for _, c := range a.touched {
		a.left[c] = a.base[c]
		a.used[c] = 0
	}
	a.touched = a.touched[:0]
	u.Freed = u.Unique + u.SharedInside + u.Vertices
	a.data += u.Unique + u.SharedInside
	a.vertices += u.Vertices
}

// outside adds the data blocks at and below a column that others use as well.
func (a *accountant) outside(u *Usage, top uint32, stamp uint32) {
	stack := []uint32{top}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		// Counted for this group already, by another way.
		if a.seen[c] == stamp {
			continue
		}
		a.seen[c] = stamp
		if a.m.info[c].kind == store.KindData {
			u.SharedOutside += int64(a.m.info[c].stored)
			continue
		}
		if r, ok := a.m.VertexRowOf(int(c)); ok {
			stack = append(stack, a.m.rowCols(r)...)
		}
	}
}
