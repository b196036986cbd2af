package place_test

import (
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/remote/cluster/place"
)

// A world is facts that change as the steps of plans are carried out, and by accidents. What it
// asserts is written down here a second time, slowly and without the package's view.
type world struct {
	*rapid.T
	f place.Facts
}

func pick[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

// newWorld has a cluster with volumes that have all their copies.
func newWorld(t *rapid.T) *world {
	w := &world{T: t, f: place.Facts{Rules: place.DefaultRules()}}
	w.f.Rules.AtOnce = pick(t, "at once", 1, 3, 100)
	w.f.Rules.PerRound = pick(t, "per round", 1, 4, 100)
	for i := range rapid.IntRange(1, 7).Draw(t, "nodes") {
		size := pick(t, "size", int64(200), 400, 1000) * gib
		w.f.Nodes = append(w.f.Nodes, place.Node{
			Name: fmt.Sprintf("n%d", i+1), Zone: pick(t, "zone", "", "a", "b", "c"), Data: pick(t, "data", true, true, true, false),
			Disk: &place.Disk{Size: size, Free: size},
		})
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "volumes") {
		w.addVolume(fmt.Sprintf("v%d", i+1))
	}
	return w
}

func (w *world) addVolume(id string) {
	vol := place.Volume{
		ID: id, Bytes: pick(w.T, "bytes", int64(1), 10, 40) * gib, MayMove: pick(w.T, "may move", true, false),
		Mirrors: rapid.IntRange(0, 2).Draw(w.T, "mirrors"), Vaults: rapid.IntRange(0, 1).Draw(w.T, "vaults"),
	}
	kinds := slices.Concat([]place.Kind{place.Writer}, slices.Repeat([]place.Kind{place.Mirror}, vol.Mirrors), slices.Repeat([]place.Kind{place.Vault}, vol.Vaults))
	for i, n := range rapid.Permutation(w.f.Nodes).Draw(w.T, "at") {
		if i < len(kinds) && n.Disk.Free > vol.Bytes {
			n.Disk.Free -= vol.Bytes
			vol.Copies = append(vol.Copies, place.Copy{Node: n.Name, Kind: kinds[i], State: place.Made})
		}
	}
	w.f.Volumes = append(w.f.Volumes, vol)
}

func (w *world) node(name string) *place.Node {
	if i := slices.IndexFunc(w.f.Nodes, func(n place.Node) bool { return n.Name == name }); i >= 0 {
		return &w.f.Nodes[i]
	}
	return nil
}

func (w *world) volume(id string) *place.Volume {
	return &w.f.Volumes[slices.IndexFunc(w.f.Volumes, func(v place.Volume) bool { return v.ID == id })]
}

// vouched reports whether the copy is made and its node says so now.
func (w *world) vouched(c place.Copy) bool {
	n := w.node(c.Node)
	return n != nil && n.Unseen == 0 && c.Unseen == 0 && c.State == place.Made
}

// safe counts the copies of the kind that are vouched for by nodes that stay.
func (w *world) safe(vol *place.Volume, kind place.Kind) int {
	count := 0
	for _, c := range vol.Copies {
		if c.Kind == kind && w.vouched(c) && !w.node(c.Node).Draining {
			count++
		}
	}
	return count
}

// accident changes something that plans have no part in.
func (w *world) accident() {
	if len(w.f.Nodes) == 0 {
		return
	}
	n := w.node(pick(w.T, "node", w.f.Nodes...).Name)
	switch pick(w.T, "accident", "cut", "back", "drain", "stay", "wipe", "remove", "grow", "restored", "hush") {
	case "cut":
		n.Unseen = pick(w.T, "for", time.Second, time.Hour)
	case "back":
		n.Unseen, w.f.RolledBack = 0, false
	case "drain":
		n.Draining = true
	case "stay":
		n.Draining = false
	case "wipe":
		for i := range w.f.Volumes {
			for j := range w.f.Volumes[i].Copies {
				if c := &w.f.Volumes[i].Copies[j]; c.Node == n.Name && c.Kind != place.Writer {
					c.State = place.Bad
				}
			}
		}
	case "remove":
		if len(place.MayLeave(w.f, n.Name)) == 0 {
			w.mayGo(n.Name)
			remove(&w.f, n.Name)
		}
	case "grow":
		n.Disk.Free -= n.Disk.Free / 10
	case "restored":
		w.f.RolledBack = true
	case "hush":
		for i := range w.f.Volumes {
			for j := range w.f.Volumes[i].Copies {
				w.f.Volumes[i].Copies[j].Unseen = pick(w.T, "unseen", 0, 0, time.Second, time.Hour)
			}
		}
	}
}

// mayGo asserts that no volume has its last whole copy on the node, nor one that makes it safe.
func (w *world) mayGo(name string) {
	for _, vol := range w.f.Volumes {
		here, elsewhere := false, 0
		for _, c := range vol.Copies {
			if c.Node == name {
				here = c.State == place.Made
			} else if w.vouched(c) && !w.node(c.Node).Draining {
				elsewhere++
			}
		}
		if here && elsewhere == 0 {
			w.Fatalf("%s may leave with the last copy of %s", name, vol.ID)
		}
	}
}

// carryOut does some of the steps in any order: others fail.
func (w *world) carryOut(p place.Plan) {
	if len(p.Steps) == 0 {
		return
	}
	if p.Held != "" || len(p.Steps) > w.f.Rules.PerRound {
		w.Fatalf("%d steps of a plan that is held (%s)", len(p.Steps), p.Held)
	}
	for _, s := range rapid.Permutation(p.Steps).Draw(w.T, "steps") {
		if pick(w.T, "does it", true, true, true, false) {
			w.do(s)
		}
	}
}

func (w *world) do(s place.Step) {
	vol := w.volume(s.Volume)
	at := slices.IndexFunc(vol.Copies, func(c place.Copy) bool { return c.Node == s.Node })
	n := w.node(s.Node)
	switch s.Do {
	case place.Make:
		from := slices.IndexFunc(vol.Copies, func(c place.Copy) bool { return c.Node == s.From })
		switch {
		case n.Unseen > 0 || n.Draining || !n.Data || n.Disk.Free < vol.Bytes:
			w.Fatalf("%v: the node takes none", s)
		case from < 0 || !w.vouched(vol.Copies[from]):
			w.Fatalf("%v: there is nothing whole to fill it from", s)
		case at >= 0 && vol.Copies[at].State != place.Bad:
			w.Fatalf("%v: the node has one", s)
		case at >= 0:
			vol.Copies[at] = place.Copy{Node: s.Node, Kind: s.Kind, State: place.Making}
		default:
			vol.Copies = append(vol.Copies, place.Copy{Node: s.Node, Kind: s.Kind, State: place.Making})
		}
	case place.Drop:
		c := vol.Copies[at]
		if c.Kind == place.Writer || c.Kind != s.Kind || n != nil && (n.Unseen > 0 || c.Unseen > 0) {
			w.Fatalf("%v removes %v", s, c)
		}
		vol.Copies = slices.Delete(vol.Copies, at, at+1)
		if n != nil {
			n.Disk.Free = min(n.Disk.Size, n.Disk.Free+vol.Bytes)
		}
		want := map[place.Kind]int{place.Mirror: vol.Mirrors, place.Vault: vol.Vaults}[c.Kind]
		if w.safe(vol, place.Writer) != 1 || w.safe(vol, c.Kind) < want {
			w.Fatalf("%v leaves %d safe copies of %d, and %d writers", s, w.safe(vol, c.Kind), want, w.safe(vol, place.Writer))
		}
	case place.Hand:
		from := slices.IndexFunc(vol.Copies, func(c place.Copy) bool { return c.Node == s.From })
		if vol.Copies[at].Kind != place.Mirror || !w.vouched(vol.Copies[at]) || n.Draining || vol.Copies[from].Kind != place.Writer || !vol.MayMove {
			w.Fatalf("%v: from %v to %v", s, vol.Copies[from], vol.Copies[at])
		}
		vol.Copies[at].Kind, vol.Copies[from].Kind = place.Writer, place.Mirror
		if w.safe(vol, place.Mirror) < vol.Mirrors {
			w.Fatalf("%v leaves %d mirrors of %d", s, w.safe(vol, place.Mirror), vol.Mirrors)
		}
	}
}

// finish fills what is being filled.
func (w *world) finish() {
	for i := range w.f.Volumes {
		vol := &w.f.Volumes[i]
		for j := range vol.Copies {
			c := &vol.Copies[j]
			if n := w.node(c.Node); c.State == place.Making && n != nil && n.Unseen == 0 {
				c.State = place.Made
				n.Disk.Free = max(0, n.Disk.Free-vol.Bytes)
			}
		}
	}
}

// shuffled returns the same facts in another order.
func shuffled(f place.Facts) place.Facts {
	mix := func(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }
	f.Nodes = slices.Clone(f.Nodes)
	mix(len(f.Nodes), func(i, j int) { f.Nodes[i], f.Nodes[j] = f.Nodes[j], f.Nodes[i] })
	f.Volumes = slices.Clone(f.Volumes)
	mix(len(f.Volumes), func(i, j int) { f.Volumes[i], f.Volumes[j] = f.Volumes[j], f.Volumes[i] })
	for i := range f.Volumes {
		c := slices.Clone(f.Volumes[i].Copies)
		mix(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
		f.Volumes[i].Copies = c
	}
	return f
}

// clone shares nothing with f that a plan could change.
func clone(f place.Facts) place.Facts {
	f = shuffled(f)
	for i := range f.Nodes {
		if f.Nodes[i].Disk != nil {
			disk := *f.Nodes[i].Disk
			f.Nodes[i].Disk = &disk
		}
	}
	return f
}

// Whatever happens between and amid plans, no step takes away what makes a volume safe, in any
// order of the steps; the order of the facts does not matter, and they are not changed. Once
// nothing happens any more, all volumes have what is wanted after no more steps than it takes.
func TestRandomDays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 25).Draw(t, "rounds") {
			if pick(t, "calm", true, false) {
				w.accident()
			}
			p := place.Next(w.f)
			if diff := cmp.Diff(p, place.Next(shuffled(w.f))); diff != "" {
				t.Fatalf("another order, another plan:\n%s", diff)
			}
			w.carryOut(p)
			if pick(t, "finish", true, false) {
				w.finish()
			}
		}
		w.calm()
	})
}

