package mirror

import (
	"slices"
	"time"
)

// A Peer is another copy, as the writer sees it.
type Peer struct {
	Member   Member
	Session  uint64        // of its process, as in its last welcome
	Greeted  bool          // it has promised this epoch, and its log is a prefix of the writer's
	Counted  bool          // no commit is acknowledged without it
	Answered Index         // up to where it has all commits durably
	Granted  time.Duration // when the newest request was sent that it answered with a vow; 0: none was
}

// A Writer is the state of the node that writes, from Begin until it ends or is fenced. It is a
// value: what changes it returns another.
type Writer struct {
	Self   Member
	Epoch  Epoch
	Log    Log    // what is durable here
	Floor  Index  // up to where an earlier writer may have acknowledged commits
	Acked  Index  // up to where commits have been acknowledged in this epoch
	Peers  []Peer // by member
	Record Record // the register's, as last learned
	Fenced bool   // another one writes, or may: nothing is acknowledged or served any more
}

// Begin returns the writer of a copy whose Promote has been swapped into the register; false, if
// the register or the copy has gone on since. All whom the record names are counted, though nothing
// is known of them yet (R3). The first thing that a writer does is to make a commit, though it be
// empty: see recount.
func Begin(c Copy, r Record) (Writer, bool) {
	if r.Writer != c.Self.Node || r.Epoch != c.Promised || !r.Names(c.Self) || c.older(r) {
		return Writer{}, false
	}
	// An older disk may have promised the same epoch once more.
	if !c.Log.Holds(r.Base) {
		return Writer{}, false
	}
	w := Writer{Self: c.Self, Epoch: r.Epoch, Log: c.Log, Floor: c.Log.Last, Record: r}
	for _, m := range r.InSync {
		if m != c.Self {
			w.Peers = append(w.Peers, Peer{Member: m, Counted: true})
		}
	}
	return w.recount(), true
}

// peer returns the member's with a list of peers that may be changed; it is added if it is new.
func (w *Writer) peer(m Member) *Peer {
	w.Peers = slices.Clone(w.Peers)
	i, found := slices.BinarySearchFunc(w.Peers, m, func(p Peer, m Member) int { return compare(p.Member, m) })
	if !found {
		w.Peers = slices.Insert(w.Peers, i, Peer{Member: m})
	}
	return &w.Peers[i]
}

// Find returns what is known of a member.
func (w Writer) Find(m Member) (Peer, bool) {
	i, found := slices.BinarySearchFunc(w.Peers, m, func(p Peer, m Member) int { return compare(p.Member, m) })
	if !found {
		return Peer{}, false
	}
	return w.Peers[i], true
}

// recount acknowledges what every counted member has (R3). What was acknowledged stays so.
//
// Nothing is acknowledged before a commit of the writer's own epoch is, not even what is older. So
// of two logs the one that ends with a newer epoch has all that was ever acknowledged: Confirm can
// tell by the logs alone which copy to go on from.
func (w Writer) recount() Writer {
	if w.Fenced || w.Log.End().Epoch != w.Epoch {
		return w
	}
	all := w.Log.Last
	for _, p := range w.Peers {
		if p.Counted {
			all = min(all, p.Answered)
		}
	}
	if all > w.Floor {
		w.Acked = max(w.Acked, all)
	}
	return w
}

// Appended notes that one more commit is durable here, and may be sent (R2).
func (w Writer) Appended(l Log) Writer {
	w.Log = l
	return w.recount()
}

// A Greeting is what follows from a copy's answer to the writer's greeting.
type Greeting int

const (
	CatchUp Greeting = iota // send what it lacks, one commit after the other
	Seed                    // it has what the writer has not: all of it must be replaced
	Expel                   // it is counted, and has less than it answered for or something else
	GiveWay                 // it has what the writer made and has no more: the older disk is here
)

