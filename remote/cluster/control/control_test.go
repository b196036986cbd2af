package control_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const gib = 1 << 30

// five is a cluster of five nodes with 100 GiB each, in which n1 writes home, of 10 GiB, and n2 has
// its snapshots.
func five() health.Facts {
	f := health.Facts{AsOf: noon}
	for i := range 5 {
		name := fmt.Sprint("n", i+1)
		f.Nodes = append(f.Nodes, health.NodeFacts{
			Node: cluster.Node{Name: name, Zone: name, Roles: []cluster.Role{cluster.RoleData}, State: cluster.StateIn}, Up: true, Votes: i < 3,
			Said: &health.Answer{Time: noon, Used: 20 * gib, Free: 80 * gib},
		})
	}
	f.Volumes = []cluster.Volume{{Name: "home", ID: "v", Home: "n1", Epoch: 2, Vaults: []string{"n2"}, Copies: 2, RPO: 60}}
	f.Nodes[0].Said.Homes = []health.Home{{Volume: "home", ID: "v", Epoch: 2, Online: true, Bytes: 10 * gib}}
	has(&f, 1, "cluster-2-9", 10*time.Second)
	return f
}

// has has a vault say that it has a snapshot.
func has(f *health.Facts, node int, name string, age time.Duration) *health.Copy {
	f.Nodes[node].Said.Copies = []health.Copy{{
		Volume: "home", ID: "v", Epoch: 2, Snapshots: 1, Newest: &health.Snapshot{Name: name, Created: noon.Add(-age)},
	}}
	return &f.Nodes[node].Said.Copies[0]
}

func down(f *health.Facts, node int, ago time.Duration) {
	since := noon.Add(-ago)
	f.Nodes[node].Up, f.Nodes[node].Said, f.Nodes[node].DownSince = false, nil, &since
}

// line is a plan in words.
func line(p place.Plan) string {
	if p.Held != "" {
		return "held"
	}
	var words []string
	for _, s := range p.Steps {
		words = append(words, fmt.Sprintf("%s %s", s.Do, s.Node))
	}
	for _, b := range p.Blocked {
		words = append(words, strings.TrimSpace(fmt.Sprintf("blocked %s %s", b.Kind, b.Node)))
	}
	return strings.Join(words, "; ")
}

// A vault that lags behind is no copy to drop another one for, and yet the volume comes back from
// it: a forecast that does not count it says LOST of what is not.
func TestLagsBehind(t *testing.T) {
	for _, test := range []struct {
		what, newest string
		bad          int64
		want         place.Loss
	}{
		{"of this epoch", "cluster-2-3", 0, place.Loss{Volume: "home", Fate: place.FromVault, Age: 71 * time.Second, Copies: 1}},
		{"of the one before", "cluster-1-9", 0, place.Loss{Volume: "home", Fate: place.FromVault, Age: 71 * time.Second, Copies: 1}},
		{"damaged", "cluster-2-3", 1, place.Loss{Volume: "home", Fate: place.Lost, Bytes: 10 * gib}},
		{"nothing", "", 0, place.Loss{Volume: "home", Fate: place.Lost, Bytes: 10 * gib}},
	} {
		f := five()
		f.Volumes[0].Vaults = []string{"n2", "n3"}
		if test.newest != "" {
			has(&f, 2, test.newest, 71*time.Second).Bad = test.bad
		}
		p := control.FactsOf(f, nil, nil)
		d := place.Blast(p, []string{"n1", "n2"}, nil)
		if len(d.Losses) != 1 || !reflect.DeepEqual(d.Losses[0], test.want) {
			t.Errorf("%s: %+v, want %+v", test.what, d.Losses, test.want)
		}
		if control.Whole(p, p.Volumes[0]) {
			t.Errorf("%s: it is taken for a whole copy", test.what)
		}
	}
}

