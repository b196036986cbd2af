package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

type eventKind uint8

const (
	deliver   eventKind = iota // message a
	write                      // node a makes a commit
	sync                       // node a syncs what it has cached
	greet                      // writer a greets node b
	count                      // writer a counts node b
	join                       // writer a names node b in the register
	leave                      // writer a takes node b out of the register
	forget                     // writer a just stops counting node b (a mutation)
	learn                      // writer a reads the register
	promote                    // node a wants to write
	swap                       // the register does swap a
	begin                      // node a reads that it has become the writer
	kill                       // the process of node a
	power                      // node a loses power, and what is behind commit b
	hollow                     // node a loses power, and the segments of its last commit (a mutation)
	startNode                  // node a starts
	wipe                       // node a gets an empty disk
	older                      // node a gets its disk as it was at commit b
	keep                       // the register is copied
	restore                    // and restored
	confirm                    // an administrator says who goes on after that
	beat                       // writer a asks node b for a vow
	tick                       // time passes, by clocks that are slow or fast as the bits of a say
	destroy                    // writer a removes the object of the first commit
)

// An event is one thing that happens.
type event struct {
	kind eventKind
	b    uint8
	a    uint16
}

func (e event) describe(s *state) string {
	a, b := names(int(e.a)), names(int(e.b))
	switch e.kind {
	case deliver:
		m := s.messages[e.a]
		what := map[messageKind]string{
			commitMessage: "a commit comes to", answerMessage: "an answer comes from", seedMessage: "a seed comes to",
			beatMessage: "a request for a vow comes to", vowMessage: "a vow comes from",
		}[m.kind]
		return fmt.Sprintf("%s %s: epoch %d, commit %d.%d", what, names(int(m.node)), m.epoch, m.commitEpoch, m.index)
	case swap:
		r := s.swaps[e.a]
		return fmt.Sprintf("the register makes %s the writer of epoch %d", r.Writer, r.Epoch)
	case power:
		return fmt.Sprintf("%s loses power and what is behind commit %d", a, e.b)
	case older:
		return fmt.Sprintf("%s gets its disk back as it was at commit %d", a, e.b)
	case tick:
		return fmt.Sprintf("time passes, for some faster (%03b)", e.a)
	case keep:
		return "the register is copied"
	case restore:
		return "the register is restored from the copy"
	case confirm:
		return "an administrator confirms it, and who goes on"
	}
	text := map[eventKind]string{
		write: "%s writes", sync: "%s syncs", greet: "%s greets %s", count: "%s counts %s", join: "%s names %s in the register",
		leave: "%s takes %s out of the register", forget: "%s stops counting %s", learn: "%s reads the register",
		promote: "%s wants to write", begin: "%s reads that it writes", kill: "%s is killed",
		hollow: "%s loses power and the segments of its last commit", startNode: "%s starts", wipe: "%s gets an empty disk",
		beat: "%s asks %s for a vow", destroy: "%s removes the first object",
	}[e.kind]
	if slices.Contains([]eventKind{greet, count, join, leave, forget, beat}, e.kind) {
		return fmt.Sprintf(text, a, b)
	}
	return fmt.Sprintf(text, a)
}

// A model is a set of rules within bounds.
type model struct {
	Bounds
	Rules
}

// cached reports whether a power cut is possible, so that what is synced has to be told from what
// is not.
func (m *model) cached() bool { return m.Powers > 0 }

// events lists what may happen next.
func (m *model) events(s *state, to []event) []event {
	for i := range s.messages {
		to = append(to, event{kind: deliver, a: uint16(i)})
	}
	for i := range s.swaps {
		to = append(to, event{kind: swap, a: uint16(i)})
	}
	for i := range m.Nodes {
		n := &s.nodes[i]
		if n.up && n.writes && !n.writer.Fenced {
			to = m.writerEvents(s, i, to)
		}
		to = m.nodeEvents(s, i, to)
	}
	if m.Restores > 0 && s.backup.Epoch == 0 && s.register.Epoch > 0 {
		to = append(to, event{kind: keep})
	}
	if s.left.restores > 0 && s.backup.Epoch > 0 && s.backup.Stamp != s.register.Stamp {
		to = append(to, event{kind: restore})
	}
	if m.Restores > 0 && m.unconfirmed(s) && int(s.highest()) < m.Epochs {
		to = append(to, event{kind: confirm})
	}
	if s.left.ticks > 0 {
		to = append(to, event{kind: tick})
		for i := range m.Nodes {
			to = append(to, event{kind: tick, a: 1 << i})
		}
	}
	return to
}