// Welcome notes that a copy has promised this epoch and has that log durably. What it answers from
// now on in that session counts. A copy that is expelled has to leave, and can be greeted again
// once the register does not name it.
func (w Writer) Welcome(m Member, session uint64, log Log) (Writer, Greeting) {
	p := w.peer(m)
	p.Session = session
	prefix := w.Log.Holds(log.End())
	switch {
	case p.Counted && !prefix && log.End().Epoch >= w.Record.Since:
		// This node has made that commit, and by R2 it was durable here before it was there.
		return w.Fence(), GiveWay
	case p.Counted && (!prefix || log.Last < p.Answered):
		// What it answered for before is not there now, and until it leaves it is counted.
		p.Greeted, p.Answered = false, 0
		return w, Expel
	case !prefix:
		p.Greeted = false
		return w, Seed
	}
	p.Greeted, p.Answered = true, log.Last
	return w.recount(), CatchUp
}

// Answered notes that a member has a commit and all before it durably, as it says in this epoch. An
// answer of a session before the last welcome may be of a disk that is no more.
func (w Writer) Answered(m Member, session uint64, epoch Epoch, commit Position) Writer {
	if p, ok := w.Find(m); !ok || p.Session != session || epoch != w.Epoch || !w.Log.Holds(commit) {
		return w
	}
	p := w.peer(m)
	p.Answered = max(p.Answered, commit.Index)
	// After a seed it has what the writer has up to there.
	p.Greeted = true
	return w.recount()
}

// Count begins to count a copy that is to join; false, if it lacks what has been acknowledged
// already, or may have been before this writer began. From then on every acknowledgement is of
// something that it has (R3).
func (w Writer) Count(m Member) (Writer, bool) {
	p, ok := w.Find(m)
	if !ok || !p.Greeted || p.Answered < max(w.Acked, w.Floor) || w.Fenced {
		return w, false
	}
	w.peer(m).Counted = true
	return w, true
}

// Join returns the record that names a counted member as well; false, if it is not counted or named
// already.
func (w Writer) Join(m Member) (Record, bool) {
	p, ok := w.Find(m)
	if !ok || !p.Counted || w.Fenced || w.Record.Names(m) {
		return w.Record, false
	}
	r := w.Record
	r.InSync = append(slices.Clip(r.InSync), m)
	slices.SortFunc(r.InSync, compare)
	return r, true
}

// Leave returns the record that does not name the member any more. Also one that is only counted
// leaves in this way: a swap that was to name it may still be under way, and fails after this one.
// Until Learn shows the new record, the member is counted (R3).
func (w Writer) Leave(m Member) (Record, bool) {
	p, ok := w.Find(m)
	if !ok || !p.Counted || w.Fenced {
		return w.Record, false
	}
	r := w.Record
	r.InSync = slices.DeleteFunc(slices.Clone(r.InSync), func(other Member) bool { return other == m })
	return r, true
}

// Learn notes what the register shows. With a record newer than the last one every swap that was
// under way has failed or is in it, so exactly those whom it names are counted. A register that was
// restored teaches nothing: the writer goes on with those it counts.
func (w Writer) Learn(r Record) Writer {
	if r.Stamp.Generation != w.Record.Stamp.Generation || r.Stamp.Revision <= w.Record.Stamp.Revision {
		return w
	}
	if r.Epoch != w.Epoch {
		return w.Fence()
	}
	w.Record = r
	for _, p := range w.Peers {
		if named := r.Names(p.Member); named != p.Counted {
			w.peer(p.Member).Counted = named
		}
	}
	return w.recount()
}

// Fence ends all acknowledging and serving.
func (w Writer) Fence() Writer {
	w.Fenced = true
	return w
}

// Granted notes a vow that answers what was sent then, by the writer's clock.
func (w Writer) Granted(m Member, epoch Epoch, sent time.Duration) Writer {
	if _, ok := w.Find(m); !ok || epoch != w.Epoch {
		return w
	}
	p := w.peer(m)
	p.Granted = max(p.Granted, sent)
	return w
}

// MayServe reports whether reads may be answered now, by the writer's clock: no counted member has
// become the writer (R5).
func (w Writer) MayServe(now time.Duration) bool {
	if w.Fenced {
		return false
	}
	for _, p := range w.Peers {
		if p.Counted && (p.Granted == 0 || now >= p.Granted+Serve) {
			return false
		}
	}
	return true
}

// MayDestroy reports whether what the commit made useless may be removed for good: all counted
// members know that it is useless (R6).
func (w Writer) MayDestroy(commit Index) bool { return !w.Fenced && commit <= w.Acked }
