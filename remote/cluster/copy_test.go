package cluster_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// The newest copy counts, and of each volume the highest epoch that anybody knows.
func TestMerge(t *testing.T) {
	vol := func(name string, epoch int64, node string) cluster.Volume {
		v := home()
		v.Name, v.ID, v.Epoch, v.Home, v.Vaults = name, "id-"+name, epoch, node, nil
		return v
	}
	of := func(rebuilds, revision int64, volumes ...cluster.Volume) cluster.Copy {
		return cluster.Copy{Revision: revision, Config: cluster.Config{ID: "1", Rebuilds: rebuilds, Generation: "old"}, Volumes: volumes}
	}
	other := of(0, 9)
	other.Config.ID = "2"
	renamed := vol("a", 5, "n5")
	renamed.ID = "id-of-another"
	for _, test := range []struct {
		what   string
		copies []cluster.Copy
		homes  []cluster.Volume
		want   string // revision, rebuilds, and the volumes
		err    error
	}{
		{"nobody knows anything", nil, []cluster.Volume{vol("a", 1, "n1")}, "", cluster.ErrNoCluster},
		{"two clusters", []cluster.Copy{of(0, 9), other}, nil, "", cluster.ErrExists},
		{"the newest", []cluster.Copy{of(0, 7, vol("a", 1, "n1")), of(0, 9, vol("a", 1, "n1"), vol("b", 1, "n2"))}, nil, "9 1: a n1 1; b n2 1; ", nil},
		{"a later rebuild is newer than a revision", []cluster.Copy{of(1, 3, vol("a", 2, "n2")), of(0, 9, vol("a", 1, "n1"))}, nil, "3 2: a n2 2; ", nil},
		{"an older copy with a later epoch", []cluster.Copy{of(0, 9, vol("a", 1, "n1")), of(0, 7, vol("a", 2, "n2"))}, nil, "9 1: a n2 2; ", nil},
		{"a home that knows more", []cluster.Copy{of(0, 9, vol("a", 1, "n1"))}, []cluster.Volume{vol("a", 4, "n3"), vol("b", 1, "n3")}, "9 1: a n3 4; b n3 1; ", nil},
		{"a home that knows less", []cluster.Copy{of(0, 9, vol("a", 4, "n1"))}, []cluster.Volume{vol("a", 3, "n3")}, "9 1: a n1 4; ", nil},
		{"another volume of the name", []cluster.Copy{of(0, 9, vol("a", 1, "n1"))}, []cluster.Volume{renamed}, "9 1: a n1 1; ", nil},
		{"what is no volume", []cluster.Copy{of(0, 9)}, []cluster.Volume{{Name: "a/b", ID: "x", Epoch: 1}}, "9 1: ", nil},
	} {
		c, err := cluster.Merge(test.copies, test.homes, "new")
		got := ""
		if err == nil {
			got = fmt.Sprintf("%d %d: ", c.Revision, c.Config.Rebuilds)
			for _, v := range c.Volumes {
				got += fmt.Sprintf("%s %s %d; ", v.Name, v.Home, v.Epoch)
			}
			if c.Config.Generation != "new" {
				t.Errorf("%s: generation %q", test.what, c.Config.Generation)
			}
		}
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v; want %q, %v", test.what, got, err, test.want, test.err)
		}
	}
}

// A register that was restored says what the copy does and nothing else, whatever it said before,
// and also when that is done twice.
func TestRestore(t *testing.T) {
	c := withNodes(t)
	ours := chunk.Default()
	if _, err := c.AgreeOnDomain(t.Context(), "default", &ours, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateVolume(t.Context(), home()); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "n3", noon); err != nil {
		t.Fatal(err)
	}
	want, err := c.Copy(t.Context())
	if err != nil || len(want.Volumes) != 1 || len(want.Nodes) != 4 || len(want.Domains) != 1 || want.Config.Name != "lab" {
		t.Fatalf("%+v, %v", want, err)
	}
	if _, err := c.SetVaults(t.Context(), "home", nil, []string{"n2"}, 0); err != nil {
		t.Fatal(err)
	}
	more := home()
	more.Name, more.ID = "more", "02"
	if _, err := c.CreateVolume(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	for what, to := range map[string]*cluster.Cluster{"one that is there": c, "an empty one": {Register: registertest.NewFake().Client()}} {
		for range 2 {
			if err := to.Restore(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
		is, err := to.Copy(t.Context())
		is.Revision = want.Revision
		if diff := cmp.Diff(want, is); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", what, err, diff)
		}
	}
}