func (m *model) writerEvents(s *state, i int, to []event) []event {
	n, a := &s.nodes[i], uint16(i)
	unsynced := n.synced < n.copy.Log.Last
	if int(n.copy.Log.Last) < m.Writes && !unsynced && n.copy.Promised == n.writer.Epoch {
		to = append(to, event{kind: write, a: a})
	}
	to = append(to, event{kind: learn, a: a})
	for j := range m.Nodes {
		if j == i {
			continue
		}
		b := uint8(j)
		if s.nodes[j].up {
			to = append(to, event{kind: greet, a: a, b: b}, event{kind: count, a: a, b: b}, event{kind: join, a: a, b: b})
			if m.Ticks > 0 {
				to = append(to, event{kind: beat, a: a, b: b})
			}
		}
		to = append(to, event{kind: leave, a: a, b: b})
		if m.LeaveAlone || m.LeaveUnnamed && !n.writer.Record.Names(s.nodes[j].copy.Self) {
			to = append(to, event{kind: forget, a: a, b: b})
		}
	}
	if m.Objects && !s.removed && m.MayDestroy(n.writer, 2) && n.writer.Log.Last >= 2 {
		to = append(to, event{kind: destroy, a: a})
	}
	return to
}

func (m *model) nodeEvents(s *state, i int, to []event) []event {
	n, a := &s.nodes[i], uint16(i)
	if n.up {
		if n.synced < n.copy.Log.Last {
			to = append(to, event{kind: sync, a: a})
		}
		if n.wants {
			to = append(to, event{kind: begin, a: a})
		} else if (!n.writes || n.writer.Fenced) && int(max(s.register.Epoch, n.copy.Promised)) < m.Epochs {
			to = append(to, event{kind: promote, a: a})
		}
		if s.left.kills > 0 {
			to = append(to, event{kind: kill, a: a})
		}
	} else {
		to = append(to, event{kind: startNode, a: a})
	}
	if s.left.powers > 0 && (n.up || n.synced < n.copy.Log.Last) {
		for last := n.synced; last <= n.copy.Log.Last; last++ {
			to = append(to, event{kind: power, a: a, b: uint8(last)})
		}
		if m.RecordsFirst && n.synced < n.copy.Log.Last {
			to = append(to, event{kind: hollow, a: a})
		}
	}
	if s.left.wipes > 0 {
		to = append(to, event{kind: wipe, a: a})
	}
	if s.left.older > 0 {
		for last := range n.copy.Log.Last {
			to = append(to, event{kind: older, a: a, b: uint8(last)})
		}
	}
	return to
}

// apply returns the state after the event. It may be the same one.
func (m *model) apply(s state, e event) state {
	before := s
	a, b := int(e.a), int(e.b)
	switch e.kind {
	case deliver:
		m.deliver(&s, s.messages[e.a])
	case swap:
		if r := s.swaps[e.a]; r.Stamp == s.register.Stamp || m.SwapAnyway {
			m.swapIn(&s, r)
		}
	case keep:
		s.backup = s.register
	case restore:
		m.restore(&s)
	case confirm:
		m.confirm(&s)
	case tick:
		s.left.ticks--
		for i := range m.Nodes {
			s.nodes[i].clock += 4 * time.Second
			if e.a&(1<<i) != 0 {
				s.nodes[i].clock += time.Second // a quarter faster
			}
		}
	case kill, power, hollow, startNode, wipe, older:
		m.fault(&s, e)
	case sync, promote, begin:
		m.nodeStep(&s, e)
	default:
		m.writerStep(&s, e.kind, a, b)
	}
	m.noteAcked(&before, &s)
	m.simplify(&s)
	return s
}

// commonTo is up to where all counted members have the writer's log.
func commonTo(w mirror.Writer) mirror.Index {
	all := w.Log.Last
	for _, p := range w.Peers {
		if p.Counted {
			all = min(all, p.Answered)
		}
	}
	return all
}

