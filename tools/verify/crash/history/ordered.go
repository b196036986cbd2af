package history

import "fmt"

// A Match says which prefixes of a history a directory may be the result of:
// First is the length of the shortest that gives its state, Last of the longest.
type Match struct{ First, Last int }

// Ordered judges a worker whose every call reaches the daemon before it
// returns (O_DIRECT writes and changes of names). A crash leaves it the state
// after some prefix of its ops, no shorter than what fsyncs promised. Of a write
// that the crash hit, any number of pages may be there; the prefix then ends
// with it.
func Ordered(base State, ops []Op, seen State) (Match, error) {
	promised := durable(ops)
	now := base.Clone()
	for _, op := range ops[:promised] {
		now.Apply(op)
	}
	sums := sumsOf(seen)
	wrong := newMismatch(now, sums)
	found := Match{-1, -1}
	note := func(k int, same bool) {
		if same {
			if found.First < 0 {
				found.First = k
			}
			found.Last = k
		}
	}
	note(promised, wrong.count == 0)
	for k, op := range ops[promised:] {
		// Not the end of the search: the pages may have held the write's bytes
		// before it, so that nothing of it is there.
		part := op.End == 0 && op.Kind == Write && partly(now, op, seen)
		now.Apply(op)
		wrong.update(now, op)
		note(promised+k+1, part || wrong.count == 0)
	}
	if found.First < 0 {
		return found, noPrefix(base, ops, promised, seen)
	}
	return found, nil
}

// noPrefix explains by the shortest state allowed, where a loss shows, and the
// longest, where something made up does.
func noPrefix(base State, ops []Op, promised int, seen State) error {
	least := base.Clone()
	for _, op := range ops[:promised] {
		least.Apply(op)
	}
	most := least.Clone()
	for _, op := range ops[promised:] {
		most.Apply(op)
	}
	return fmt.Errorf("no state between op %d, promised by fsync, and op %d, the last\n  against the first: %s\n  against the last: %s",
		promised, len(ops), least.Diff(seen), most.Diff(seen))
}

// partly tells whether seen is now with only some first pages of a write.
func partly(now State, op Op, seen State) bool {
	// Whole pages only: less never reaches the daemon in one piece.
	for n := int64(PageSize); n < op.Len; n += PageSize {
		some := now.Clone()
		part := op
		part.Len = n
		some.Apply(part)
		if some.Diff(seen) == "" {
			return true
		}
	}
	return false
}

func sumsOf(s State) map[string]uint64 {
	sums := make(map[string]uint64, len(s))
	for name, content := range s {
		sums[name] = Sum(content)
	}
	return sums
}

// A mismatch keeps count of the names in which a state differs from what was
// seen, so that an op costs one checksum and not one of the whole state.
type mismatch struct {
	seen  map[string]uint64
	wrong map[string]bool
	count int
}

func newMismatch(now State, seen map[string]uint64) *mismatch {
	m := &mismatch{seen: seen, wrong: map[string]bool{}}
	for name := range now {
		m.check(now, name)
	}
	for name := range seen {
		m.check(now, name)
	}
	return m
}

func (m *mismatch) update(now State, op Op) {
	// They change nothing that can be seen.
	if op.Kind == Fsync || op.Kind == FsyncDir {
		return
	}
	m.check(now, op.Path)
	if op.Kind == Rename {
		m.check(now, op.To)
	}
}

func (m *mismatch) check(now State, name string) {
	content, here := now[name]
	sum, there := m.seen[name]
	wrong := here != there || here && Sum(content) != sum
	if wrong == m.wrong[name] {
		return
	}
	m.wrong[name] = wrong
	if wrong {
		m.count++
	} else {
		m.count--
	}
}

// A Timeline is one ordered worker's ops with the prefix it was found at.
type Timeline struct {
	Name string
	Ops  []Op
	Match
}

// Consistent judges ordered workers together: a crash leaves all of them at one
// instant. It fails where one has lost an op that had returned before another
// began one that is there.
func Consistent(workers []Timeline) error {
	for _, lost := range workers {
		// The longest prefix for who lost something, the shortest for who kept it: only what is
		// certain of both is held against them.
		if lost.Last >= len(lost.Ops) || lost.Ops[lost.Last].End == 0 {
			continue
		}
		gone := lost.Ops[lost.Last]
		for _, kept := range workers {
			if kept.First == 0 {
				continue
			}
			if there := kept.Ops[kept.First-1]; gone.End < there.Start {
				return fmt.Errorf("not one instant: %s has lost %q, which had returned %d us before %s began %q, which is there",
					lost.Name, gone, (there.Start-gone.End)/1000, kept.Name, there)
			}
		}
	}
	return nil
}
