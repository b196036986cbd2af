package sim

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

var (
	long  = flag.Bool("long", false, "explore further, for minutes")
	most  = flag.Int("most", 2_000_000, "states that a long exploration sees at most")
	walks = flag.Int("walks", 300, "random walks")
	first = flag.Uint64("seed", 1, "of the first random walk")
)

// A scene is bounds, and what must have been seen within them: else they show nothing.
type scene struct {
	name   string
	bounds Bounds
	shows  []string
}

var scenes = []scene{
	{"a takeover", Bounds{Nodes: 2, Writes: 2, Epochs: 2}, []string{"acked in a later epoch", "zombie", "joined"}},
	{"kills", Bounds{Nodes: 2, Writes: 2, Epochs: 3, Kills: 1}, []string{"epoch 3", "acked in a later epoch", "left behind", "joined", "zombie", "seeded"}},
	{"power cuts", Bounds{Nodes: 2, Writes: 2, Epochs: 2, Powers: 1}, []string{"acked in a later epoch", "seeded"}},
	{"a disk is lost", Bounds{Nodes: 2, Writes: 2, Epochs: 2, Wipes: 1}, []string{"other incarnation", "acked in a later epoch"}},
	{"an older disk", Bounds{Nodes: 2, Writes: 2, Epochs: 2, Older: 1}, []string{"acked in a later epoch", "owed"}},
	{"an older disk of three", Bounds{Nodes: 3, Writes: 1, Epochs: 1, Older: 1, Apart: 1}, []string{"acked", "owed"}},
	{"an older disk after a takeover", Bounds{Nodes: 2, Writes: 1, Epochs: 3, Older: 1}, []string{"epoch 3", "owed"}},
	{"an older register", Bounds{Nodes: 2, Writes: 1, Epochs: 4, Restores: 1, Swaps: 4}, []string{"confirmed", "acked in a later epoch"}},
	{"vows", Bounds{Nodes: 2, Epochs: 2, Ticks: 3}, []string{"serves under a vow", "epoch 2", "zombie"}},
	{"vows and kills", Bounds{Nodes: 2, Epochs: 2, Ticks: 2, Kills: 1}, []string{"serves under a vow", "epoch 2"}},
	{"objects", Bounds{Nodes: 2, Writes: 2, Epochs: 2, Objects: true}, []string{"removed", "zombie"}},
	{"three nodes", Bounds{Nodes: 3, Writes: 1, Epochs: 2}, []string{"acked in a later epoch", "joined", "left behind"}},
	{"two of three", Bounds{Nodes: 3, Writes: 1, Epochs: 2, Apart: 1}, []string{"acked in a later epoch", "joined", "seeded"}},
}

// longScenes take minutes.
var longScenes = []scene{
	{"kills", Bounds{Nodes: 2, Writes: 3, Epochs: 4, Kills: 2}, []string{"epoch 3"}},
	{"power cuts and a lost disk", Bounds{Nodes: 2, Writes: 2, Epochs: 3, Powers: 1, Wipes: 1}, []string{"other incarnation"}},
	{"an older disk and a kill", Bounds{Nodes: 2, Writes: 2, Epochs: 3, Older: 1, Kills: 1}, []string{"owed"}},
	{"an older register", Bounds{Nodes: 2, Writes: 2, Epochs: 4, Restores: 1, Swaps: 4}, []string{"confirmed"}},
	{"vows", Bounds{Nodes: 2, Writes: 1, Epochs: 2, Ticks: 4, Kills: 1}, []string{"serves under a vow"}},
	{"objects and a kill", Bounds{Nodes: 2, Writes: 3, Epochs: 3, Kills: 1, Objects: true}, []string{"removed"}},
	{"three nodes", Bounds{Nodes: 3, Writes: 2, Epochs: 3, Kills: 1}, []string{"epoch 3"}},
	{"three nodes and a lost disk", Bounds{Nodes: 3, Writes: 2, Epochs: 2, Wipes: 1, Apart: 1}, []string{"other incarnation"}},
}

func sceneNamed(name string) Bounds {
	all := slices.Concat(scenes, longScenes)
	return all[slices.IndexFunc(all, func(s scene) bool { return s.name == name })].bounds
}

// The rules as they are break no promise, whatever happens within the bounds.
func TestProduct(t *testing.T) {
	list, limit := scenes, 1_000_000
	if *long {
		list, limit = slices.Concat(scenes, longScenes), *most
	}
	for _, sc := range list {
		t.Run(sc.name, func(t *testing.T) {
			from := time.Now()
			r := Explore(sc.bounds, Product(), limit)
			t.Logf("%+v: %d states, complete: %v, %.1f s", sc.bounds, r.States, r.Complete, time.Since(from).Seconds())
			if r.Broken != "" || !r.Complete && !*long {
				t.Fatal(r)
			}
			for _, what := range sc.shows {
				if r.Seen[what] == 0 {
					t.Errorf("no state shows %q", what)
				}
			}
		})
	}
}