// tooEarly reports whether a counted copy, with which the writer has talked since it last started,
// does not have the commit.
func (m *model) tooEarly(s *state, w mirror.Writer, index mirror.Index) bool {
	for i := range m.Nodes {
		n := &s.nodes[i]
		p, _ := w.Find(n.copy.Self)
		if p.Counted && p.Session == uint64(n.starts) && !n.whole().Holds(w.Log.At(index)) {
			return true
		}
	}
	return false
}

// simplify forgets what has no effect any more, so that states which differ only in that are one.
func (m *model) simplify(s *state) {
	for i := range m.Nodes {
		n := &s.nodes[i]
		if n.writes && n.writer.Fenced {
			n.writes, n.writer = false, mirror.Writer{}
		}
		asked := slices.ContainsFunc(s.swaps, func(r mirror.Record) bool { return r.Writer == n.copy.Self.Node && r.Epoch == n.copy.Promised })
		// After a restore it may read once more that the swap was done.
		if n.wants && !asked && m.Restores == 0 && (s.register.Writer != n.copy.Self.Node || s.register.Epoch != n.copy.Promised) {
			n.wants = false // it will read that its swap has failed
		}
	}
	// Where rules are broken, or disks go back, what came too late may matter once more.
	if m.Keep || m.Older > 0 {
		return
	}
	if slices.ContainsFunc(s.messages, func(msg message) bool { return m.spent(s, msg) }) {
		s.messages = slices.DeleteFunc(slices.Clone(s.messages), func(msg message) bool { return m.spent(s, msg) })
	}
}

// spent reports whether the message changes nothing, whenever it comes.
func (m *model) spent(s *state, msg message) bool {
	n := &s.nodes[msg.node]
	if n.copy.Self.Incarnation != uint64(msg.incarnation) {
		return true
	}
	epoch := mirror.Epoch(msg.epoch)
	switch msg.kind {
	case commitMessage, seedMessage:
		return epoch < n.copy.Promised
	case beatMessage:
		// One that came so late would only make the copy wait longer.
		return epoch < n.copy.Promised || s.writerClock(msg.epoch) >= time.Duration(msg.sent)*time.Second+mirror.Serve
	}
	for i := range m.Nodes {
		w := &s.nodes[i]
		if w.writes && w.writer.Epoch == epoch {
			p, _ := w.writer.Find(n.copy.Self)
			return msg.kind == answerMessage && uint8(p.Answered) >= msg.index || p.Session != uint64(msg.session) ||
				msg.kind == vowMessage && max(p.Granted, w.clock-mirror.Serve) >= time.Duration(msg.sent)*time.Second
		}
	}
	return true // nobody writes in that epoch any more
}

// noteAcked writes down what has been acknowledged now.
func (m *model) noteAcked(before, s *state) {
	for i := range m.Nodes {
		n := &s.nodes[i]
		if !n.writes {
			continue
		}
		if m.AckOlder {
			n.writer.Acked = max(n.writer.Acked, commonTo(n.writer))
		}
		var done mirror.Index
		if old := &before.nodes[i].writer; old.Epoch == n.writer.Epoch {
			done = old.Acked
		}
		for index := done + 1; index <= n.writer.Acked; index++ {
			s.early = s.early || m.tooEarly(s, n.writer, index)
			if p := n.writer.Log.At(index); !slices.Contains(s.acked, p) {
				s.acked = append(slices.Clip(s.acked), p)
				slices.SortFunc(s.acked, func(a, b mirror.Position) int {
					return int(a.Epoch) - int(b.Epoch) + 16*(int(a.Index)-int(b.Index))
				})
			}
		}
	}
}

// swapIn changes the register. What else was to be swapped in fails from now on.
func (m *model) swapIn(s *state, r mirror.Record) {
	if m.Swaps > 0 && int(s.register.Stamp.Revision) > m.Swaps {
		return
	}
	r.Stamp = mirror.Stamp{Generation: s.register.Stamp.Generation, Revision: s.register.Stamp.Revision + 1}
	s.register = r
	if !m.SwapAnyway {
		s.swaps = slices.DeleteFunc(slices.Clone(s.swaps), func(r mirror.Record) bool { return r.Stamp != s.register.Stamp })
	}
}

