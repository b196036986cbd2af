// Package place decides where the copies of volumes are: where a new one goes,
// what to make after a loss, what must move before a node may leave, which moves
// even the disks out, and what would be lost with a set of nodes. It is a pure
// function of facts. The same facts, in any order, give the same answer on every
// node, so arithmetic is of whole numbers.
//
// Plans are for one round. Whoever carries one out reads the facts anew before
// the next, so nothing is remembered between rounds: a copy that was begun is a
// fact by then. What holds for every plan:
//
//	P1  A copy is dropped only when as many as are wanted, of its kind, are made
//	    and seen on nodes that stay, without it; and never the writer's.
//	P2  What nobody can see does not count as a copy. It is not dropped either:
//	    it may be there, and nobody knows what it has.
//	P3  No node has two copies of a volume.
//	P4  Nothing is moved while many nodes are down, or while the register may
//	    be an older one than was acted upon.
package place

import (
	"cmp"
	"slices"
	"time"
)

// A Kind says what a copy is for.
type Kind string

const (
	Writer Kind = "writer" // the copy that is written to; a volume has one at most
	Mirror Kind = "mirror" // has what the writer has acknowledged, and may take its place
	Vault  Kind = "vault"  // has snapshots
)

// A CopyState says how far a copy is.
type CopyState string

const (
	Made   CopyState = "made"   // it is whole, as its node has verified
	Making CopyState = "making" // it is being filled
	Bad    CopyState = "bad"    // it is no copy any more: wiped, diverged, or of another disk
)

// A Copy of a volume on a node.
type Copy struct {
	Node   string
	Kind   Kind
	State  CopyState
	Unseen time.Duration // for how long its node has not vouched for it; 0: it does
	Behind bool          // a vault that is being made has a snapshot all the same, which may be old
	Age    time.Duration // of the newest snapshot in a vault; 0 for the others
}

// A Node that may hold copies.
type Node struct {
	Name     string
	Zone     string        // what fails together; empty: the node alone
	Data     bool          // it has the role of holding copies
	Draining bool          // it gets no new copies, and gives up its own
	Unseen   time.Duration // for how long it has not been seen; 0: it is up
	Disk     *Disk         // nil: not known, so that nothing new goes there
}

// A Disk in bytes.
type Disk struct {
	Size int64 // what the node may use of it
	Free int64
}

// A Volume and its copies.
type Volume struct {
	ID        string
	Bytes     int64 // that it takes on a disk
	Mirrors   int   // how many are wanted, beside the writer's own copy
	Vaults    int
	MayMove   bool // its writer may go to another node: it is not mounted, or an administrator said so
	Copies    []Copy
	Snapshots []Snapshot
}

// A Snapshot of a volume, and which nodes have it.
type Snapshot struct {
	Name  string
	Bytes int64 // that nothing else of the volume has
	Nodes []string
}

// Facts are what is known at a moment.
type Facts struct {
	Nodes      []Node // of the cluster; one that was removed is not among them
	Volumes    []Volume
	RolledBack bool // the register may be older than what was acted upon
	Rules      Rules
}

// Rules are the limits. Shares are in millionths.
type Rules struct {
	RepairAfter time.Duration // how long a copy is unseen before another is made in its place
	MostDown    int64         // the share of nodes that may be down for anything to be moved; one always may
	Room        int64         // what must be free for a new copy, as a share of the volume
	AtOnce      int           // how many copies a node is filled with at the same time
	PerRound    int           // how many steps a plan has
	BeginSpread int64         // the difference between the fullest and the emptiest disk that balancing begins at
	EndSpread   int64         // and that it ends at
	LeastGain   int64         // how much emptier than the source was the target of a move is after it
}

const million = 1_000_000

// DefaultRules are those of a cluster for which nothing else was decided.
func DefaultRules() Rules {
	return Rules{
		RepairAfter: 10 * time.Minute,
		MostDown:    million / 4,
		Room:        million + million/4,
		AtOnce:      8,
		PerRound:    64,
		BeginSpread: million / 5,
		EndSpread:   million / 10,
		LeastGain:   million / 50,
	}
}

// A Verb is what a step does.
type Verb string

const (
	Make Verb = "make"      // begin a copy at Node, filled from the one at From
	Drop Verb = "drop"      // remove the copy at Node; from the register alone, if the node was removed
	Hand Verb = "hand over" // let Node write in place of From, which stays as a mirror
)

// A Reason says why a step is taken, or none.
type Reason string

const (
	Missing     Reason = "fewer copies are there than wanted"
	Leaving     Reason = "the node is draining"
	Removed     Reason = "the node was removed from the cluster"
	Excess      Reason = "more copies are there than wanted"
	Uneven      Reason = "the disks are filled unevenly"
	Apart       Reason = "two copies are in one zone"
	NoTarget    Reason = "no other node is up, takes copies and has room"
	NoSource    Reason = "no whole copy is there to fill it from"
	InUse       Reason = "the volume is written there: take it over on another node"
	OnlyCopy    Reason = "no other copy is known to be whole"
	TooFew      Reason = "fewer copies than wanted would be left"
	ManyDown    Reason = "too many nodes are down to tell a loss from a network that is cut"
	Busy        Reason = "copies are being made or removed: ask again when that is done"
	WasRestored Reason = "the register may be older than what was acted upon"
)

// A Step of a plan. Steps of one plan do not depend on each other.
type Step struct {
	Do     Verb
	Volume string
	Kind   Kind
	Node   string
	From   string
	Bytes  int64 // that travel
	Shared bool  // the new copy is in a zone with another one: no other zone has room
	Why    Reason
}

// Blocked is what ought to be done and cannot.
type Blocked struct {
	Volume string
	Kind   Kind
	Node   string // whose copy it is about; empty: one that is missing
	Why    Reason
}

// A Plan for one round.
type Plan struct {
	Steps   []Step
	Blocked []Blocked
	Held    Reason // why nothing at all is done; empty: it is not held
}

// sorted returns facts in an order of their own, with copies of what plans change.
func (f Facts) sorted() Facts {
	f = f.sortedNodes()
	f.Volumes = slices.Clone(f.Volumes)
	slices.SortFunc(f.Volumes, func(a, b Volume) int { return cmp.Compare(a.ID, b.ID) })
	for i := range f.Volumes {
		v := &f.Volumes[i]
		v.Copies = slices.Clone(v.Copies)
		slices.SortFunc(v.Copies, func(a, b Copy) int { return cmp.Compare(a.Node, b.Node) })
	}
	return f
}

// sortedNodes is sorted for who changes no volume, and asks for them in no order: to clone and to
// sort a hundred thousand takes longer than to choose a node.
func (f Facts) sortedNodes() Facts {
	f.Nodes = slices.Clone(f.Nodes)
	slices.SortFunc(f.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	disks := make([]Disk, len(f.Nodes)) // all at once: there may be ten thousand
	for i := range f.Nodes {
		if d := f.Nodes[i].Disk; d != nil {
			disks[i] = *d
			f.Nodes[i].Disk = &disks[i]
		}
	}
	return f
}
