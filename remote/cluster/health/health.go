// Package health judges a cluster by facts: what the register says, and what each
// node says of itself. It is a pure function of them. A fact that could not be
// had is unknown, and never counts as good.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

// A Level says how bad it is.
type Level string

const (
	OK   Level = "OK"
	Warn Level = "WARN" // nothing is lost, and the next failure may hurt
	Err  Level = "ERR"  // something does not work now
)

var rank = map[Level]int{OK: 0, Warn: 1, Err: 2}

// Rank is 0 for OK, and greater the worse it is.
func (l Level) Rank() int { return rank[l] }

// Facts are what is known at a moment.
type Facts struct {
	AsOf     time.Time // by the clock of the node that asks
	Cluster  cluster.Config
	NoVote   error // why the register could not be asked; nil: it was. Nodes are then those last known
	Nodes    []NodeFacts
	Volumes  []cluster.Volume // read after the nodes were asked: no node knows of a later epoch
	GoneBack bool             // the register is at a revision before one that was seen
	Repairs  []cluster.Repair // of volumes that lack a copy
	Plan     Plan             // what the rest means for where copies are

	by *index // nil: not made yet
}

// A Plan is what the other facts mean for where copies are, as package control says.
type Plan struct {
	Held     string   // why no copy is made or removed; empty: they are
	NoRoom   string   // the node whose copies the others have no room for; empty: they have
	NoRoomOf []string // volumes that would lack a copy without it
}

// NodeFacts are those of one node.
type NodeFacts struct {
	cluster.Node
	Up        bool
	Alive     *cluster.Alive // nil: it does not say that it is
	DownSince *time.Time     // nil: it is up, or nobody knows since when it is not
	Votes     bool           // it is in the quorum
	Heard     *time.Time     // when it was last known to be alive, by the clock of the node that asks; nil: not since that was started
	Said      *Answer        // nil: it did not answer in time
}

// An Answer is what a node says of itself when it is asked.
type Answer struct {
	Time    time.Time     `json:"time"` // its clock, when it answered
	Took    time.Duration `json:"-"`    // how long the answer took, by the clock of the node that asked
	Asked   time.Time     `json:"-"`    // when it was asked, by that clock
	Version string        `json:"version"`
	Used    int64         `json:"used"` // bytes of the disk that its directory is on
	Free    int64         `json:"free"`
	Expires time.Time     `json:"expires"` // of its certificate
	Ready   bool          `json:"ready"`   // it reaches the register
	Why     string        `json:"why"`     // why not
	Homes   []Home        `json:"homes"`   // of volumes that it writes, or has written
	Copies  []Copy        `json:"copies"`  // of volumes that others write
}

// A Copy is what a vault has of a volume, as it has looked itself.
type Copy struct {
	Volume    string    `json:"volume"`
	ID        string    `json:"id"`
	Domain    string    `json:"domain"`
	Epoch     int64     `json:"epoch"`  // below which nobody is let in
	Writer    string    `json:"writer"` // the node that writes in that epoch
	Snapshots int       `json:"snapshots"`
	Newest    *Snapshot `json:"newest"` // of those that agents make; null: there is none
	Bad       int64     `json:"bad"`    // blocks of the vault that are missing or damaged
	Error     string    `json:"error"`  // why the rest is not known
}

// A Home is what a node says of a volume that it writes, or has written.
type Home struct {
	Volume     string `json:"volume"`
	ID         string `json:"id"`
	Epoch      int64  `json:"epoch"` // in which this store was its home
	Store      string `json:"store"`
	Online     bool   `json:"online"` // a daemon has the store open
	Hangs      bool   `json:"hangs"`  // nobody knows whether it is online: its daemon or its disk does not answer
	Mountpoint string `json:"mountpoint"`
	Bytes      int64  `json:"bytes"`     // that its blocks take; 0 while it is not online
	FencedBy   string `json:"fenced_by"` // the node that writes it now; empty: this one
	Saved      string `json:"saved"`     // the snapshot at a vault of what a fenced store has
	Error      string `json:"error"`     // why it is not online
	Pushes     []Push `json:"pushes"`    // since the agent was started, by vault
}

// A Push is how the last try to bring snapshots to a vault went.
type Push struct {
	Vault    string     `json:"vault"`
	Tried    time.Time  `json:"tried"`
	Done     *time.Time `json:"done"`     // when one last succeeded; null: none has
	Snapshot string     `json:"snapshot"` // the newest that was there then
	Error    string     `json:"error"`    // of the last; empty: it succeeded
	Sent     int64      `json:"sent"`     // bytes that the one under way has sent, or the last
	Moved    *time.Time `json:"moved"`    // when some of them last went; null: none have
}

// A Snapshot of a volume, whole with all below it.
type Snapshot struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"` // by the clock of the node that made it
}

// A Check is something that is not as it should be.
type Check struct {
	Code     string     `json:"code"`
	Level    Level      `json:"level"`
	Since    *time.Time `json:"since"` // null: not known
	Subjects []string   `json:"subjects"`
	Text     string     `json:"text"`
	Do       string     `json:"do"` // what to type, or to see to
}