// calm lets everything come back, gives all nodes room, and asserts that plans come to an end.
func (w *world) calm() {
	w.f.RolledBack = false
	for i := range w.f.Nodes {
		n := &w.f.Nodes[i]
		n.Unseen, n.Draining, n.Data = 0, false, true
		n.Disk = &place.Disk{Size: 10000 * gib, Free: 9000 * gib}
	}
	for i := range w.f.Volumes {
		for j := range w.f.Volumes[i].Copies {
			w.f.Volumes[i].Copies[j].Unseen = 0
		}
	}
	w.finish()
	least := 0 // how many steps it takes at least: each thing that is missing or too much needs one
	for _, vol := range w.f.Volumes {
		extra := len(vol.Copies) - w.safe(&vol, place.Writer) - w.safe(&vol, place.Mirror) - w.safe(&vol, place.Vault)
		for kind, want := range map[place.Kind]int{place.Mirror: vol.Mirrors, place.Vault: vol.Vaults} {
			missing := want - w.safe(&vol, kind)
			least += max(missing, -missing)
		}
		least += extra // bad copies: dropped, or filled in place, which needs a step already counted
	}
	done := 0
	for range 1000 {
		p := place.Next(w.f)
		if len(p.Steps) == 0 {
			break
		}
		done += len(p.Steps)
		for _, s := range p.Steps {
			w.do(s)
		}
		w.finish()
	}
	if done > least {
		w.Fatalf("%d steps where %d do", done, least)
	}
	for _, vol := range w.f.Volumes {
		enoughNodes := len(w.f.Nodes) >= 1+vol.Mirrors+vol.Vaults
		if w.safe(&vol, place.Writer) == 0 || !enoughNodes {
			continue // nobody but its users can make that good
		}
		if w.safe(&vol, place.Mirror) != vol.Mirrors || w.safe(&vol, place.Vault) != vol.Vaults || len(vol.Copies) != 1+vol.Mirrors+vol.Vaults {
			w.Fatalf("in the end %s has %v, wanted %d mirrors, %d vaults", vol.ID, vol.Copies, vol.Mirrors, vol.Vaults)
		}
	}
}

