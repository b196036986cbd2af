package mirror_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// logOf has one commit of each epoch given.
func logOf(epochs ...mirror.Epoch) (l mirror.Log) {
	for _, e := range epochs {
		l = l.Append(e)
	}
	return l
}

func member(node string) mirror.Member { return mirror.Member{Node: node, Incarnation: 1} }

// A log answers as a list of epochs does, and what is appended to one is not seen in another that
// begins alike.
func TestLog(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		var plain []mirror.Epoch
		var l mirror.Log
		for range random.IntN(12) {
			e := mirror.Epoch(1)
			if len(plain) > 0 {
				e = plain[len(plain)-1]
			}
			e += mirror.Epoch(random.IntN(3) / 2)
			plain, l = append(plain, e), l.Append(e)
		}
		cut := random.IntN(len(plain) + 2)
		short := l.Cut(mirror.Index(cut))
		_ = short.Append(99)
		plainShort := plain[:min(cut, len(plain))]
		for i := range len(plain) + 2 {
			at := func(plain []mirror.Epoch) mirror.Position {
				if i == 0 || i > len(plain) {
					return mirror.Position{}
				}
				return mirror.Position{Epoch: plain[i-1], Index: mirror.Index(i)}
			}
			index := mirror.Index(i)
			if l.At(index) != at(plain) || short.At(index) != at(plainShort) {
				t.Fatalf("%v, cut at %d: commit %d is %v and %v", plain, cut, i, l.At(index), short.At(index))
			}
			if p := (mirror.Position{Epoch: 1, Index: index}); i > 0 && l.Holds(p) != (at(plain) == p) {
				t.Fatalf("%v: holds %v: %v", plain, p, l.Holds(p))
			}
		}
		if l.End() != l.At(l.Last) || !l.Holds(mirror.Position{}) {
			t.Fatalf("%v: ends at %v", plain, l.End())
		}
	}
}

func TestTake(t *testing.T) {
	c := mirror.Copy{Promised: 3, Log: logOf(1, 1, 3)}
	at := func(e mirror.Epoch, i mirror.Index) mirror.Position { return mirror.Position{Epoch: e, Index: i} }
	for _, test := range []struct {
		what           string
		frame          mirror.Epoch
		before, commit mirror.Position
		want           mirror.Verdict
	}{
		{"the next one", 3, at(3, 3), at(3, 4), mirror.Add},
		{"one that is there", 3, at(1, 1), at(1, 2), mirror.Again},
		{"of an older writer", 2, at(3, 3), at(3, 4), mirror.Refuse},
		{"of a writer that was never promised anything", 4, at(3, 3), at(4, 4), mirror.Refuse},
		{"one is missing", 3, at(3, 4), at(3, 5), mirror.Gap},
		{"behind another commit of that number", 3, at(2, 3), at(3, 4), mirror.Gap},
		{"another commit of a number that is there", 3, at(1, 2), at(2, 3), mirror.Gap},
	} {
		if got := c.Take(test.frame, test.before, test.commit); got != test.want {
			t.Errorf("%s: %v, want %v", test.what, got, test.want)
		}
	}
	for _, test := range []struct {
		what  string
		frame mirror.Epoch
		log   mirror.Log
		want  mirror.Verdict
	}{
		{"a longer one", 3, logOf(1, 1, 3, 3), mirror.Add},
		{"one that differs", 3, logOf(1, 2), mirror.Add},
		{"the same", 3, logOf(1, 1, 3), mirror.Again},
		{"a late one", 3, logOf(1, 1), mirror.Again},
		{"of an older writer", 2, logOf(1, 2), mirror.Refuse},
	} {
		if got := c.TakeSeed(test.frame, test.log); got != test.want {
			t.Errorf("seed: %s: %v, want %v", test.what, got, test.want)
		}
	}
	// What an older writer made and this one does not have has to go.
	c.Promised = 4
	if got := c.TakeSeed(4, logOf(1, 1)); got != mirror.Add {
		t.Errorf("seed of a writer that has less: %v", got)
	}
}

