package health_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// good is a cluster of three voters and a node with data alone, to whom nothing is wrong.
func good() health.Facts {
	f := health.Facts{AsOf: noon, Cluster: cluster.Config{Name: "lab"}}
	for _, name := range []string{"n1", "n2", "n3", "n4"} {
		f.Nodes = append(f.Nodes, health.NodeFacts{
			Node: cluster.Node{Name: name, Roles: []cluster.Role{cluster.RoleData}, State: cluster.StateIn},
			Up:   true, Votes: name != "n4",
			Said: &health.Answer{
				Time: noon.Add(10 * time.Millisecond), Asked: noon, Took: 20 * time.Millisecond, Version: "v1",
				Used: 50, Free: 50, Expires: noon.AddDate(9, 0, 0), Ready: true,
			},
		})
	}
	return f
}

func TestJudge(t *testing.T) {
	minuteAgo := noon.Add(-time.Minute)
	for _, test := range []struct {
		what   string
		change func(*health.Facts)
		state  health.Level
		want   []string // code and subjects of each check
		text   string   // in one of them
	}{
		{"all is well", func(*health.Facts) {}, health.OK, nil, ""},
		{"a data node is down", func(f *health.Facts) { f.Nodes[3].Up, f.Nodes[3].DownSince, f.Nodes[3].Said = false, &minuteAgo, nil },
			health.Warn, []string{"NODE_DOWN n4"}, "n4 has not been seen for 1m0s"},
		{"nobody knows since when", func(f *health.Facts) { f.Nodes[3].Up, f.Nodes[3].Said = false, nil },
			health.Warn, []string{"NODE_DOWN n4"}, "does not say that it is alive"},
		{"a voter is down", func(f *health.Facts) { f.Nodes[0].Up, f.Nodes[0].Said = false, nil },
			health.Warn, []string{"CONTROL_AT_RISK n1 n2 n3", "NODE_DOWN n1"}, "2 of 3 voters are up"},
		{"no quorum", func(f *health.Facts) { f.NoVote = errors.New("no answer"); f.Nodes[0].Said, f.Nodes[1].Said = nil, nil },
			health.Err, []string{"CONTROL_NO_QUORUM", "VIEW_PARTIAL n1 n2"}, "no answer"},
		{"one voter", func(f *health.Facts) { f.Nodes = f.Nodes[:1] }, health.Warn, []string{"CONTROL_SINGLE n1"}, "decides alone"},
		{"two voters", func(f *health.Facts) { f.Nodes = f.Nodes[1:] }, health.Warn, []string{"CONTROL_EVEN n2 n3"}, "2 nodes vote"},
		{"no answer", func(f *health.Facts) { f.Nodes[1].Said = nil }, health.Warn, []string{"VIEW_PARTIAL n2"}, "unknown"},
		{"a clock is ahead", func(f *health.Facts) { f.Nodes[1].Said.Time = noon.AddDate(1, 0, 0) }, health.Warn, []string{"CLOCK_OFF n2"}, ""},
		{"a clock is behind", func(f *health.Facts) { f.Nodes[1].Said.Time = noon.Add(-2 * time.Second) }, health.Warn, []string{"CLOCK_OFF n2"}, ""},
		{"a slow answer is no clock", func(f *health.Facts) {
			f.Nodes[1].Said.Took, f.Nodes[1].Said.Time = 4*time.Second, noon.Add(3900*time.Millisecond)
		}, health.OK, nil, ""},
		{"versions", func(f *health.Facts) { f.Nodes[1].Said.Version = "v2" },
			health.Warn, []string{"VERSION_MIX n1 n2 n3 n4"}, "v1 on n1, n3, n4; v2 on n2"},
		{"a certificate ends", func(f *health.Facts) { f.Nodes[1].Said.Expires = noon.AddDate(0, 1, 0) }, health.Warn, []string{"CERT_EXPIRES n2"}, ""},
		{"a certificate has ended", func(f *health.Facts) { f.Nodes[1].Said.Expires = minuteAgo }, health.Warn, []string{"CERT_EXPIRES n2"}, ""},
		{"a disk is full", func(f *health.Facts) { f.Nodes[1].Said.Used, f.Nodes[1].Said.Free = 100, 0 }, health.Warn, []string{"SPACE_LOW n2"}, ""},
		{"all at once", func(f *health.Facts) {
			f.NoVote = errors.New("none")
			f.Nodes[0].Said, f.Nodes[1].Said.Free, f.Nodes[2].Said.Version = nil, 0, "v2"
		}, health.Err, []string{"CONTROL_NO_QUORUM", "VIEW_PARTIAL n1", "VERSION_MIX n2 n3 n4", "SPACE_LOW n2"}, ""},
	} {
		f := good()
		test.change(&f)
		s := health.Judge(f)
		var got, texts []string
		for _, c := range s.Checks {
			got = append(got, strings.Join(append([]string{c.Code}, c.Subjects...), " "))
			texts = append(texts, c.Text)
			if c.Text == "" || c.Do == "" {
				t.Errorf("%s: %s does not say what it means or what to do", test.what, c.Code)
			}
		}
		if s.State != test.state || !slices.Equal(got, test.want) {
			t.Errorf("%s: %s %q, want %s %q", test.what, s.State, got, test.state, test.want)
		}
		if !strings.Contains(strings.Join(texts, "\n"), test.text) {
			t.Errorf("%s: nothing of %q in %q", test.what, test.text, texts)
		}
	}
}

