// Package sim explores the protocol of mirrors: all that can happen to a few
// nodes within bounds, or long random walks beyond them. What the nodes decide is
// remote/cluster/mirror, the very functions that the product calls; the model adds
// disks with unsynced tails, a network, a register, clocks, and what breaks them.
//
// A message, once sent, stays: it may come at any time, again and again, or never.
// So the one set stands for loss, delay, doubling, reordering and partitions. The
// register answers only when somebody asks, so it is away in every state where
// nobody does.
package sim

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// Bounds are how much happens at most.
type Bounds struct {
	Nodes    int  // 2 or 3; the first one writes at the beginning, and all are in sync
	Apart    int  // of these, how many are not in sync at the beginning
	Writes   int  // commits that a log has
	Epochs   int  // that there are
	Kills    int  // of a process; what the kernel has cached stays
	Powers   int  // power cuts, which may take what was not synced
	Wipes    int  // disks that are replaced by empty ones, or machines that never come back
	Older    int  // disks that are replaced by an older copy of themselves
	Restores int  // of the register from an older copy
	Silent   bool // such a restore is not made known by a new generation
	Swaps    int  // of the register, which count only where it can be restored; 0: any number
	Ticks    int  // of time; 0: vows do not count, and any copy may try to write at any time
	Objects  bool // commits make objects that others do not, and the second makes that of the first useless
}

const mostNodes = 3

// A node of the model: a machine, its disk and its process.
type node struct {
	copy   mirror.Copy
	synced mirror.Index // up to where the log survives a power cut
	hollow mirror.Index // a commit whose segments a power cut has taken; 0: none
	older  bool         // the disk is an older copy of itself: it may have caught up since
	starts uint8        // of the process
	up     bool         // the process runs; all below is lost with it
	wants  bool         // it has promised an epoch of its own, and waits for the register
	writes bool
	heard  uint8 // whom it has greeted since it began to write, a bit for each node
	writer mirror.Writer
	vow    mirror.Vow
	clock  time.Duration
}

type messageKind uint8

const (
	commitMessage messageKind = iota // writer to copy: before, commit
	answerMessage                    // copy to writer: all up to commit is durable
	seedMessage                      // writer to copy: a whole log
	beatMessage                      // writer to copy: vow, please
	vowMessage                       // copy to writer: since sent
)

// A message is a small value, so that a set of them is a sorted slice.
type message struct {
	kind        messageKind
	epoch       uint8 // of the writer
	node        uint8 // the copy that it goes to or comes from
	incarnation uint8
	beforeEpoch uint8
	commitEpoch uint8
	index       uint8
	session     uint8 // of the copy
	sent        uint8 // in seconds, by the writer's clock
}

func (m message) code() uint64 {
	return uint64(m.kind)<<60 | uint64(m.session)<<56 | uint64(m.epoch)<<48 | uint64(m.node)<<40 | uint64(m.incarnation)<<32 |
		uint64(m.beforeEpoch)<<24 | uint64(m.commitEpoch)<<16 | uint64(m.index)<<8 | uint64(m.sent)
}

// A state is everything. It is copied for each step; slices in it are never changed in place.
type state struct {
	nodes    [mostNodes]node
	register mirror.Record
	swaps    []mirror.Record   // that promotions have asked for and that may still be done
	backup   mirror.Record     // of the register; of no epoch: none
	acked    []mirror.Position // by anybody, ever, in order
	messages []message         // sorted
	logs     []mirror.Log      // that seeds carry, by their place
	objects  []object
	removed  bool // the object of the first commit
	excused  bool // things went on from an older disk after a second failure: what is lost is lost
	early    bool // something was acknowledged that a member does not have, as its writer should know
	owed     bool // one disk has failed, and another copy could write with all that was acknowledged
	left     left
}

// An object is in a bucket under a name that a writer chose.
type object struct {
	name   uint64
	commit mirror.Position
}

// left is how much more may happen.
type left struct {
	kills, powers, wipes, older, restores, ticks uint8
}