// A Status is the judgement.
type Status struct {
	Format  int       `json:"format"` // of this document
	AsOf    time.Time `json:"as_of"`
	Cluster string    `json:"cluster"`
	State   Level     `json:"state"`
	Control Control   `json:"control"`
	Checks  []Check   `json:"checks"` // the worst first
	Nodes   []Node    `json:"nodes"`  // by name
	Volumes []Volume  `json:"volumes"`
	Repair  []Repair  `json:"repair"`      // volumes that lack a copy
	Held    string    `json:"repair_held"` // why no copy is made or removed; empty: they are
}

// Control is the quorum that decides.
type Control struct {
	Voters   int  `json:"voters"` // in the quorum
	Up       int  `json:"up"`
	Decides  bool `json:"decides"`
	Survives int  `json:"survives"` // how many more of them may die
}

// Node is what is shown of one; null is unknown.
type Node struct {
	Name     string         `json:"name"`
	Zone     string         `json:"zone"`
	Roles    []cluster.Role `json:"roles"`
	State    cluster.State  `json:"state"`
	Up       bool           `json:"up"`
	Votes    bool           `json:"votes"`
	Address  string         `json:"address"`
	Capacity int64          `json:"capacity"`
	Version  *string        `json:"version"`
	Used     *int64         `json:"used"`
	Free     *int64         `json:"free"`
	Skew     *time.Duration `json:"skew_ns"` // its clock less that of the node that asked
	Expires  *time.Time     `json:"expires"`
	Bad      *int64         `json:"bad"`   // blocks of its vault that are missing or damaged
	Heard    *time.Time     `json:"heard"` // when it was last known to be alive, by the clock of the node that asked

	unsure bool // nobody says who is alive
}

// Known is whether the node is up, down, or unknown: one that is said to be up and does not answer
// may be either.
func (n Node) Known() string {
	switch {
	case n.Version != nil:
		return "up"
	case n.Up || n.unsure:
		return "unknown"
	}
	return "down"
}

const (
	statusFormat = 1
	mostSkew     = time.Second
	expiresSoon  = 60 * 24 * time.Hour
	lowShare     = 20 // a disk with less than a 20th free is low
)

// Judge returns what is wrong.
func Judge(f Facts) Status {
	f = f.Indexed()
	s := Status{Format: statusFormat, AsOf: f.AsOf, Cluster: f.Cluster.Name, Checks: []Check{}, Nodes: []Node{}, Volumes: showVolumes(f)}
	s.Repair, s.Held = showRepairs(f), f.Plan.Held
	for _, n := range f.Nodes {
		s.Nodes = append(s.Nodes, show(n, f.NoVote != nil))
		if n.Votes {
			s.Control.Voters++
			if n.Up {
				s.Control.Up++
			}
		}
	}
	s.Control.Decides = f.NoVote == nil
	if s.Control.Decides {
		// What is more than half must stay.
		s.Control.Survives = max(0, s.Control.Up-(s.Control.Voters/2+1))
	}
	for _, check := range []func(Facts, Control) []Check{control, nodesDown, silent, clocks, versions, certificates, disks, room} {
		s.Checks = append(s.Checks, check(f, s.Control)...)
	}
	s.Checks = append(s.Checks, volumes(f, s.Volumes)...)
	s.Checks = append(s.Checks, repairs(s.Repair)...)
	slices.SortStableFunc(s.Checks, func(a, b Check) int { return cmp.Compare(rank[b.Level], rank[a.Level]) })
	s.State = OK
	if len(s.Checks) > 0 {
		s.State = s.Checks[0].Level
	}
	return s
}

func show(n NodeFacts, unsure bool) Node {
	shown := Node{
		Name: n.Name, Zone: n.Zone, Roles: n.Roles, State: n.State, Up: n.Up, Votes: n.Votes,
		Address: n.Address, Capacity: n.Capacity, Heard: n.Heard, unsure: unsure,
	}
	if a := n.Said; a != nil {
		skew, bad := a.skew(), a.bad()
		shown.Bad = &bad
		shown.Version, shown.Used, shown.Free, shown.Skew, shown.Expires = &a.Version, &a.Used, &a.Free, &skew, &a.Expires
	}
	return shown
}

// skew is how far the node's clock is ahead. The answer was written between the question and its
// arrival, so what is less than the way took cannot be told from none.
func (a *Answer) skew() time.Duration {
	off := a.Time.Sub(a.Asked.Add(a.Took / 2))
	if off.Abs() <= a.Took/2 {
		return 0
	}
	return off
}