// Choose returns the best of all nodes, as fractions have it.
func TestChooseIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.accident()
		vol := place.Volume{ID: "new", Bytes: 30 * gib, Mirrors: 1}
		if len(w.f.Nodes) > 0 && pick(t, "has a writer", true, false) {
			vol.Copies = []place.Copy{{Node: w.f.Nodes[0].Name, Kind: place.Writer, State: place.Made}}
		}
		got, shared, why := place.Choose(w.f, vol)
		type rank struct {
			shared bool
			fill   *big.Rat
		}
		ranks := make(map[string]rank)
		for _, n := range w.f.Nodes {
			if !n.Data || n.Draining || n.Unseen > 0 || n.Disk.Free < vol.Bytes*5/4 || len(vol.Copies) > 0 && vol.Copies[0].Node == n.Name {
				continue
			}
			r := rank{fill: big.NewRat(n.Disk.Size-n.Disk.Free+vol.Bytes, n.Disk.Size)}
			if len(vol.Copies) > 0 {
				other := w.f.Nodes[0]
				r.shared = n.Zone != "" && n.Zone == other.Zone && !other.Draining && other.Unseen < w.f.Rules.RepairAfter
			}
			ranks[n.Name] = r
		}
		if (why == place.NoTarget) != (len(ranks) == 0) || why == "" && ranks[got].fill == nil || why == "" && ranks[got].shared != shared {
			t.Fatalf("got %q, shared %v, %s of %v", got, shared, why, ranks)
		}
		near := big.NewRat(1, 1_000_000)
		for name, r := range ranks {
			best := ranks[got]
			if best.shared && !r.shared || best.shared == r.shared && best.fill.Cmp(new(big.Rat).Add(r.fill, near)) > 0 {
				t.Fatalf("got %s, and %s is better: %v", got, name, ranks)
			}
		}
	})
}