// A mutation takes one rule away. In its scene, a promise must break.
type mutation struct {
	name, scene string
	change      func(*Rules)
}

var mutations = []mutation{
	{"R1: frames of any epoch are taken", "a takeover", func(r *Rules) {
		r.Keep = true
		r.Take = func(c mirror.Copy, frame mirror.Epoch, before, commit mirror.Position) mirror.Verdict {
			c.Promised = frame
			return c.Take(frame, before, commit)
		}
	}},
	{"R1: commits are taken though others are missing before them", "kills", func(r *Rules) {
		r.Take = func(c mirror.Copy, frame mirror.Epoch, before, commit mirror.Position) mirror.Verdict {
			if v := c.Take(frame, before, commit); v != mirror.Gap {
				return v
			}
			return mirror.Add
		}
	}},
	{"R1: a late seed is taken again", "kills", func(r *Rules) {
		r.TakeSeed = func(c mirror.Copy, frame mirror.Epoch, _ mirror.Log) mirror.Verdict {
			if frame != c.Promised {
				return mirror.Refuse
			}
			return mirror.Add
		}
	}},
	{"R2: commits are sent before they are durable", "power cuts", func(r *Rules) { r.SendEarly = true }},
	{"R3: the register names a copy before it is counted", "kills", func(r *Rules) {
		r.Count = func(w mirror.Writer, _ mirror.Member) (mirror.Writer, bool) { return w, false }
		r.Join = func(w mirror.Writer, m mirror.Member) (mirror.Record, bool) {
			if p, ok := w.Find(m); !ok || !p.Greeted || p.Answered < max(w.Acked, w.Floor) {
				return w.Record, false
			}
			counted := w
			counted.Peers = slices.Clone(w.Peers)
			for i := range counted.Peers {
				counted.Peers[i].Counted = true
			}
			return counted.Join(m)
		}
	}},
	{"R3: a copy joins before it has what was acknowledged", "kills", func(r *Rules) {
		r.Count = func(w mirror.Writer, m mirror.Member) (mirror.Writer, bool) {
			early := w
			early.Acked, early.Floor = 0, 0
			next, ok := early.Count(m)
			next.Acked, next.Floor = w.Acked, w.Floor
			return next, ok
		}
	}},
	{"R3: a copy joins before it has what an earlier writer acknowledged", "two of three", func(r *Rules) {
		r.Count = func(w mirror.Writer, m mirror.Member) (mirror.Writer, bool) {
			early := w
			early.Floor = 0
			next, ok := early.Count(m)
			next.Floor = w.Floor
			return next, ok
		}
	}},
	{"R3: the writer stops counting a copy that the register names", "kills", func(r *Rules) { r.LeaveAlone = true }},
	{"R3: the writer stops counting a copy that it does not know to be named", "kills", func(r *Rules) { r.LeaveUnnamed = true }},
	{"R4: any copy may become the writer", "kills", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, v mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			rec.InSync = []mirror.Member{c.Self}
			return mirror.Promote(c, rec, v, now)
		}
	}},
	{"R4: any incarnation may become the writer", "a disk is lost", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, v mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			rec.InSync = slices.Clone(rec.InSync)
			for i := range rec.InSync {
				if rec.InSync[i].Node == c.Self.Node {
					rec.InSync[i] = c.Self
				}
			}
			return mirror.Promote(c, rec, v, now)
		}
	}},
	{"R4: who takes over takes out all others at once, and dies", "a disk is lost", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, v mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			c, rec, why := mirror.Promote(c, rec, v, now)
			if why == "" {
				rec.InSync = []mirror.Member{c.Self}
			}
			return c, rec, why
		}
	}},
	{"R4: the register is changed without comparing", "kills", func(r *Rules) { r.SwapAnyway = true }},
	{"R4: a writer whose disk is older takes out the copy that has more", "an older disk", func(r *Rules) {
		r.Welcome = func(w mirror.Writer, m mirror.Member, session uint64, log mirror.Log) (mirror.Writer, mirror.Greeting) {
			next, what := w.Welcome(m, session, log)
			if what == mirror.GiveWay {
				next.Fenced, what = false, mirror.Expel
			}
			return next, what
		}
	}},
	{"R4: a writer goes on from a disk that is older than it took over with", "an older disk after a takeover", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, v mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			rec.Base = mirror.Position{}
			return mirror.Promote(c, rec, v, now)
		}
	}},
	{"R4: a writer begins on a disk that is older than what it promised with", "an older disk and a kill", func(r *Rules) {
		r.Begin = func(c mirror.Copy, rec mirror.Record) (mirror.Writer, bool) {
			base := rec.Base
			rec.Base = mirror.Position{}
			w, ok := mirror.Begin(c, rec)
			w.Record.Base = base
			return w, ok
		}
	}},
	{"R3: a copy that has less than it answered for counts as before until it leaves", "an older disk of three", func(r *Rules) {
		r.Welcome = func(w mirror.Writer, m mirror.Member, session uint64, log mirror.Log) (mirror.Writer, mirror.Greeting) {
			old, _ := w.Find(m)
			next, what := w.Welcome(m, session, log)
			if what == mirror.Expel {
				for i := range next.Peers {
					if next.Peers[i].Member == m {
						next.Peers[i].Answered = old.Answered
					}
				}
			}
			return next, what
		}
	}},
	{"R4: answers from before a disk went back are counted", "an older disk", func(r *Rules) {
		r.Answered = func(w mirror.Writer, m mirror.Member, _ uint64, e mirror.Epoch, p mirror.Position) mirror.Writer {
			peer, _ := w.Find(m)
			return w.Answered(m, peer.Session, e, p)
		}
	}},
	{"R5: a copy becomes the writer in spite of its vow", "vows", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, _ mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			return mirror.Promote(c, rec, mirror.Vow{}, now)
		}
	}},
	{"R5: the writer serves without vows", "vows", func(r *Rules) {
		r.MayServe = func(w mirror.Writer, _ time.Duration) bool { return !w.Fenced }
	}},
	{"R5: the writer serves as long as the vow lasts", "vows", func(r *Rules) {
		r.Keep = true
		r.MayServe = func(w mirror.Writer, now time.Duration) bool { return w.MayServe(now - (mirror.Grant - mirror.Serve)) }
	}},
	{"R5: a vow counts from when it arrives", "vows", func(r *Rules) { r.Keep, r.GrantLate = true, true }},
	{"R5: a copy that starts does not wait", "vows and kills", func(r *Rules) {
		r.Begun = func(time.Duration) mirror.Vow { return mirror.Vow{} }
	}},
	{"R4: a copy promises its own epoch only when it writes", "vows", func(r *Rules) { r.PromiseLate = true }},
	{"R6: what is useless is removed before others know", "objects", func(r *Rules) {
		r.MayDestroy = func(w mirror.Writer, commit mirror.Index) bool { return commit <= w.Log.Last }
	}},
	{"R7: names do not carry the epoch", "objects", func(r *Rules) { r.SegmentBase = func(mirror.Epoch) uint64 { return 0 } }},
	{"R8: an older register is believed", "an older register", func(r *Rules) {
		r.Promote = func(c mirror.Copy, rec mirror.Record, v mirror.Vow, now time.Duration) (mirror.Copy, mirror.Record, mirror.Reason) {
			c.Seen = rec.Stamp
			return mirror.Promote(c, rec, v, now)
		}
	}},
	{"R8: a writer begins by an older register", "an older register", func(r *Rules) {
		r.Begin = func(c mirror.Copy, rec mirror.Record) (mirror.Writer, bool) {
			c.Seen = rec.Stamp
			return mirror.Begin(c, rec)
		}
	}},
	{"R8: the newest log is not the one with all that was acknowledged", "an older register", func(r *Rules) { r.AckOlder = true }},
	{"fdatasync: a copy answers for what it has not synced", "power cuts", func(r *Rules) { r.AnswerEarly = true }},
	{"I1: a copy writes the record before the segments are durable", "power cuts", func(r *Rules) { r.RecordsFirst = true }},
}

