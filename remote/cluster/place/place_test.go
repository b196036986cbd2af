package place_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote/cluster/place"
)

const gib = 1 << 30

// nodes returns those of "n1/z1 n2/z1 n3", each with a disk of which a tenth is used.
func nodes(list string) []place.Node {
	var found []place.Node
	for _, word := range strings.Fields(list) {
		name, zone, _ := strings.Cut(word, "/")
		found = append(found, place.Node{Name: name, Zone: zone, Data: true, Disk: &place.Disk{Size: 1000 * gib, Free: 900 * gib}})
	}
	return found
}

// volume returns one of 10 GiB, with as many copies wanted as there are. Copies are as in
// "w:n1 m:n2 v:n3": a ~ behind it is one that is being filled, a ! one that is bad.
func volume(id, copies string) place.Volume {
	v := place.Volume{ID: id, Bytes: 10 * gib}
	for _, word := range strings.Fields(copies) {
		kind, node, _ := strings.Cut(word, ":")
		c := place.Copy{Node: strings.TrimRight(node, "~!"), State: place.Made}
		switch kind {
		case "w":
			c.Kind = place.Writer
		case "m":
			c.Kind = place.Mirror
			v.Mirrors++
		case "v":
			c.Kind = place.Vault
			v.Vaults++
		}
		if strings.HasSuffix(node, "~") {
			c.State = place.Making
		} else if strings.HasSuffix(node, "!") {
			c.State = place.Bad
		}
		v.Copies = append(v.Copies, c)
	}
	return v
}

// line is a plan in short words.
func line(p place.Plan) string {
	var words []string
	for _, s := range p.Steps {
		word := fmt.Sprintf("%s %s %s %s", s.Do, s.Volume, s.Kind, s.Node)
		if s.Do != place.Drop {
			word += " from " + s.From
		}
		if s.Shared {
			word += " shared"
		}
		words = append(words, word)
	}
	for _, b := range p.Blocked {
		words = append(words, strings.TrimRight(fmt.Sprintf("blocked %s %s %s", b.Volume, b.Kind, b.Node), " ")+": "+string(b.Why))
	}
	if p.Held != "" {
		words = append(words, "held: "+string(p.Held))
	}
	return strings.Join(words, "; ")
}

func node(f *place.Facts, name string) *place.Node {
	return &f.Nodes[slices.IndexFunc(f.Nodes, func(n place.Node) bool { return n.Name == name })]
}

func remove(f *place.Facts, name string) {
	f.Nodes = slices.DeleteFunc(f.Nodes, func(n place.Node) bool { return n.Name == name })
}