func (m *model) writerStep(s *state, kind eventKind, a, b int) {
	n := &s.nodes[a]
	w := &n.writer
	other := s.nodes[b].copy.Self
	switch kind {
	case write:
		n.copy.Log = n.copy.Log.Append(w.Epoch)
		if m.Objects {
			o := object{m.SegmentBase(w.Epoch) + uint64(n.copy.Log.Last), n.copy.Log.End()}
			s.objects = append(slices.Clip(s.objects), o)
		}
		if m.SendEarly {
			early := *w
			early.Log = n.copy.Log
			m.sendNewest(s, early)
		}
		if !m.cached() {
			m.synced(s, a)
		}
	case greet:
		m.greet(s, a, b)
	case count:
		if next, ok := m.Count(*w, other); ok {
			*w = next
		}
	case join:
		if r, ok := m.Join(*w, other); ok && (r.Stamp == s.register.Stamp || m.SwapAnyway) {
			m.swapIn(s, r)
		}
	case leave:
		if n.older && n.heard&(1<<b) == 0 {
			s.excuse() // it goes on without the only one who could say that the disk is an older one
		}
		if r, ok := w.Leave(other); ok && (r.Stamp == s.register.Stamp || m.SwapAnyway) {
			m.swapIn(s, r)
		}
	case forget:
		*w = forgotten(*w, other)
	case learn:
		*w = m.Learn(*w, s.register)
	case beat:
		s.send(message{
			kind: beatMessage, epoch: uint8(w.Epoch), node: uint8(b), incarnation: uint8(other.Incarnation),
			sent: uint8(n.clock / time.Second),
		})
	case destroy:
		s.removed = true
	}
}

// forgotten is the writer without counting the member.
func forgotten(w mirror.Writer, m mirror.Member) mirror.Writer {
	w.Peers = slices.Clone(w.Peers)
	for i := range w.Peers {
		if w.Peers[i].Member == m {
			w.Peers[i].Counted = false
		}
	}
	return w.Appended(w.Log)
}

func (m *model) nodeStep(s *state, e event) {
	n := &s.nodes[e.a]
	switch e.kind {
	case sync:
		m.synced(s, int(e.a))
	case promote:
		now, vow := n.clock, n.vow
		if m.Ticks == 0 {
			vow = mirror.Vow{} // any time may have passed
		}
		c, r, why := m.Promote(n.copy, s.register, vow, now)
		if why != "" {
			return
		}
		if !m.PromiseLate {
			n.copy = c
		}
		if n.older && s.register.Writer != n.copy.Self.Node {
			s.excuse() // the writer is gone as well, or cut off: that is a second failure
		}
		// What it is to write behind must be durable.
		n.synced = n.copy.Log.Last
		n.wants, n.writes = true, false
		if !slices.ContainsFunc(s.swaps, func(old mirror.Record) bool {
			return old.Epoch == r.Epoch && old.Writer == r.Writer && old.Stamp == r.Stamp
		}) {
			s.swaps = append(slices.Clip(s.swaps), r)
		}
	case begin:
		if m.PromiseLate && s.register.Writer == n.copy.Self.Node && s.register.Epoch > n.copy.Promised {
			n.copy.Promised = s.register.Epoch
		}
		if w, ok := m.Begin(n.copy, s.register); ok {
			n.copy = n.copy.Saw(s.register)
			n.wants, n.writes, n.writer, n.heard = false, true, w, 0
		} else if len(s.swaps) == 0 {
			n.wants = false // its swap has failed
		}
	}
}

// synced makes the node's log durable, and says so.
func (m *model) synced(s *state, i int) {
	n := &s.nodes[i]
	n.synced = n.copy.Log.Last
	if n.writes && n.writer.Epoch == n.copy.Promised {
		n.writer = n.writer.Appended(n.copy.Log)
		m.sendNewest(s, n.writer)
		return
	}
	m.answer(s, i, n.copy.Log.End())
}

// answer says that the node has the commit.
func (m *model) answer(s *state, i int, commit mirror.Position) {
	n := &s.nodes[i]
	s.send(message{
		kind: answerMessage, session: n.starts, epoch: uint8(n.copy.Promised), node: uint8(i), incarnation: uint8(n.copy.Self.Incarnation),
		commitEpoch: uint8(commit.Epoch), index: uint8(commit.Index),
	})
}

// sendNewest sends the last commit to all whom the writer has greeted.
func (m *model) sendNewest(s *state, w mirror.Writer) {
	for _, p := range w.Peers {
		if p.Greeted {
			m.sendCommit(s, w, p.Member, w.Log.Last)
		}
	}
}

