// Package mirror decides for the copies of a volume that are kept in sync: what a
// copy takes, when a commit is acknowledged, who may write. It is pure: values in,
// values out, no clock, disk or network. What carries its decisions out calls it,
// and so does the model of remote/cluster/sim, which tries all orders of events.
//
// A volume has a record in the cluster's register, changed by compare-and-swap
// alone. A node is a Copy, which is on its disk, and while it writes a Writer,
// which is in memory. Rules, as cited below (docs/adr/0010-mirrors.md has why):
//
//	R1  A copy takes frames of the epoch that it has promised and of no other,
//	    and of these what follows what it has, or what it has already.
//	R2  The writer's own disk first, then the mirrors.
//	R3  A commit is acknowledged when all counted members have it. A member is
//	    counted before the register names it, and until it does not any more.
//	R4  Only a copy that the register names, by node and incarnation, becomes
//	    the writer. It promises the new epoch first.
//	R5  A member that answers vows not to become the writer for a while. The
//	    writer serves while it has such vows of all counted members.
//	R6  What cannot be undone waits until all counted members have its commit.
//	R7  Names of segments carry the epoch.
//	R8  A copy that has seen a newer register than it is shown becomes no writer.
package mirror

import (
	"cmp"
	"slices"
	"time"
)

// An Epoch is the time of one writer. No two writers ever have the same one, nor a
// writer before and after a restart. 0: none.
type Epoch uint64

// An Index numbers a volume's commits from 1 on.
type Index uint64

// A Position names a commit: the index, and the epoch of the writer that made it.
// Copies that both have a position have the same commits up to it. Zero: before
// the first.
type Position struct {
	Epoch Epoch `json:"epoch"`
	Index Index `json:"index"`
}

// A Log is which commits a copy has: all up to Last. It is a value: what changes it
// returns another.
type Log struct {
	Starts []Position // the first commit of each epoch that has any, in order
	Last   Index
}

// End is the position of the last commit.
func (l Log) End() Position { return l.At(l.Last) }

// At is the position of a commit; zero, if the log does not have it.
func (l Log) At(i Index) Position {
	if i == 0 || i > l.Last {
		return Position{}
	}
	for _, s := range slices.Backward(l.Starts) {
		if s.Index <= i {
			return Position{s.Epoch, i}
		}
	}
	return Position{}
}

// Holds reports whether the log has that very commit; every log has the zero position.
func (l Log) Holds(p Position) bool { return l.At(p.Index) == p }

// Append returns the log with one more commit, of an epoch that is not below the last one's.
func (l Log) Append(e Epoch) Log {
	next := Log{Starts: l.Starts, Last: l.Last + 1}
	if l.End().Epoch != e {
		// Clip, since another log may share what is behind the end.
		next.Starts = append(slices.Clip(l.Starts), Position{e, next.Last})
	}
	return next
}

// Cut returns the log with nothing behind last.
func (l Log) Cut(last Index) Log {
	if last >= l.Last {
		return l
	}
	keep := 0
	for keep < len(l.Starts) && l.Starts[keep].Index <= last {
		keep++
	}
	return Log{Starts: l.Starts[:keep:keep], Last: last}
}

// A Member is a copy as the register names it. Another incarnation is another
// copy, even on the same node: its disk was replaced, or it was made anew.
type Member struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

func compare(a, b Member) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
}

// A Stamp says how new what was read of the register is.
type Stamp struct {
	Generation uint64 `json:"generation"` // another one after the register was restored from a copy or made anew
	Revision   int64  `json:"revision"`
}

// A Record is what the register has of a volume. It is changed on the condition that
// its Stamp is still the same.
type Record struct {
	Stamp  Stamp    `json:"stamp,omitzero"`
	Epoch  Epoch    `json:"epoch"`
	Writer string   `json:"writer"`  // a node
	Since  Epoch    `json:"since"`   // the writer made all commits of this epoch and of all later ones
	Base   Position `json:"base"`    // the last commit that the writer had when it wanted this epoch
	InSync []Member `json:"in_sync"` // in order: all that have every acknowledged commit, the writer among them
}

// Names reports whether m is in sync.
func (r Record) Names(m Member) bool { return slices.Contains(r.InSync, m) }

// A Copy is what a node has on its disk. Promised and Seen are durable before anybody is told.
type Copy struct {
	Self     Member
	Promised Epoch // the newest epoch whose frames it takes, or that it wanted to write in
	Log      Log
	Seen     Stamp // the newest of the register that it has been shown
}

// Saw notes what the register showed.
func (c Copy) Saw(r Record) Copy {
	if r.Stamp.Generation == c.Seen.Generation && r.Stamp.Revision > c.Seen.Revision {
		c.Seen = r.Stamp
	}
	return c
}

// older reports whether the register shows something else than what came after what was seen (R8).
func (c Copy) older(r Record) bool {
	return r.Stamp.Generation != c.Seen.Generation || r.Stamp.Revision < c.Seen.Revision
}

// Promise answers a writer that wants the copy to follow it: false, if the copy has promised a
// newer epoch.
func (c Copy) Promise(e Epoch) (Copy, bool) {
	if e < c.Promised {
		return c, false
	}
	c.Promised = e
	return c, true
}