func TestMutations(t *testing.T) {
	for _, mu := range mutations {
		t.Run(mu.name, func(t *testing.T) {
			rules := Product()
			mu.change(&rules)
			r := Explore(sceneNamed(mu.scene), rules, 2_000_000)
			if r.Broken == "" {
				t.Fatalf("not found in %q: %v", mu.scene, r)
			}
			t.Log(r)
		})
	}
}

// Beyond the bounds of what can be explored, random ways find nothing either.
func TestWalks(t *testing.T) {
	count := *walks
	if *long {
		count *= 100
	}
	bounds := []Bounds{
		{Nodes: 3, Writes: 6, Epochs: 9, Kills: 3, Powers: 2, Wipes: 1},
		{Nodes: 3, Writes: 6, Epochs: 9, Kills: 2, Older: 1, Apart: 1},
		{Nodes: 3, Writes: 4, Epochs: 9, Kills: 2, Restores: 2},
		{Nodes: 3, Writes: 2, Epochs: 6, Kills: 2, Ticks: 12},
		{Nodes: 2, Writes: 6, Epochs: 9, Kills: 3, Objects: true},
	}
	steps := 0
	for i := range count {
		b, at := bounds[i%len(bounds)], *first+uint64(i)
		r := Walk(b, Product(), at, 250)
		steps += r.States
		if r.Broken != "" {
			t.Fatalf("seed %d, %+v: %v", at, b, r)
		}
	}
	t.Logf("%d walks from seed %d, %d events", count, *first, steps)
}

// What is not survived, so that nobody believes it is: a register that somebody put back without
// telling anybody.
func TestNotSurvived(t *testing.T) {
	r := Explore(Bounds{Nodes: 2, Writes: 1, Epochs: 3, Restores: 1, Swaps: 3, Silent: true}, Product(), 1_000_000)
	if r.Broken == "" {
		t.Fatal("it is survived: say so in docs/adr/0010-mirrors.md")
	}
	t.Log(fmt.Sprint(r))
}