func TestPromise(t *testing.T) {
	c := mirror.Copy{Promised: 3}
	for epoch, want := range map[mirror.Epoch]bool{2: false, 3: true, 4: true} {
		if next, ok := c.Promise(epoch); ok != want || next.Promised != max(3, epoch) {
			t.Errorf("epoch %d: %v, promised %d", epoch, ok, next.Promised)
		}
	}
}

func TestPromote(t *testing.T) {
	seen := mirror.Stamp{Generation: 7, Revision: 20}
	record := mirror.Record{
		Stamp: seen, Epoch: 3, Writer: "a", Since: 2, Base: mirror.Position{Epoch: 1, Index: 2},
		InSync: []mirror.Member{member("a"), member("b")},
	}
	for _, test := range []struct {
		what   string
		self   mirror.Member
		seen   mirror.Stamp
		now    time.Duration
		reason mirror.Reason
		since  mirror.Epoch
	}{
		{"a member", member("b"), seen, 10 * time.Second, "", 5},
		{"the writer again, at once", member("a"), seen, 0, "", 2},
		{"a member that has vowed", member("b"), seen, 9 * time.Second, mirror.Vowed, 0},
		{"one that was left behind", member("c"), seen, time.Minute, mirror.NotInSync, 0},
		{"a new disk", mirror.Member{Node: "b", Incarnation: 2}, seen, time.Minute, mirror.NotInSync, 0},
		{"it has seen more", member("b"), mirror.Stamp{Generation: 7, Revision: 21}, time.Minute, mirror.RolledBack, 0},
		{"it has seen less", member("b"), mirror.Stamp{Generation: 7, Revision: 19}, time.Minute, "", 5},
		{"another generation", member("b"), mirror.Stamp{Generation: 6, Revision: 20}, time.Minute, mirror.RolledBack, 0},
	} {
		c := mirror.Copy{Self: test.self, Promised: 4, Log: logOf(1, 1, 2), Seen: test.seen}
		next, swap, why := mirror.Promote(c, record, mirror.Begun(0), test.now)
		if why != test.reason {
			t.Errorf("%s: %q, want %q", test.what, why, test.reason)
		}
		if why != "" {
			if diff := cmp.Diff(c, next); diff != "" {
				t.Errorf("%s: the copy has changed:\n%s", test.what, diff)
			}
			continue
		}
		want := mirror.Record{Stamp: seen, Epoch: 5, Writer: test.self.Node, Since: test.since, Base: c.Log.End(), InSync: record.InSync}
		if diff := cmp.Diff(want, swap); diff != "" || next.Promised != 5 || next.Seen != seen {
			t.Errorf("%s: promised %d, seen %v, -want +got\n%s", test.what, next.Promised, next.Seen, diff)
		}
		if _, ok := mirror.Begin(next, record); ok {
			t.Errorf("%s: it begins though the swap was not done", test.what)
		}
		if w, ok := mirror.Begin(next, swap); !ok || len(w.Peers) != 1 || !w.Peers[0].Counted {
			t.Errorf("%s: it does not begin, or counts %v", test.what, w.Peers)
		}
		if again, ok := next.Promise(6); !ok {
			t.Errorf("%s: no newer epoch is promised", test.what)
		} else if _, ok := mirror.Begin(again, swap); ok {
			t.Errorf("%s: it begins though it has promised a newer epoch", test.what)
		}
	}
}

// A node does not write again on a disk that is older than what it once went on from.
func TestOlderDisk(t *testing.T) {
	record := mirror.Record{Epoch: 3, Writer: "a", Since: 2, Base: mirror.Position{Epoch: 1, Index: 2}, InSync: []mirror.Member{member("a"), member("b")}}
	for node, want := range map[string]mirror.Reason{"a": mirror.OlderDisk, "b": ""} {
		if _, _, why := mirror.Promote(mirror.Copy{Self: member(node), Log: logOf(1)}, record, mirror.Vow{}, 0); why != want {
			t.Errorf("%s: %q, want %q", node, why, want)
		}
	}
}