// Each move of a balance is carried out by Next without help and lowers what the fuller of both
// disks has. Moves come to an end, and some growth brings no new ones.
func TestBalance(t *testing.T) {
	total, moves, most := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for i := range 12 {
			w.addVolume(fmt.Sprintf("more%02d", i))
		}
		before := clone(w.f)
		list, held := place.Balance(w.f)
		again, _ := place.Balance(shuffled(w.f))
		if diff := cmp.Diff(list, again); diff != "" || held != "" && len(list) > 0 {
			t.Fatalf("held %q, another order, other moves:\n%s", held, diff)
		}
		alone := held == ""
		var done []place.Move
		for alone && len(list) > 0 {
			for _, m := range list {
				alone = alone && w.move(m)
				done = append(done, m)
			}
			list, _ = place.Balance(w.f) // what was moved may have made room for more
		}
		if alone {
			w.judgeBalance(before, done)
		}
		total, moves, most = total+1, moves+len(done), max(most, len(done))
	})
	t.Logf("%d balances, %d moves, at most %d", total, moves, most)
}

// move makes the copy and lets Next do the rest. It returns false if that found room for something
// else as well, which comes first then.
func (w *world) move(m place.Move) bool {
	fill := func(name string, more int64) *big.Rat {
		d := w.node(name).Disk
		return big.NewRat(d.Size-d.Free+more, d.Size)
	}
	if m.Why == place.Uneven && fill(m.To, m.Bytes).Cmp(fill(m.From, 0)) >= 0 {
		w.Fatalf("%v fills the target more than the source was", m)
	}
	zones := zonesOf(w.f, *w.volume(m.Volume))
	w.do(place.Step{Do: place.Make, Volume: m.Volume, Kind: m.Kind, Node: m.To, From: writerOf(w.volume(m.Volume)), Bytes: m.Bytes})
	w.finish()
	p := place.Next(w.f)
	want := place.Step{Do: place.Drop, Volume: m.Volume, Kind: m.Kind, Node: m.From, Why: place.Excess}
	if !slices.Contains(p.Steps, want) {
		w.Fatalf("after %v: got %v, want %v", m, p.Steps, want)
	}
	w.do(want)
	// Zones become more and the fills less, so there is an end.
	if after := zonesOf(w.f, *w.volume(m.Volume)); after < zones || m.Why == place.Apart && after == zones {
		w.Fatalf("%v leaves it in %d zones of %d", m, after, zones)
	}
	return len(place.Next(w.f).Steps) == 0
}

func writerOf(vol *place.Volume) string {
	return vol.Copies[slices.IndexFunc(vol.Copies, func(c place.Copy) bool { return c.Kind == place.Writer })].Node
}