// highest is the newest epoch that anybody knows of.
func (s *state) highest() mirror.Epoch {
	e := s.register.Epoch
	for i := range s.nodes {
		e = max(e, s.nodes[i].copy.Promised)
	}
	return e
}

// writerClock is that of the node that writes in the epoch, if one does.
func (s *state) writerClock(epoch uint8) time.Duration {
	for i := range s.nodes {
		if n := &s.nodes[i]; n.writes && n.writer.Epoch == mirror.Epoch(epoch) {
			return n.clock
		}
	}
	return 0
}

func names(i int) string { return string(rune('a' + i)) }

func indexOf(name string) int { return int(name[0] - 'a') }

// start is the state before anything happened.
func start(b Bounds) state {
	s := state{left: left{
		kills: uint8(b.Kills), powers: uint8(b.Powers), wipes: uint8(b.Wipes), older: uint8(b.Older),
		restores: uint8(b.Restores), ticks: uint8(b.Ticks),
	}}
	s.register = mirror.Record{Stamp: mirror.Stamp{Generation: 1, Revision: 1}, Epoch: 1, Since: 1, Writer: names(0)}
	for i := range b.Nodes {
		n := &s.nodes[i]
		n.copy = mirror.Copy{Self: mirror.Member{Node: names(i), Incarnation: 1}, Promised: 1, Seen: s.register.Stamp}
		n.up = true
		// Clocks do not begin at 0, which stands for no vow.
		n.clock = time.Second
		n.vow = mirror.Begun(n.clock)
		if i < b.Nodes-b.Apart {
			s.register.InSync = append(s.register.InSync, n.copy.Self)
		}
	}
	first := &s.nodes[0]
	first.writer, first.writes = mirror.Begin(first.copy, s.register)
	return s
}

func (s *state) send(m message) {
	i, found := slices.BinarySearchFunc(s.messages, m, func(a, b message) int {
		if a.code() < b.code() {
			return -1
		} else if a.code() > b.code() {
			return 1
		}
		return 0
	})
	if !found {
		s.messages = slices.Insert(slices.Clone(s.messages), i, m)
	}
}

// An encoder writes a state as bytes, with the nodes in another order, so that states that differ
// only in the names of nodes are one.
type encoder struct {
	to    []byte
	model *model
	at    mirror.Stamp     // of the register
	order [mostNodes]uint8 // the new place of each node
	used  int
}

func (e *encoder) byte(b ...uint8) { e.to = append(e.to, b...) }

