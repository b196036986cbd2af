package cluster_test

import (
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

func TestSnapshotNames(t *testing.T) {
	for _, n := range []int64{1, 9, 10, 1 << 40} {
		if epoch, m, ok := cluster.ParseSnapshotName(cluster.SnapshotName(3, n)); !ok || epoch != 3 || m != n {
			t.Errorf("%d: %d, %d, %t", n, epoch, m, ok)
		}
	}
	for _, name := range []string{"", "monday", "cluster-", "cluster-1", "cluster-1-", "cluster-0-1",
		"cluster-1-0", "cluster-1--2", "cluster-+1-1", "cluster-01-1", "cluster-1-1-1",
		"cluster-9-x", "cluster-9-07", cluster.DivergedName(1)} {
		if _, _, ok := cluster.ParseSnapshotName(name); ok {
			t.Errorf("%q is taken for an agent's", name)
		}
		if cluster.NewerSnapshot(name, "cluster-1-1") >= 0 {
			t.Errorf("%q is taken for newer than an agent's", name)
		}
	}
	inOrder := []string{"monday", "cluster-1-2", "cluster-1-10", "cluster-2-1", "cluster-10-1"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got := cluster.NewerSnapshot(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
}