// What is known of a cluster leads to the steps that the design says, and to none before a new copy
// is known to be whole.
func TestFacts(t *testing.T) {
	drain := func(f *health.Facts, node int) { f.Nodes[node].State = cluster.StateDraining }
	for _, test := range []struct {
		what   string
		change func(*health.Facts)
		want   string
		repair string // the node that the volume's repair names, and why
	}{
		{"all is well", func(*health.Facts) {}, "", ""},
		{"a node has been down for nine minutes", func(f *health.Facts) { down(f, 1, 9*time.Minute) }, "", "n2 fewer copies are there than wanted"},
		{"for ten", func(f *health.Facts) { down(f, 1, 10*time.Minute) }, "make n4", "n4 fewer copies are there than wanted"},
		{"for as long as an administrator wants", func(f *health.Facts) { f.Cluster.Patience = 60; down(f, 1, time.Minute) }, "make n4", "n4 fewer copies are there than wanted"},
		{"it was removed", func(f *health.Facts) { f.Nodes = slices.Delete(f.Nodes, 1, 2) }, "make n4", "n4 fewer copies are there than wanted"},
		{"two of five are down", func(f *health.Facts) { down(f, 1, time.Hour); down(f, 2, time.Hour) }, "held", ""},
		{"the register has gone back", func(f *health.Facts) { f.Nodes[1].Said.Copies[0].Epoch = 3; f.Volumes[0].Vaults = nil }, "held", ""},
		{"nobody else has room", func(f *health.Facts) {
			down(f, 1, time.Hour)
			for i := range f.Nodes {
				if f.Nodes[i].Said != nil {
					f.Nodes[i].Said.Free = 12 * gib
				}
			}
		}, "blocked vault", " no other node is up, takes copies and has room"},
		{"what a node may store bounds it", func(f *health.Facts) {
			down(f, 1, time.Hour)
			for i := range f.Nodes {
				f.Nodes[i].Capacity = 30 * gib
			}
		}, "blocked vault", " no other node is up, takes copies and has room"},
		{"draining: another one first", func(f *health.Facts) { drain(f, 1) }, "make n4", "n4 the node is draining"},
		{"draining: nothing has come there yet", func(f *health.Facts) { drain(f, 1); f.Volumes[0].Vaults = []string{"n2", "n3"} }, "", "n3 fewer copies are there than wanted"},
		{"draining: it is not as far yet", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-3", 71*time.Second)
		}, "", "n3 fewer copies are there than wanted"},
		{"draining: its snapshot is of another epoch", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-1-300", 5*time.Second)
		}, "", "n3 fewer copies are there than wanted"},
		{"draining: blocks are missing there", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-9", 10*time.Second).Bad = 1
		}, "", "n3 fewer copies are there than wanted"},
		{"draining: it is whole", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-8", 40*time.Second)
		}, "drop n2", ""},
		{"draining, and the home does not answer", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-9", 10*time.Second)
			f.Nodes[0].Said = nil
		}, "", ""},
		{"draining, and the home is being filled", func(f *health.Facts) {
			drain(f, 1)
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-9", 10*time.Second)
			f.Volumes[0].From = &cluster.Origin{Vault: "n2"}
		}, "", ""},
		{"a home that is draining", func(f *health.Facts) { drain(f, 0) }, "blocked writer n1", ""},
		{"one too many", func(f *health.Facts) {
			f.Volumes[0].Vaults = []string{"n2", "n3"}
			has(f, 2, "cluster-2-9", 10*time.Second)
			f.Nodes[2].Said.Free = 10 * gib
		}, "drop n3", ""},
		{"a new volume", func(f *health.Facts) { f.Nodes[1].Said.Copies = nil }, "", "n2 fewer copies are there than wanted"},
		{"a vault that cannot look", func(f *health.Facts) { f.Nodes[1].Said.Copies[0].Error = "damaged" }, "", "n2 fewer copies are there than wanted"},
	} {
		f := five()
		test.change(&f)
		p := control.FactsOf(f, nil, nil)
		plan := place.Next(p)
		repair := ""
		if plan.Held == "" {
			if r, ok := control.Repairs(p, plan, noon)["home"]; ok {
				repair = r.Node + " " + r.Why
			}
		}
		if got := line(plan); got != test.want || repair != test.repair {
			t.Errorf("%s: %q, repair %q; want %q, %q", test.what, got, repair, test.want, test.repair)
		}
	}
}

// What does not answer is waited for as what is down is; it begins anew when it was heard.
func TestSilence(t *testing.T) {
	silence := control.Silence{}
	for _, test := range []struct {
		after  time.Duration
		silent bool
		want   string
	}{
		{0, true, ""}, {9 * time.Minute, true, ""}, {9*time.Minute + time.Second, false, ""},
		{10 * time.Minute, true, ""}, {19 * time.Minute, true, ""}, {20 * time.Minute, true, "make n4"},
	} {
		f := five()
		f.AsOf = noon.Add(test.after)
		if test.silent {
			f.Nodes[1].Said = nil
		}
		if got := line(place.Next(control.FactsOf(f, nil, silence))); got != test.want {
			t.Errorf("after %v: %q, want %q", test.after, got, test.want)
		}
	}
}

// What is left on a node that is drained says where it goes, also while it is on its way.
func TestLeftOn(t *testing.T) {
	for _, test := range []struct {
		what   string
		node   string
		change func(*health.Facts)
		want   string
	}{
		{"nothing", "n5", func(*health.Facts) {}, "[]"},
		{"it will be made", "n2", func(*health.Facts) {}, "[{home vault n4 }]"},
		{"it is being made", "n2", func(f *health.Facts) { f.Volumes[0].Vaults = []string{"n2", "n3"} }, "[{home vault n3 }]"},
		{"a home", "n1", func(*health.Facts) {}, "[{home writer  the volume is written there: take it over on another node}]"},
		{"no node for it", "n2", func(f *health.Facts) { f.Nodes = f.Nodes[:2] }, "[{home vault  no other node is up, takes copies and has room}]"},
	} {
		f := five()
		test.change(&f)
		left, held := control.LeftOn(control.FactsOf(f, nil, nil), test.node)
		if got := fmt.Sprint(left); got != test.want || held != "" {
			t.Errorf("%s: %s, %q; want %s", test.what, got, held, test.want)
		}
	}
}

// Room is what is lacking, and not a node.
func TestNoRoom(t *testing.T) {
	for _, test := range []struct {
		what   string
		change func(*health.Facts)
		want   string
	}{
		{"room", func(*health.Facts) {}, " []"},
		{"no room", func(f *health.Facts) {
			for i := range f.Nodes {
				f.Nodes[i].Said.Free = 12 * gib
			}
		}, "n2 [home]"},
		{"no node", func(f *health.Facts) { f.Nodes = f.Nodes[:2] }, " []"},
		{"no volume", func(f *health.Facts) { f.Volumes = nil }, " []"},
	} {
		f := five()
		test.change(&f)
		node, of := control.NoRoom(control.FactsOf(f, nil, nil))
		if got := fmt.Sprint(node, " ", of); got != test.want {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
}

// A volume whose home does not say how large it is has the size that it last had.
func TestSizes(t *testing.T) {
	f := five()
	f.Nodes[0].Said.Homes[0].Online = false
	if b := control.FactsOf(f, map[string]int64{"v": 7}, nil).Volumes[0].Bytes; b != 7 {
		t.Errorf("%d bytes", b)
	}
}