// A Verdict is what to do with a frame.
type Verdict int

const (
	Refuse Verdict = iota // it is of another epoch: say which one is promised
	Add                   // make it durable, then answer
	Again                 // it is there: answer once it is durable
	Gap                   // what it follows is not there: the writer must greet the copy anew
)

// Take judges a commit that comes in a frame of the epoch, and that follows another one (R1).
func (c Copy) Take(frame Epoch, before, commit Position) Verdict {
	switch {
	case frame != c.Promised:
		return Refuse
	case c.Log.Holds(commit):
		return Again
	// More than the index: a copy that was a writer may have others before it.
	case c.Log.End() != before:
		return Gap
	}
	return Add
}

// TakeSeed judges a whole log, and the segments and rows of it, that is to replace the copy's own.
func (c Copy) TakeSeed(frame Epoch, log Log) Verdict {
	end := c.Log.End()
	switch {
	case frame != c.Promised:
		return Refuse
	// A late seed must not take away what this writer sent behind it, all of which is of its epoch.
	// What else is there beyond the seed is what the writer does not have.
	case c.Log.Holds(log.End()) && (end == log.End() || end.Epoch == frame):
		return Again
	}
	return Add
}

// A Reason says why a copy may not become the writer.
type Reason string

func (r Reason) Error() string { return string(r) }

const (
	RolledBack Reason = "the register is older than what this node has seen: somebody must confirm it"
	NotInSync  Reason = "the register does not name this copy as one in sync"
	Vowed      Reason = "the writer may still serve"
	OlderDisk  Reason = "the disk is an older copy of the one that this node wrote on"
)

// Promote returns what the copy has to make durable, and then the record to swap in on the
// condition that r is still the register's; or why not (R4, R5, R8). Whether the swap was done is
// known when the register is read: see Begin.
//
// The promise comes before the swap, because the swap may be done after nobody waits for it any
// more: from then on the copy must not answer the old writer.
func Promote(c Copy, r Record, vow Vow, now time.Duration) (Copy, Record, Reason) {
	if c.older(r) {
		return c, r, RolledBack
	}
	if !r.Names(c.Self) {
		return c, r, NotInSync
	}
	again := r.Writer == c.Self.Node
	// The writer that a vow was given to is this node itself, if it writes again after a restart.
	if !again && !vow.Over(now) {
		return c, r, Vowed
	}
	// Another copy in sync has what is missing here, and would be taken for the one that differs.
	if again && !c.Log.Holds(r.Base) {
		return c, r, OlderDisk
	}
	c = c.Saw(r)
	c.Promised = max(c.Promised, r.Epoch) + 1
	// All in sync have what was acknowledged, so all stay, and are counted. Those that do not
	// answer are taken out afterwards: if this node died just now, another one could still go on.
	next := Record{Stamp: r.Stamp, Epoch: c.Promised, Writer: c.Self.Node, Since: c.Promised, Base: c.Log.End(), InSync: r.InSync}
	if again {
		next.Since = r.Since
	}
	return c, next, ""
}

// Confirm returns what an administrator's decision makes of copies and record after the register
// was restored or made anew: the copy with the newest log is the one to go on from. Every copy that
// there still is must be among them, whoever holds it: one that is not is given up, with all that
// only it has. Each promises an epoch above all others first, so that what it is said to have is
// all that it will ever have from an older writer.
func Confirm(copies []Copy, r Record) ([]Copy, Record) {
	next := Record{Stamp: r.Stamp, Epoch: r.Epoch}
	for _, c := range copies {
		next.Epoch = max(next.Epoch, c.Promised)
	}
	next.Epoch++
	copies = slices.Clone(copies)
	var best Copy
	for i := range copies {
		copies[i].Promised, copies[i].Seen = next.Epoch, r.Stamp
		end, most := copies[i].Log.End(), best.Log.End()
		if i == 0 || cmp.Or(cmp.Compare(end.Epoch, most.Epoch), cmp.Compare(end.Index, most.Index)) > 0 {
			best = copies[i]
		}
	}
	next.Since, next.Base, next.InSync = next.Epoch, best.Log.End(), []Member{best.Self}
	return copies, next
}

// SegmentBase returns the first segment number of an epoch; the tier's own base is added (R7).
func SegmentBase(e Epoch) uint64 { return uint64(e) << 20 }

// Times of vows. They are of a clock that goes on while the machine sleeps, and hold while the
// clocks of any two nodes run at rates that differ by less than a quarter.
const (
	Grant = 10 * time.Second // how long a member keeps from becoming the writer
	Serve = 8 * time.Second  // how long the writer builds on that, from when it sent what was answered
)

// A Vow is until when a member does not become the writer, by its own clock.
type Vow struct{ Until time.Duration }

// Begun is the vow of a member that has just started: it may have forgotten one.
func Begun(now time.Duration) Vow { return Vow{now + Grant} }

// Renewed is the vow of a member that answers its writer.
func (v Vow) Renewed(now time.Duration) Vow { return Vow{max(v.Until, now+Grant)} }

// Over reports whether it has ended.
func (v Vow) Over(now time.Duration) bool { return now >= v.Until }