// newWriter is a in epoch 2 with three commits, of which the last is its own. b is in sync, c is
// not.
func newWriter(t *testing.T) mirror.Writer {
	t.Helper()
	record := mirror.Record{Stamp: mirror.Stamp{Generation: 1, Revision: 5}, Epoch: 2, Writer: "a", Since: 2, InSync: []mirror.Member{member("a"), member("b")}}
	c := mirror.Copy{Self: member("a"), Promised: 2, Log: logOf(1, 1), Seen: record.Stamp}
	w, ok := mirror.Begin(c, record)
	if !ok {
		t.Fatal("it does not begin")
	}
	return w.Appended(c.Log.Append(2))
}

// after is the record as the register has it once the swap was done.
func after(r mirror.Record) mirror.Record {
	r.Stamp.Revision++
	return r
}

func TestAcknowledge(t *testing.T) {
	w := newWriter(t)
	b := member("b")
	w, what := w.Welcome(b, 1, logOf(1, 1))
	if what != mirror.CatchUp || w.Acked != 0 {
		t.Fatalf("the greeting says %v; acknowledged up to %d before any commit of this epoch is with both", what, w.Acked)
	}
	last := mirror.Position{Epoch: 2, Index: 3}
	for _, bad := range []mirror.Writer{
		w.Answered(b, 1, 1, last), w.Answered(b, 0, 2, last), w.Answered(member("c"), 1, 2, last),
		w.Answered(b, 1, 2, mirror.Position{Epoch: 1, Index: 3}),
	} {
		if bad.Acked != 0 {
			t.Errorf("acknowledged up to %d by an answer of another epoch, session, member or commit", bad.Acked)
		}
	}
	if w = w.Answered(b, 1, 2, last); w.Acked != 3 || !w.MayDestroy(3) || w.MayDestroy(4) {
		t.Errorf("acknowledged up to %d", w.Acked)
	}
	if fenced := w.Fence().Appended(w.Log.Append(2)).Answered(b, 1, 2, mirror.Position{Epoch: 2, Index: 4}); fenced.Acked != 3 || fenced.MayDestroy(3) {
		t.Errorf("fenced, and acknowledged up to %d", fenced.Acked)
	}
}

func TestLeave(t *testing.T) {
	w := newWriter(t)
	b := member("b")
	swap, ok := w.Leave(b)
	if !ok || swap.Names(b) || !swap.Names(w.Self) || w.Acked != 0 {
		t.Fatalf("swaps in %v, acknowledged up to %d", swap, w.Acked)
	}
	if w = w.Learn(swap); w.Acked != 0 {
		t.Error("the same revision teaches something")
	}
	if w = w.Learn(after(swap)); w.Acked != 3 {
		t.Errorf("alone, and acknowledged up to %d of 3", w.Acked)
	}
	if _, ok := w.Leave(b); ok {
		t.Error("it leaves twice")
	}
}

func TestJoin(t *testing.T) {
	w := newWriter(t)
	c := member("c")
	if _, ok := w.Count(c); ok {
		t.Error("an unknown copy is counted")
	}
	w, _ = w.Welcome(c, 1, logOf(1))
	if _, ok := w.Count(c); ok {
		t.Error("a copy is counted that lacks what an earlier writer may have acknowledged")
	}
	w = w.Answered(c, 1, 2, mirror.Position{Epoch: 1, Index: 2})
	if _, ok := w.Join(c); ok {
		t.Error("it joins before it is counted")
	}
	w, ok := w.Count(c)
	swap, joins := w.Join(c)
	if !ok || !joins || !slices.Equal(swap.InSync, []mirror.Member{member("a"), member("b"), c}) {
		t.Fatalf("counted %v, joins %v with %v", ok, joins, swap)
	}
	// Its answer may have been lost: it is counted until a newer record does not name it.
	lost := w.Learn(w.Record)
	if p, _ := lost.Find(c); !p.Counted {
		t.Error("it is not counted any more, and the register may name it")
	}
	leave, ok := w.Leave(c)
	if w = w.Learn(after(leave)); !ok || w.Record.Names(c) {
		t.Errorf("it does not leave: %v", w.Record)
	}
	if p, _ := w.Find(c); p.Counted {
		t.Error("it is counted though it cannot be named any more")
	}
	if other := after(after(leave)); !w.Learn(mirror.Record{Stamp: other.Stamp, Epoch: 3, Writer: "b"}).Fenced {
		t.Error("another one writes, and it is not fenced")
	}
	restored := after(after(leave))
	restored.Stamp.Generation++
	if diff := cmp.Diff(w, w.Learn(restored)); diff != "" {
		t.Errorf("a restored register teaches something:\n%s", diff)
	}
}