func control(f Facts, c Control) []Check {
	switch {
	case f.NoVote != nil:
		return []Check{{
			Code: "CONTROL_NO_QUORUM", Level: Err,
			Text: "the cluster cannot decide: no node can join or leave. What runs goes on. " + f.NoVote.Error(),
			Do:   "start the voters that are down: quarxfs cluster start there; if too many are lost for good, quarxfs cluster rebuild on one that is left",
		}}
	case c.Voters == 1:
		return []Check{{
			Code: "CONTROL_SINGLE", Level: Warn, Subjects: voters(f),
			Text: "one node decides alone: while it is down nothing can be changed, and if its disk is lost the cluster must be made anew",
			Do:   "let two more machines join; quarxfs cluster join --witness is enough for one that holds no data",
		}}
	case c.Voters%2 == 0:
		return []Check{{
			Code: "CONTROL_EVEN", Level: Warn, Subjects: voters(f),
			Text: fmt.Sprintf("%d nodes vote, which bear no more failures than %d", c.Voters, c.Voters-1),
			Do:   "let one more machine join",
		}}
	case c.Survives == 0: // of three or more, one of which is down
		return []Check{{
			Code: "CONTROL_AT_RISK", Level: Warn, Subjects: voters(f),
			Text: fmt.Sprintf("%d of %d voters are up: without one more of them nothing can be decided", c.Up, c.Voters),
			Do:   "start the voters that are down",
		}}
	}
	return nil
}

func voters(f Facts) []string {
	return names(f, func(n NodeFacts) bool { return n.Votes })
}

func names(f Facts, which func(NodeFacts) bool) []string {
	var found []string
	for _, n := range f.Nodes {
		if which(n) {
			found = append(found, n.Name)
		}
	}
	return found
}

func nodesDown(f Facts, _ Control) []Check {
	if f.NoVote != nil {
		return nil // who is up is not known then; silent has what is
	}
	var checks []Check
	for _, n := range f.Nodes {
		if n.Up {
			continue
		}
		c := Check{
			Code: "NODE_DOWN", Level: Warn, Since: n.DownSince, Subjects: []string{n.Name},
			Text: n.Name + " does not say that it is alive",
			Do:   "see to that machine, or quarxfs cluster leave " + n.Name + " if it does not come back",
		}
		if n.DownSince != nil {
			gone := f.AsOf.Sub(*n.DownSince)
			c.Text = fmt.Sprintf("%s has not been seen for %s", n.Name, gone.Round(time.Second)) + repairBegins(f, n.Name, gone)
		}
		checks = append(checks, c)
	}
	return checks
}

// silent names the nodes of which nothing is known, though they are said to be up.
func silent(f Facts, _ Control) []Check {
	quiet := names(f, func(n NodeFacts) bool { return n.Said == nil && (n.Up || f.NoVote != nil) })
	if len(quiet) == 0 {
		return nil
	}
	return []Check{{
		Code: "VIEW_PARTIAL", Level: Warn, Subjects: quiet,
		Text: strings.Join(quiet, ", ") + " did not answer in time: what only they can say is unknown",
		Do:   "ask again; if it stays, see the network between the nodes, and agent.log there",
	}}
}

func clocks(f Facts, _ Control) []Check {
	off := names(f, func(n NodeFacts) bool { return n.Said != nil && n.Said.skew().Abs() > mostSkew })
	if len(off) == 0 {
		return nil
	}
	return []Check{{
		Code: "CLOCK_OFF", Level: Warn, Subjects: off,
		Text: "the clock of " + strings.Join(off, ", ") + " differs from that of the node that asked",
		Do:   "set the clocks, as with timedatectl set-ntp true",
	}}
}

func versions(f Facts, _ Control) []Check {
	of := make(map[string][]string)
	for _, n := range f.Nodes {
		if n.Said != nil {
			of[n.Said.Version] = append(of[n.Said.Version], n.Name)
		}
	}
	if len(of) < 2 {
		return nil
	}
	var parts, subjects []string
	for version, nodes := range of { // in no order, so both lists are sorted below
		parts = append(parts, fmt.Sprintf("%s on %s", version, strings.Join(nodes, ", ")))
		subjects = append(subjects, nodes...)
	}
	slices.Sort(parts)
	slices.Sort(subjects)
	return []Check{{
		Code: "VERSION_MIX", Level: Warn, Subjects: subjects,
		Text: "the nodes run different versions: " + strings.Join(parts, "; "),
		Do:   "install the same QuarXFS on all nodes",
	}}
}

func certificates(f Facts, _ Control) []Check {
	soon := names(f, func(n NodeFacts) bool { return n.Said != nil && n.Said.Expires.Sub(f.AsOf) < expiresSoon })
	if len(soon) == 0 {
		return nil
	}
	return []Check{{
		Code: "CERT_EXPIRES", Level: Warn, Subjects: soon,
		Text: "the certificate of " + strings.Join(soon, ", ") + " ends within 60 days, or has ended",
		Do:   "quarxfs cluster leave and join again there",
	}}
}

func disks(f Facts, _ Control) []Check {
	low := names(f, func(n NodeFacts) bool { return n.Said != nil && n.Said.Free < (n.Said.Used+n.Said.Free)/lowShare })
	if len(low) == 0 {
		return nil
	}
	return []Check{{
		Code: "SPACE_LOW", Level: Warn, Subjects: low,
		Text: "the disk of " + strings.Join(low, ", ") + " is nearly full",
		Do:   "free some space there",
	}}
}