func (w *world) judgeBalance(before place.Facts, done []place.Move) {
	fills := func() (fullest, emptiest float64) {
		emptiest = 1
		for _, n := range w.f.Nodes {
			if n.Data && !n.Draining && n.Unseen == 0 {
				fill := 1 - float64(n.Disk.Free)/float64(n.Disk.Size)
				fullest, emptiest = max(fullest, fill), min(emptiest, fill)
			}
		}
		return fullest, emptiest
	}
	fullest, emptiest := fills()
	for i := range w.f.Nodes {
		d := w.f.Nodes[i].Disk
		d.Free -= min(d.Free, int64(rapid.IntRange(0, 9).Draw(w.T, "growth"))*d.Size/100)
	}
	if more, _ := place.Balance(w.f); fullest-emptiest < 0.1 {
		for _, m := range more {
			if m.Why == place.Uneven {
				w.Fatalf("even after %v, and after some growth there is %v", done, m)
			}
		}
	}
	// No volume has more zones in common than before.
	for _, vol := range before.Volumes {
		if zonesOf(before, vol) > zonesOf(w.f, *w.volume(vol.ID)) {
			w.Fatalf("%s was in %d zones, and is in %d", vol.ID, zonesOf(before, vol), zonesOf(w.f, *w.volume(vol.ID)))
		}
	}
}

func zonesOf(f place.Facts, vol place.Volume) int {
	zones := make(map[string]bool)
	for _, c := range vol.Copies {
		n := f.Nodes[slices.IndexFunc(f.Nodes, func(n place.Node) bool { return n.Name == c.Node })]
		if n.Zone == "" {
			n.Zone = "of its own: " + n.Name
		}
		zones[n.Zone] = true
	}
	return len(zones)
}

// What Blast says is lost is what no node that lives has; Worst is the worst of all pairs.
func TestBlastIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.accident()
		lost := func(dead ...string) (bytes int64, volumes []string) {
			for _, vol := range w.f.Volumes {
				touched, lives := false, false
				for _, c := range vol.Copies {
					touched = touched || slices.Contains(dead, c.Node)
					lives = lives || w.vouched(c) && !slices.Contains(dead, c.Node)
				}
				if touched && !lives {
					bytes += vol.Bytes
					volumes = append(volumes, vol.ID)
				}
			}
			return bytes, volumes
		}
		worst, most := "", int64(0)
		for i, a := range w.f.Nodes {
			for _, b := range w.f.Nodes[i:] {
				bytes, volumes := lost(a.Name, b.Name)
				d := place.Blast(w.f, []string{b.Name, a.Name}, nil)
				said := make(map[string]bool)
				for _, l := range d.Losses {
					if l.Fate == place.Lost {
						said[l.Volume] = true
					}
				}
				if d.Bytes != bytes || !slices.Equal(slices.Sorted(maps.Keys(said)), volumes) {
					t.Fatalf("%s and %s: said %v, true %v", a.Name, b.Name, d.Losses, volumes)
				}
				// Worst counts what is whole now: what is lost already is no reason to name a node.
				if now := w.wholeBytes(volumes); now > most {
					most, worst = now, a.Name+" "+b.Name
				}
			}
		}
		got := place.Worst(w.f, 2)
		_, volumes := lost(append(slices.Clone(got), "none")...)
		if w.wholeBytes(volumes) != most {
			t.Fatalf("the worst are %s with %d, got %v with %d", worst, most, got, w.wholeBytes(volumes))
		}
	})
}

// wholeBytes adds up the volumes that have a whole copy.
func (w *world) wholeBytes(volumes []string) (bytes int64) {
	for _, id := range volumes {
		vol := w.volume(id)
		if slices.ContainsFunc(vol.Copies, w.vouched) {
			bytes += vol.Bytes
		}
	}
	return bytes
}

// A large cluster is planned for as well as a small one.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector")
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	f := place.Facts{Rules: place.DefaultRules()}
	for i := range 2_000 {
		f.Nodes = append(f.Nodes, place.Node{
			Name: fmt.Sprintf("n%05d", i), Zone: fmt.Sprintf("z%02d", i%40), Data: true, Disk: &place.Disk{Size: 4000 * gib, Free: 3000 * gib},
		})
	}
	for i := range 20_000 {
		a := random.IntN(2_000)
		b := (a + 1 + random.IntN(39)) % 2_000
		f.Volumes = append(f.Volumes, volume(fmt.Sprintf("v%06d", i), fmt.Sprintf("w:n%05d m:n%05d", a, b)))
	}
	f.Volumes[7_777].Bytes = 900 * gib
	if d := place.Blast(f, place.Worst(f, 2), nil); d.Bytes < 900*gib || d.Losses[0].Bytes != 900*gib {
		t.Errorf("the worst pair loses %d bytes", d.Bytes)
	}
	f.Nodes = f.Nodes[:1_999]
	if p := place.Next(f); p.Held != "" || len(p.Steps) == 0 || len(p.Steps) > f.Rules.PerRound {
		t.Errorf("%d steps, held %q", len(p.Steps), p.Held)
	}
}