func TestWelcome(t *testing.T) {
	for _, test := range []struct {
		what   string
		member mirror.Member
		log    mirror.Log
		want   mirror.Greeting
		fenced bool
	}{
		{"in sync, with a prefix", member("b"), logOf(1), mirror.CatchUp, false},
		{"another one, with a prefix", member("c"), logOf(1), mirror.CatchUp, false},
		{"another one, with nothing", member("c"), mirror.Log{}, mirror.CatchUp, false},
		{"the writer before, with more", member("c"), logOf(1, 1, 1), mirror.Seed, false},
		{"in sync, with what an earlier writer made", member("b"), logOf(1, 1, 1), mirror.Expel, false},
		{"in sync, with what this node made and has no more", member("b"), logOf(1, 1, 2, 2), mirror.GiveWay, true},
	} {
		w, got := newWriter(t).Welcome(test.member, 1, test.log)
		if got != test.want || w.Fenced != test.fenced {
			t.Errorf("%s: %v, fenced %v", test.what, got, w.Fenced)
		}
	}
	w, _ := newWriter(t).Welcome(member("b"), 1, logOf(1))
	w = w.Answered(member("b"), 1, 2, mirror.Position{Epoch: 2, Index: 3})
	w, got := w.Welcome(member("b"), 2, logOf(1, 1))
	if p, _ := w.Find(member("b")); got != mirror.Expel || p.Answered != 0 || !p.Counted {
		t.Errorf("in sync, with less than it answered for: %v, %v", got, p)
	}
}

func TestVows(t *testing.T) {
	w, b := newWriter(t), member("b")
	if w.MayServe(time.Second) {
		t.Error("it serves before anybody has vowed")
	}
	w = w.Granted(b, 2, 10*time.Second).Granted(b, 2, 5*time.Second).Granted(b, 1, 50*time.Second)
	vow := mirror.Begun(0).Renewed(10 * time.Second).Renewed(3 * time.Second)
	for now, serves := range map[time.Duration]bool{10 * time.Second: true, 18*time.Second - 1: true, 18 * time.Second: false} {
		if w.MayServe(now) != serves || w.Fence().MayServe(now) {
			t.Errorf("at %v: serves %v", now, w.MayServe(now))
		}
	}
	if vow.Over(20*time.Second-1) || !vow.Over(20*time.Second) {
		t.Errorf("the vow ends at %v", vow.Until)
	}
	leave, _ := w.Leave(b)
	if !w.Learn(after(leave)).MayServe(time.Hour) {
		t.Error("alone, it needs no vows")
	}
}

func TestConfirm(t *testing.T) {
	stamp := mirror.Stamp{Generation: 2, Revision: 3}
	copies := []mirror.Copy{
		{Self: member("a"), Promised: 2, Log: logOf(1, 1, 1, 1)},
		{Self: member("b"), Promised: 3, Log: logOf(1, 2)},
		{Self: member("c"), Promised: 5, Log: logOf(1)},
	}
	after, r := mirror.Confirm(copies, mirror.Record{Stamp: stamp, Epoch: 1, Writer: "a", InSync: []mirror.Member{member("a"), member("c")}})
	want := mirror.Record{Stamp: stamp, Epoch: 6, Since: 6, Base: mirror.Position{Epoch: 2, Index: 2}, InSync: []mirror.Member{member("b")}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for i, c := range after {
		if c.Promised != 6 || c.Seen != stamp || copies[i].Promised == 6 {
			t.Errorf("%v, before %v", c, copies[i])
		}
		if _, _, why := mirror.Promote(c, r, mirror.Vow{}, 0); (why == "") != (c.Self == member("b")) {
			t.Errorf("%s may become the writer: %q", c.Self.Node, why)
		}
	}
	if mirror.SegmentBase(6) <= mirror.SegmentBase(5)+1<<20-1 {
		t.Error("two epochs share segment numbers")
	}
}