// What is done on bad days.
func TestNext(t *testing.T) {
	const three = "n1/a n2/b n3/c"
	for _, test := range []struct {
		what, nodes string
		volumes     []place.Volume
		change      func(*place.Facts)
		want        string
	}{
		{"all is well", three, []place.Volume{volume("x", "w:n1 m:n2")}, nil, ""},
		{"a reboot", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n2").Unseen = 9 * time.Minute }, ""},
		{"a death, one of three", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n2").Unseen = 10 * time.Minute }, "make x mirror n3 from n1"},
		{"a copy of which nobody knows anything", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { f.Volumes[0].Copies[1].Unseen = time.Hour }, "make x mirror n3 from n1"},
		{"a node was removed", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { remove(f, "n2") }, "make x mirror n3 from n1"},
		{"two of five are down", "n1 n2 n3 n4 n5", []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n2").Unseen, node(f, "n3").Unseen = time.Hour, time.Hour },
			"held: too many nodes are down to tell a loss from a network that is cut"},
		{"the register was restored", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { remove(f, "n2"); f.RolledBack = true },
			"held: the register may be older than what was acted upon"},
		{"the other zone is gone", "n1/a n2/a n3/b", []place.Volume{volume("x", "w:n1 m:n3")},
			func(f *place.Facts) { remove(f, "n3") }, "make x mirror n2 from n1 shared"},
		{"another zone is better than an emptier disk", "n1/a n2/a n3/b", []place.Volume{volume("x", "w:n1 m:n9")},
			func(f *place.Facts) { node(f, "n3").Disk.Free = 100 * gib }, "make x mirror n3 from n1"},
		{"no room", three, []place.Volume{volume("x", "w:n1 m:n9")},
			func(f *place.Facts) { node(f, "n2").Disk.Free, node(f, "n3").Disk.Free = 12*gib, 12*gib },
			"blocked x mirror: no other node is up, takes copies and has room"},
		{"a disk of which nobody knows how full it is", three, []place.Volume{volume("x", "w:n1 m:n9")},
			func(f *place.Facts) { node(f, "n2").Disk, node(f, "n3").Disk = nil, nil },
			"blocked x mirror: no other node is up, takes copies and has room"},
		{"a witness takes no copies", three, []place.Volume{volume("x", "w:n1 m:n9")},
			func(f *place.Facts) { node(f, "n2").Data = false }, "make x mirror n3 from n1"},
		{"an empty disk in place of the old one", three, []place.Volume{volume("x", "w:n1 m:n2!")}, nil, "make x mirror n2 from n1"},
		{"it is being filled", three, []place.Volume{volume("x", "w:n1 m:n2~")}, nil, ""},
		{"mirrors first, and first those of volumes with one copy", "n1 n2 n3 n4",
			[]place.Volume{volume("x", "w:n1 m:n2 m:n9 v:n8"), volume("y", "w:n1 m:n9")}, nil,
			"make y mirror n4 from n1; make x mirror n3 from n1; make x vault n4 from n1"},
		{"without mirrors: first what one machine alone has", "n1 n2 n3 n4",
			[]place.Volume{volume("x", "w:n1 v:n2 v:n9"), volume("y", "w:n1 v:n9")}, nil,
			"make y vault n4 from n1; make x vault n3 from n1"},
		{"the writer's machine is gone", three, []place.Volume{volume("x", "w:n9 m:n2 v:n3")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 2 }, "blocked x mirror: no whole copy is there to fill it from"},
		{"a vault from a vault, when nothing else is left", "n1 n2 n3", []place.Volume{volume("x", "w:n9 v:n2 v:n8")},
			nil, "make x vault n1 from n2"},
		{"it came back after it was replaced", "n1/a n2/b n3/a", []place.Volume{volume("x", "w:n1 m:n2 m:n3")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 1 }, "drop x mirror n3"},
		{"one too many, and one that nobody sees", "n1 n2 n3 n4 n5", []place.Volume{volume("x", "w:n1 m:n2 m:n3")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 1; node(f, "n3").Unseen = time.Hour }, ""},
		{"too many, but the writer is not seen", three, []place.Volume{volume("x", "w:n1 m:n2 m:n3")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 1; node(f, "n1").Unseen = time.Minute }, ""},
		{"draining: first another one", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n2").Draining = true }, "make x mirror n3 from n1"},
		{"draining: not before it is whole", three, []place.Volume{volume("x", "w:n1 m:n2 m:n3~")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 1; node(f, "n2").Draining = true }, ""},
		{"draining: then it goes", three, []place.Volume{volume("x", "w:n1 m:n2 m:n3")},
			func(f *place.Facts) { f.Volumes[0].Mirrors = 1; node(f, "n2").Draining = true }, "drop x mirror n2"},
		{"a writer that is mounted stays", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n1").Draining = true },
			"blocked x writer n1: the volume is written there: take it over on another node"},
		{"a writer that may go needs one more first", three, []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n1").Draining = true; f.Volumes[0].MayMove = true }, "make x mirror n3 from n1"},
		{"and is followed by a mirror", three, []place.Volume{volume("x", "w:n1 m:n2 m:n3")},
			func(f *place.Facts) {
				node(f, "n1").Draining = true
				f.Volumes[0].MayMove, f.Volumes[0].Mirrors = true, 1
			}, "hand over x writer n3 from n1"},
		{"two machines, one of which shall go", "n1 n2", []place.Volume{volume("x", "w:n1 m:n2")},
			func(f *place.Facts) { node(f, "n2").Draining = true },
			"blocked x mirror: no other node is up, takes copies and has room"},
	} {
		t.Run(test.what, func(t *testing.T) {
			f := place.Facts{Nodes: nodes(test.nodes), Volumes: test.volumes, Rules: place.DefaultRules()}
			if test.change != nil {
				test.change(&f)
			}
			if got := line(place.Next(f)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A plan has an end, and a node is not filled with more copies at once than it may be.
func TestBounds(t *testing.T) {
	f := place.Facts{Nodes: nodes("n1 n2 n3"), Rules: place.DefaultRules()}
	for i := range 40 {
		f.Volumes = append(f.Volumes, volume(fmt.Sprintf("x%02d", i), "w:n1 m:n9"))
	}
	if got := len(place.Next(f).Steps); got != 2*f.Rules.AtOnce {
		t.Errorf("%d steps, with %d to each of two nodes at once", got, f.Rules.AtOnce)
	}
	f.Rules.PerRound = 5
	if got := len(place.Next(f).Steps); got != 5 {
		t.Errorf("%d steps, 5 a round", got)
	}
}

func TestDrain(t *testing.T) {
	f := place.Facts{Nodes: nodes("n1/a n2/b n3/c"), Rules: place.DefaultRules()}
	f.Volumes = []place.Volume{volume("x", "w:n1 m:n2"), volume("y", "w:n2 m:n3"), volume("z", "w:n1 v:n3")}
	want := "make x mirror n3 from n1; drop x mirror n2; " +
		"blocked y writer n2: the volume is written there: take it over on another node"
	if got := line(place.Drain(f, "n2")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.Volumes[1].MayMove = true
	want = "make x mirror n3 from n1; make y mirror n1 from n2; drop x mirror n2; hand over y writer n3 from n2; drop y mirror n2"
	if got := line(place.Drain(f, "n2")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.RolledBack = true
	if got := line(place.Drain(f, "n2")); !strings.Contains(got, "held") || strings.Contains(got, "make") {
		t.Errorf("while the register may be old: %s", got)
	}
}

func TestMayLeave(t *testing.T) {
	for _, test := range []struct {
		what, copies string
		unseen       time.Duration // of n2
		want         string
	}{
		{"it has nothing", "w:n1 m:n3", 0, ""},
		{"a copy that is wanted", "w:n1 m:n2", 0, "blocked x mirror n2: fewer copies than wanted would be left"},
		{"it is dead, and another copy is there", "w:n1 m:n2", time.Hour, ""},
		{"it is dead, and may have the only copy", "w:n9 m:n2", time.Hour, "blocked x mirror n2: no other copy is known to be whole"},
		{"a bad copy", "w:n1 m:n2!", 0, ""},
		{"the writer", "w:n2 m:n1", 0, "blocked x writer n2: the volume is written there: take it over on another node"},
		{"the writer, which is dead", "w:n2 m:n1", time.Hour, ""},
		{"the last vault", "w:n9 v:n2", 0, "blocked x vault n2: no other copy is known to be whole"},
	} {
		f := place.Facts{Nodes: nodes("n1 n2 n3"), Volumes: []place.Volume{volume("x", test.copies)}, Rules: place.DefaultRules()}
		node(&f, "n2").Unseen = test.unseen
		if got := line(place.Plan{Blocked: place.MayLeave(f, "n2")}); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.what, got, test.want)
		}
	}
}

// TestBlastOfTheUnseen: a copy that nobody sees does not count, and is named.
func TestBlastOfTheUnseen(t *testing.T) {
	f := place.Facts{Nodes: nodes("n1 n2 n3 n4"), Rules: place.DefaultRules()}
	f.Volumes = []place.Volume{volume("x", "w:n1 v:n2 v:n3 v:n4")}
	f.Volumes[0].Copies[1].Unseen, f.Volumes[0].Copies[3].State = time.Second, place.Bad
	for _, unseen := range []time.Duration{time.Second, f.Rules.RepairAfter} {
		node(&f, "n3").Unseen = unseen
		want := []place.Loss{{Volume: "x", Fate: place.Lost, Bytes: 10 * gib, Unseen: []string{"n2", "n3"}}}
		if diff := cmp.Diff(want, place.Blast(f, []string{"n1"}, nil).Losses); diff != "" {
			t.Errorf("n3 unseen for %v: -want +got\n%s", unseen, diff)
		}
	}
}

func TestBlast(t *testing.T) {
	f := place.Facts{Nodes: nodes("n1/a n2/a n3/b n4/b"), Rules: place.DefaultRules()}
	f.Volumes = []place.Volume{
		volume("alone", "w:n1"), volume("mirrored", "w:n1 m:n2"), volume("vault", "w:n1 v:n3"), volume("all", "w:n2 m:n1 v:n4"),
	}
	f.Volumes[2].Copies[1].Age = 41 * time.Second
	f.Volumes[2].Snapshots = []place.Snapshot{
		{Name: "kept", Bytes: gib, Nodes: []string{"n1", "n3"}}, {Name: "new", Bytes: 2 * gib, Nodes: []string{"n1"}},
	}
	for _, test := range []struct {
		nodes, zones []string
		want         place.Damage
	}{
		{nodes: []string{"n1"}, want: place.Damage{
			Losses: []place.Loss{
				{Volume: "alone", Fate: place.Lost, Bytes: 10 * gib},
				{Volume: "vault", Fate: place.FromVault, Bytes: 2 * gib, Age: 41 * time.Second, Copies: 1, Snapshots: []string{"new"}},
				{Volume: "mirrored", Fate: place.TakenOver, Copies: 1},
				{Volume: "all", Fate: place.Bare, Copies: 2},
			},
			Bytes: 12 * gib, Repair: 20 * gib,
		}},
		{zones: []string{"a"}, want: place.Damage{
			Losses: []place.Loss{
				{Volume: "alone", Fate: place.Lost, Bytes: 10 * gib},
				{Volume: "mirrored", Fate: place.Lost, Bytes: 10 * gib},
				{Volume: "vault", Fate: place.FromVault, Bytes: 2 * gib, Age: 41 * time.Second, Copies: 1, Snapshots: []string{"new"}},
				{Volume: "all", Fate: place.FromVault, Copies: 1},
			},
			Bytes: 22 * gib,
			NoRoom: []place.Blocked{
				{Volume: "all", Kind: place.Mirror, Why: place.NoSource}, {Volume: "mirrored", Kind: place.Mirror, Why: place.NoSource},
			},
		}},
		{nodes: []string{"n3"}, zones: []string{""}, want: place.Damage{
			Losses: []place.Loss{{Volume: "vault", Fate: place.Bare, Copies: 1}},
			Repair: 10 * gib,
		}},
		{nodes: []string{"n7"}, want: place.Damage{NoNodes: []string{"n7"}}},
	} {
		if diff := cmp.Diff(test.want, place.Blast(f, test.nodes, test.zones)); diff != "" {
			t.Errorf("%v and zones %v: -want +got\n%s", test.nodes, test.zones, diff)
		}
	}
}
