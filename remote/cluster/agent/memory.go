package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// A memory holds what the register and the nodes have said last: what the node goes by while nobody
// decides, and what it tells a register by that has gone back.
//
// Lock: mu alone, which is held over no call.
type memory struct {
	dir Dir
	log *slog.Logger

	mu struct {
		sync.Mutex
		why      error              // why the register is out of reach; nil: it is not
		nodes    []health.NodeFacts // without what nodes say themselves
		heard    map[string]time.Time
		copy     cluster.Copy // of the register, as it is on the disk
		volumes  []cluster.Volume
		domains  map[string]cluster.Domain
		revision int64            // of the register, when it said so
		sizes    map[string]int64 // of volumes, by ID, as their homes said
	}
}

func newMemory(dir Dir, log *slog.Logger) *memory {
	m := &memory{dir: dir, log: log}
	m.mu.why = errStarting
	m.mu.heard, m.mu.sizes = map[string]time.Time{}, map[string]int64{}
	return m
}

// recall begins with what the register said before the agent was stopped: without a quorum nodes
// still find each other, and pushes go on. The agent does not run yet.
func (m *memory) recall() {
	c, err := m.dir.readCopy(copyName)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("what the register has said is not known any more", "err", err)
		}
		return
	}
	m.mu.copy, m.mu.volumes = c, c.Volumes
	for _, n := range c.Nodes {
		m.mu.nodes = append(m.mu.nodes, health.NodeFacts{Node: n, Votes: n.Has(cluster.RoleVoter)})
	}
}

// keepCopy writes down what the register has decided, when that has changed. What is older than
// what is there is not written: it is the better copy of the two.
func (m *memory) keepCopy(conf cluster.Config, is cluster.Membership) {
	m.mu.Lock()
	before := m.mu.copy
	next := cluster.Copy{Format: cluster.CopyFormat, Revision: m.mu.revision, Config: conf, Nodes: is.Nodes, Volumes: m.mu.volumes, Revoked: is.Revoked}
	for _, d := range m.mu.domains {
		next.Domains = append(next.Domains, d)
	}
	m.mu.Unlock()
	slices.SortFunc(next.Domains, func(x, y cluster.Domain) int { return strings.Compare(x.Name, y.Name) })
	if next.Newer(before) <= 0 || sameDecisions(next, before) {
		return
	}
	if err := m.dir.writeCopy(copyName, next); err != nil {
		m.log.Warn("what the register says is not kept", "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.copy = next
}

// sameDecisions compares all but the revision, which is raised by what is not decided, too: who
// comes up, who is down, and what the controller notes.
func sameDecisions(a, b cluster.Copy) bool {
	a.Revision = b.Revision
	return reflect.DeepEqual(a, b)
}

// goneBack tells whether a register of that revision is older than one that this node has seen.
func (m *memory) goneBack(conf cluster.Config, revision int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cluster.Copy{Config: conf, Revision: revision}.Newer(m.mu.copy) < 0
}

// lastCopy is what is on the disk of what the register has decided.
func (m *memory) lastCopy() cluster.Copy {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.copy
}

func (m *memory) setReach(err error) {
	m.mu.Lock()
	before := m.mu.why
	m.mu.why = err
	m.mu.Unlock()
	switch {
	case err == nil && before != nil:
		m.log.Info("the register is reached")
	case err != nil && (before == nil || errors.Is(before, errStarting)):
		m.log.Warn("the register is out of reach", "err", err)
	}
}

func (m *memory) reach() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.why
}

// keepNodes remembers them for when the register is out of reach.
func (m *memory) keepNodes(nodes []health.NodeFacts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.nodes = nodes
	m.hear(nodes)
}

// hear remembers who is alive, and fills in when the others last were. The caller holds mu.
func (m *memory) hear(nodes []health.NodeFacts) {
	now := time.Now()
	for i := range nodes {
		n := &nodes[i]
		if n.Up {
			m.mu.heard[n.Name] = now
		}
		if last, ok := m.mu.heard[n.Name]; ok {
			last = last.UTC()
			n.Heard = &last
		}
	}
}

// lastNodes are those that were kept last.
func (m *memory) lastNodes() []health.NodeFacts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.nodes)
}

// lastNode is one of them; of a sync it is asked for each request.
func (m *memory) lastNode(name string) (cluster.Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.mu.nodes {
		if n.Name == name {
			return n.Node, true
		}
	}
	return cluster.Node{}, false
}

// keepVolumes remembers what the register says at this revision.
func (m *memory) keepVolumes(volumes []cluster.Volume, domains map[string]cluster.Domain, revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.volumes, m.mu.domains, m.mu.revision = volumes, domains, revision
}

// lastVolumes are those that were kept last.
func (m *memory) lastVolumes() []cluster.Volume {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.volumes)
}

// keepFacts remembers who is alive, and how large volumes are by their homes; it fills in when the
// other nodes last were.
func (m *memory) keepFacts(f health.Facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hear(f.Nodes)
	for _, v := range f.Volumes {
		if home := f.HomeOf(v); home != nil && home.Online {
			m.mu.sizes[v.ID] = home.Bytes
		}
	}
}

// sizes are the volumes' last known ones, by ID.
func (m *memory) sizes() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mu.sizes)
}