// What nobody has said is null, and not 0: an unknown disk is not a full one.
func TestUnknown(t *testing.T) {
	f := good()
	f.Nodes[0].Said = nil
	b, err := json.Marshal(health.Judge(f).Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "used", "free", "skew_ns", "expires"} {
		if !strings.Contains(string(b), `"`+key+`":null`) {
			t.Errorf("%s is known of a node that did not answer: %s", key, b)
		}
	}
}

// A node that is said to be up and does not answer is neither up nor down.
func TestKnown(t *testing.T) {
	f := good()
	f.Nodes[0].Said = nil
	f.Nodes[1].Said, f.Nodes[1].Up = nil, false
	want := []string{"unknown", "down", "up", "up"}
	for i, n := range health.Judge(f).Nodes {
		if n.Known() != want[i] {
			t.Errorf("%s is %s, want %s", n.Name, n.Known(), want[i])
		}
	}
	f.NoVote = errors.New("none")
	if n := health.Judge(f).Nodes[1]; n.Known() != "unknown" {
		t.Errorf("without a quorum %s is %s", n.Name, n.Known())
	}
}

// Whatever is taken away from the facts never makes a cluster look better.
func TestUnknownIsNeverGood(t *testing.T) {
	for i := range 4 {
		f := good()
		f.Nodes[i].Said = nil
		if s := health.Judge(f); s.State == health.OK {
			t.Errorf("without the answer of %s all is well", f.Nodes[i].Name)
		}
	}
}

// withVolume is a cluster in which n1 writes home, and a vault on n2 has a snapshot of it.
func withVolume() health.Facts {
	f := good()
	for i, zone := range []string{"a", "b", "b", "c"} {
		f.Nodes[i].Zone = zone
	}
	f.Volumes = []cluster.Volume{{Name: "home", ID: "v", Home: "n1", Store: "/srv/home", Epoch: 2, Vaults: []string{"n2"}, Copies: 2, RPO: 60}}
	f.Nodes[0].Said.Homes = []health.Home{{Volume: "home", ID: "v", Epoch: 2, Store: "/srv/home", Online: true, Mountpoint: "/home", Bytes: 7}}
	f.Nodes[1].Said.Copies = []health.Copy{{
		Volume: "home", ID: "v", Epoch: 2, Writer: "n1", Snapshots: 3,
		Newest: &health.Snapshot{Name: "cluster-2-9", Created: noon.Add(-10 * time.Second)},
	}}
	return f
}