func (e *encoder) bool(b bool) {
	if b {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) log(l mirror.Log) {
	e.byte(uint8(l.Last), uint8(len(l.Starts)))
	for _, s := range l.Starts {
		e.byte(uint8(s.Epoch), uint8(s.Index))
	}
}

func (e *encoder) member(m mirror.Member) { e.byte(e.order[indexOf(m.Node)], uint8(m.Incarnation)) }

func (e *encoder) record(r mirror.Record) {
	e.byte(uint8(r.Stamp.Generation), uint8(r.Epoch), uint8(r.Since))
	e.byte(uint8(r.Base.Epoch), uint8(r.Base.Index))
	if e.model.Restores > 0 {
		e.byte(uint8(r.Stamp.Revision))
	} else {
		// What is not the newest fails, however old it is.
		e.bool(r.Stamp == e.at)
	}
	if r.Writer == "" {
		e.byte(255)
	} else {
		e.byte(e.order[indexOf(r.Writer)])
	}
	var in [mostNodes]uint8 // by new place: the list of members is in the order of names
	for _, m := range r.InSync {
		in[e.order[indexOf(m.Node)]] = uint8(m.Incarnation)
	}
	e.byte(in[:]...)
}

// ahead is how much later than the node's clock a time is: what is over is over, and all that
// counts are differences.
func (e *encoder) ahead(n *node, at time.Duration) uint8 {
	if e.model.Ticks == 0 {
		return 0
	}
	if e.model.Keep {
		return uint8((at - n.clock + time.Minute) / time.Second)
	}
	return uint8(max(0, at-n.clock) / time.Second)
}

func (e *encoder) node(n *node) {
	e.log(n.copy.Log)
	e.byte(uint8(n.copy.Self.Incarnation), uint8(n.copy.Promised), n.starts)
	if e.model.Restores > 0 {
		e.byte(uint8(n.copy.Seen.Generation), uint8(n.copy.Seen.Revision))
	}
	e.byte(uint8(n.synced), uint8(n.hollow), e.ahead(n, n.vow.Until))
	e.bool(n.older)
	e.bool(n.up)
	e.bool(n.wants)
	e.bool(n.writes)
	if !n.writes {
		return
	}
	w := &n.writer
	for i := range e.used {
		e.bool(e.model.Older > 0 && n.heard&(1<<slices.Index(e.order[:e.used], uint8(i))) != 0)
	}
	e.byte(uint8(w.Epoch), uint8(w.Acked), uint8(w.Floor))
	e.log(w.Log)
	e.bool(w.Fenced)
	e.record(w.Record)
	for place := range uint8(e.used) {
		for _, p := range w.Peers {
			if e.order[indexOf(p.Member.Node)] == place {
				e.member(p.Member)
				e.bool(p.Greeted)
				e.bool(p.Counted)
				e.byte(uint8(p.Answered), uint8(p.Session), e.ahead(n, p.Granted+mirror.Serve))
			}
		}
	}
	e.byte(255) // no place: the peers end
}

func (e *encoder) state(s *state) {
	e.to, e.at = e.to[:0], s.register.Stamp
	for place := range uint8(e.used) {
		for i := range e.used {
			if e.order[i] == place {
				e.node(&s.nodes[i])
			}
		}
	}
	e.record(s.register)
	e.byte(uint8(len(s.swaps)))
	for _, r := range s.swaps {
		e.record(r)
	}
	e.record(s.backup)
	e.byte(uint8(len(s.acked)))
	for _, p := range s.acked {
		e.byte(uint8(p.Epoch), uint8(p.Index))
	}
	e.byte(uint8(len(s.objects)))
	for _, o := range s.objects {
		e.byte(uint8(o.name>>20), uint8(o.name), uint8(o.commit.Epoch), uint8(o.commit.Index))
	}
	e.bool(s.removed)
	e.bool(s.owed)
	e.bool(s.excused)
	e.bool(s.early)
	e.byte(s.left.kills, s.left.powers, s.left.wipes, s.left.older, s.left.restores, s.left.ticks)
	for _, l := range s.logs {
		e.log(l)
	}
	e.byte(255)
	// A permutation of the nodes changes the order of the set.
	codes := make([]uint64, len(s.messages), 64)
	for i, m := range s.messages {
		if m.sent > 0 {
			m.sent = uint8(s.writerClock(m.epoch)/time.Second) - m.sent
		}
		m.node = e.order[m.node]
		codes[i] = m.code()
	}
	slices.Sort(codes)
	for _, c := range codes {
		e.to = binary.BigEndian.AppendUint64(e.to, c)
	}
}

var seed = maphash.MakeSeed()

// key is the hash of the state, whatever names its nodes have: they are put in the order of what is
// theirs alone. Nodes that are alike in that may still be seen in two orders, which is only slow.
func (e *encoder) key(s *state) uint64 {
	var own [mostNodes]uint64
	e.order = [mostNodes]uint8{}
	for i := range e.used {
		n := &s.nodes[i]
		e.to, e.at = e.to[:0], s.register.Stamp
		e.log(n.copy.Log)
		e.byte(uint8(n.copy.Promised), uint8(n.copy.Self.Incarnation), uint8(n.synced), n.starts, uint8(n.writer.Epoch))
		e.bool(n.up)
		e.bool(n.wants)
		e.bool(s.register.Names(n.copy.Self))
		e.bool(s.register.Writer == n.copy.Self.Node)
		own[i] = maphash.Bytes(seed, e.to)
	}
	for i := range e.used {
		for j := range e.used {
			if own[j] < own[i] || own[j] == own[i] && j < i {
				e.order[i]++
			}
		}
	}
	e.state(s)
	return maphash.Bytes(seed, e.to)
}
