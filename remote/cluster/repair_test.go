package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// What an administrator names is what is wanted, so that no repair undoes it; a plan changes where
// copies are and never how many are wanted, and only while the volume is what it was made for.
func TestVaultsOfVolume(t *testing.T) {
	ours := chunk.Default()
	for _, test := range []struct {
		what   string
		do     func(c *cluster.Cluster, v cluster.Volume) (cluster.Volume, error)
		vaults string
		copies int
		want   error
	}{
		{"one more", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", []string{"n3"}, nil, 0)
		}, "[n2 n3]", 3, nil},
		{"another", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", []string{"n3"}, []string{"n2"}, 0)
		}, "[n3]", 2, nil},
		{"one less", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", nil, []string{"n2"}, 0)
		}, "[]", 1, nil},
		{"one that is none", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", nil, []string{"n3"}, 0)
		}, "[n2]", 2, nil},
		{"more copies", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", nil, nil, 4)
		}, "[n2]", 4, nil},
		{"no copy", func(c *cluster.Cluster, _ cluster.Volume) (cluster.Volume, error) {
			return c.SetVaults(t.Context(), "home", nil, nil, -1)
		}, "[n2]", 2, cluster.ErrPlace},
		{"by a plan", func(c *cluster.Cluster, v cluster.Volume) (cluster.Volume, error) {
			return c.MoveVaults(t.Context(), v, []string{"n3"}, nil)
		}, "[n2 n3]", 2, nil},
		{"by a plan for a volume that was", func(c *cluster.Cluster, v cluster.Volume) (cluster.Volume, error) {
			if _, err := c.SetVaults(t.Context(), "home", nil, nil, 3); err != nil {
				return v, err
			}
			return c.MoveVaults(t.Context(), v, nil, []string{"n2"})
		}, "[n2]", 3, register.ErrConflict},
		{"by a plan, to its home", func(c *cluster.Cluster, v cluster.Volume) (cluster.Volume, error) {
			return c.MoveVaults(t.Context(), v, []string{"n1"}, nil)
		}, "[n2]", 2, cluster.ErrPlace},
	} {
		c := withNodes(t)
		if _, err := c.AgreeOnDomain(t.Context(), "default", &ours, noon); err != nil {
			t.Fatal(err)
		}
		v, err := c.CreateVolume(t.Context(), home())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := test.do(c, v); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
		if v, err = c.Volume(t.Context(), "home"); err != nil || fmt.Sprint(v.Vaults) != test.vaults || v.Copies != test.copies {
			t.Errorf("%s: vaults %v, %d copies, %v; want %s, %d", test.what, v.Vaults, v.Copies, err, test.vaults, test.copies)
		}
	}
}

// A repair keeps its time for as long as it is the same, and goes when it is over; many at a time
// are more than the register takes in one transaction.
func TestNoteRepairs(t *testing.T) {
	c := withNodes(t)
	note := func(after time.Duration, volumes int, node string) []cluster.Repair {
		t.Helper()
		now := make(map[string]cluster.Repair)
		for i := range volumes {
			now[fmt.Sprintf("v%03d", i)] = cluster.Repair{Node: node, Why: "lost", Since: noon.Add(after)}
		}
		err := c.NoteRepairs(t.Context(), now)
		is, err2 := c.Repairs(t.Context())
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return is
	}
	for _, test := range []struct {
		after   time.Duration
		volumes int
		node    string
		since   time.Duration
	}{
		{0, 3, "n2", 0}, {time.Minute, 3, "n2", 0}, {time.Hour, 3, "n3", time.Hour}, {2 * time.Hour, 2, "n3", time.Hour},
		{3 * time.Hour, 0, "", 0}, {4 * time.Hour, 300, "n1", 4 * time.Hour}, {5 * time.Hour, 0, "", 0},
	} {
		is := note(test.after, test.volumes, test.node)
		bad := func(r cluster.Repair) bool { return r.Node != test.node || !r.Since.Equal(noon.Add(test.since)) }
		if len(is) != test.volumes || slices.ContainsFunc(is, bad) {
			t.Errorf("after %v: %+v", test.after, is)
		}
	}
}

func TestSettings(t *testing.T) {
	c := withNodes(t)
	if conf, err := c.Config(t.Context()); err != nil || conf.RepairAfter() != cluster.DefaultPatience {
		t.Errorf("%+v, %v", conf, err)
	}
	if conf, err := c.SetPatience(t.Context(), 20*time.Second); err != nil || conf.RepairAfter() != 20*time.Second {
		t.Errorf("%+v, %v", conf, err)
	}
	if n, err := c.SetState(t.Context(), "n2", cluster.StateDraining); err != nil || n.State != cluster.StateDraining {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := c.Node(t.Context(), "n2"); err != nil || n.State != cluster.StateDraining {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := c.SetState(t.Context(), "n9", cluster.StateIn); !errors.Is(err, cluster.ErrNoNode) {
		t.Error(err)
	}
	if n, err := c.Nodes(t.Context()); err != nil || len(n) != 5 {
		t.Errorf("a node was made: %v, %v", n, err)
	}
}