func TestJudgeVolumes(t *testing.T) {
	snapshot := func(f *health.Facts) *health.Copy { return &f.Nodes[1].Said.Copies[0] }
	yes, no := true, false
	for _, test := range []struct {
		what      string
		change    func(*health.Facts)
		state     health.Level
		want      []string // code and subjects of each check
		text      string   // in one of them
		protected *bool
	}{
		{"all is well", func(*health.Facts) {}, health.OK, nil, "", &yes},
		{"old snapshots", func(f *health.Facts) { snapshot(f).Newest.Created = noon.Add(-61 * time.Second) },
			health.Warn, []string{"VOLUME_LAGGING home"}, "is 1m1s old, and may be 1m0s", &no},
		{"old snapshots, and why", func(f *health.Facts) {
			snapshot(f).Newest.Created = noon.Add(-time.Hour)
			f.Nodes[0].Said.Homes[0].Pushes = []health.Push{{Vault: "n2", Error: "the disk is full"}}
		}, health.Warn, []string{"VOLUME_LAGGING home"}, "n2: the disk is full", &no},
		{"a push failed, and it is not late yet", func(f *health.Facts) {
			f.Nodes[0].Said.Homes[0].Pushes = []health.Push{{Vault: "n2", Error: "no answer"}}
		}, health.Warn, []string{"VOLUME_LAGGING home"}, "n2: no answer", &yes},
		{"a snapshot from the future", func(f *health.Facts) { snapshot(f).Newest.Created = noon.AddDate(1, 0, 0) },
			health.Warn, []string{"VOLUME_LAGGING home"}, "from the future", &no},
		{"no snapshot", func(f *health.Facts) { snapshot(f).Newest = nil },
			health.Warn, []string{"VOLUME_UNPROTECTED home"}, "no vault has a snapshot", &no},
		{"a vault that knows nothing", func(f *health.Facts) { f.Nodes[1].Said.Copies = nil },
			health.Warn, []string{"VOLUME_UNPROTECTED home"}, "", &no},
		{"a vault that cannot look", func(f *health.Facts) { *snapshot(f) = health.Copy{ID: "v", Epoch: 2, Error: "damaged"} },
			health.Warn, []string{"VOLUME_UNKNOWN home"}, "n2: damaged", nil},
		{"no answer of the vault", func(f *health.Facts) { f.Nodes[1].Said = nil },
			health.Warn, []string{"VIEW_PARTIAL n2", "VOLUME_UNKNOWN home"}, "", nil},
		{"no answer of the home", func(f *health.Facts) { f.Nodes[0].Said = nil }, health.Warn, []string{"VIEW_PARTIAL n1"}, "", &yes},
		{"no vault", func(f *health.Facts) { f.Volumes[0].Vaults = nil },
			health.Warn, []string{"VOLUME_UNPROTECTED home", "COPIES_MISSING home"}, "0 vaults, and is to have 1", &no},
		{"one zone", func(f *health.Facts) { f.Nodes[0].Zone = "b" }, health.Warn, []string{"ZONE_SHARED home"}, "zone b", &yes},
		{"not mounted", func(f *health.Facts) { f.Nodes[0].Said.Homes[0].Online = false },
			health.Warn, []string{"VOLUME_OFFLINE home"}, "not mounted", &yes},
		{"a daemon that hangs", func(f *health.Facts) { f.Nodes[0].Said.Homes[0] = health.Home{ID: "v", Epoch: 2, Hangs: true} },
			health.Warn, []string{"VOLUME_UNKNOWN home"}, "whether home can be used is not known", &yes},
		{"the home is down", func(f *health.Facts) { f.Nodes[0].Up, f.Nodes[0].Said = false, nil },
			health.Err, []string{"VOLUME_OFFLINE home", "CONTROL_AT_RISK n1 n2 n3", "NODE_DOWN n1"}, "its home n1 is down", &yes},
		{"the home was removed", func(f *health.Facts) { f.Volumes[0].Home = "n9" }, health.Err, []string{"VOLUME_OFFLINE home"}, "n9 is down", &yes},
		{"a new home is being filled", func(f *health.Facts) { f.Volumes[0].From = &cluster.Origin{} },
			health.Err, []string{"VOLUME_FILLING home"}, "not whole", &yes},
		{"a former home", func(f *health.Facts) {
			f.Nodes[2].Said.Homes = []health.Home{{Volume: "home", ID: "v", Epoch: 1, Store: "/old", FencedBy: "n1", Mountpoint: "/m"}}
		}, health.Warn, []string{"VOLUME_FENCED home n3"}, "saved at no vault yet", &yes},
		{"a former home that is saved", func(f *health.Facts) {
			f.Nodes[2].Said.Homes = []health.Home{{Volume: "home", ID: "v", Epoch: 1, Store: "/old", FencedBy: "n1", Saved: "diverged-1"}}
		}, health.Warn, []string{"VOLUME_FENCED home n3"}, "as snapshot diverged-1", &yes},
		{"damage at a vault", func(f *health.Facts) { snapshot(f).Bad = 3 }, health.Err, []string{"BAD_BLOCKS n2"}, "3 blocks", &yes},
		{"a register from before a takeover", func(f *health.Facts) { snapshot(f).Epoch = 3 },
			health.Err, []string{"CONTROL_ROLLED_BACK home"}, "older than what the nodes have done", &yes},
		{"a register from before a volume", func(f *health.Facts) { f.Volumes = nil }, health.Err, []string{"CONTROL_ROLLED_BACK home"}, "", nil},
		{"a home that is ahead of the register", func(f *health.Facts) { f.Nodes[0].Said.Homes[0].Epoch = 3 },
			health.Err, []string{"CONTROL_ROLLED_BACK home", "VOLUME_OFFLINE home"}, "", &yes},
		{"no register", func(f *health.Facts) { f.NoVote = errors.New("none"); f.Volumes[0].Epoch = 1 },
			health.Err, []string{"CONTROL_NO_QUORUM", "VOLUME_OFFLINE home"}, "", &yes},
	} {
		f := withVolume()
		test.change(&f)
		s := health.Judge(f)
		var got, texts []string
		for _, c := range s.Checks {
			got = append(got, strings.Join(append([]string{c.Code}, c.Subjects...), " "))
			texts = append(texts, c.Text)
			if c.Text == "" || c.Do == "" || strings.Contains(c.Text+c.Do, "\n") {
				t.Errorf("%s: %s is not one line that says what it means and what to do: %q, %q", test.what, c.Code, c.Text, c.Do)
			}
		}
		if s.State != test.state || !slices.Equal(got, test.want) {
			t.Errorf("%s: %s %q, want %s %q", test.what, s.State, got, test.state, test.want)
		}
		if !strings.Contains(strings.Join(texts, "\n"), test.text) {
			t.Errorf("%s: nothing of %q in %q", test.what, test.text, texts)
		}
		var protected *bool
		if len(s.Volumes) > 0 {
			protected = s.Volumes[0].Protected
		}
		if (protected == nil) != (test.protected == nil) || protected != nil && *protected != *test.protected {
			t.Errorf("%s: protected is %v", test.what, protected)
		}
	}
}