func (m *model) sendCommit(s *state, w mirror.Writer, to mirror.Member, index mirror.Index) {
	s.send(message{
		kind: commitMessage, epoch: uint8(w.Epoch), node: uint8(indexOf(to.Node)), incarnation: uint8(to.Incarnation),
		beforeEpoch: uint8(w.Log.At(index - 1).Epoch), commitEpoch: uint8(w.Log.At(index).Epoch), index: uint8(index),
	})
}

// greet is one request and its answer, over a new connection.
func (m *model) greet(s *state, a, b int) {
	n, other := &s.nodes[a], &s.nodes[b]
	c, ok := other.copy.Promise(n.writer.Epoch)
	if !ok {
		return
	}
	other.copy = c
	other.synced = c.Log.Last // what it says that it has must be durable
	if other.writes && other.writer.Epoch < c.Promised {
		other.writer = other.writer.Fence()
	}
	if other.wants {
		other.wants = false
	}
	next, what := m.Welcome(n.writer, c.Self, uint64(other.starts), c.Log)
	n.writer, n.heard = next, n.heard|1<<b
	switch what {
	case mirror.CatchUp:
		for index := c.Log.Last + 1; index <= next.Log.Last; index++ {
			m.sendCommit(s, next, c.Self, index)
		}
	case mirror.Seed:
		place := slices.IndexFunc(s.logs, func(l mirror.Log) bool { return l.End() == next.Log.End() })
		if place < 0 {
			place = len(s.logs)
			s.logs = append(slices.Clip(s.logs), next.Log)
		}
		s.send(message{
			kind: seedMessage, epoch: uint8(next.Epoch), node: uint8(b), incarnation: uint8(c.Self.Incarnation),
			beforeEpoch: uint8(place), commitEpoch: uint8(next.Log.End().Epoch), index: uint8(next.Log.Last),
		})
	}
}

func (m *model) deliver(s *state, msg message) {
	n := &s.nodes[msg.node]
	member := mirror.Member{Node: names(int(msg.node)), Incarnation: uint64(msg.incarnation)}
	commit := mirror.Position{Epoch: mirror.Epoch(msg.commitEpoch), Index: mirror.Index(msg.index)}
	switch msg.kind {
	case commitMessage, seedMessage, beatMessage:
		// A connection is to one incarnation.
		if n.up && n.copy.Self == member {
			m.toCopy(s, msg)
		}
	case answerMessage, vowMessage:
		for i := range m.Nodes {
			if w := &s.nodes[i]; w.up && w.writes && w.writer.Epoch == mirror.Epoch(msg.epoch) {
				if msg.kind == answerMessage {
					w.writer = m.Answered(w.writer, member, uint64(msg.session), mirror.Epoch(msg.epoch), commit)
				} else {
					sent := time.Duration(msg.sent) * time.Second
					if m.GrantLate {
						sent = w.clock
					}
					w.writer = w.writer.Granted(member, mirror.Epoch(msg.epoch), sent)
				}
			}
		}
	}
}

// toCopy is what a copy does with a frame.
func (m *model) toCopy(s *state, msg message) {
	i := int(msg.node)
	n := &s.nodes[i]
	epoch := mirror.Epoch(msg.epoch)
	commit := mirror.Position{Epoch: mirror.Epoch(msg.commitEpoch), Index: mirror.Index(msg.index)}
	var verdict mirror.Verdict
	switch msg.kind {
	case beatMessage:
		if n.copy.Promised == epoch {
			n.vow = n.vow.Renewed(n.clock)
			msg.kind, msg.session = vowMessage, n.starts
			s.send(msg)
		}
		return
	case commitMessage:
		before := mirror.Position{Epoch: mirror.Epoch(msg.beforeEpoch), Index: commit.Index - 1}
		if verdict = m.Take(n.copy, epoch, before, commit); verdict == mirror.Add {
			n.copy.Log = n.copy.Log.Append(commit.Epoch)
		}
	case seedMessage:
		log := s.logs[msg.beforeEpoch]
		if verdict = m.TakeSeed(n.copy, epoch, log); verdict == mirror.Add {
			n.copy.Log, n.synced = log, log.Last
		}
	}
	switch {
	case verdict != mirror.Add && verdict != mirror.Again:
	case !m.cached() || n.synced >= commit.Index || m.AnswerEarly:
		if !m.cached() {
			n.synced = n.copy.Log.Last
		}
		m.answer(s, i, commit)
	}
}
