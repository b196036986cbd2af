package agent

import (
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// What was confirmed gives way to what is newer, and to nothing else: the vault that has it may not
// answer when it is asked again.
func TestNewestOf(t *testing.T) {
	at := func(node string, newest *health.Snapshot) vaultFact {
		return vaultFact{health.NodeFacts{Node: cluster.Node{Name: node}}, health.Copy{Newest: newest}}
	}
	older, same, newer := at("n2", &health.Snapshot{Name: "cluster-1-9"}), at("n3", &health.Snapshot{Name: "cluster-1-10"}), at("n4", &health.Snapshot{Name: "cluster-2-1"})
	confirmed := &cluster.Origin{Vault: "n1", Snapshot: "cluster-1-10"}
	for _, test := range []struct {
		what  string
		best  *cluster.Origin
		found []vaultFact
		want  string // vault and snapshot
	}{
		{"nobody has any", nil, []vaultFact{at("n2", nil)}, " "},
		{"the first of the newest", nil, []vaultFact{older, same, at("n5", same.copy.Newest)}, "n3 cluster-1-10"},
		{"nobody answers any more", confirmed, nil, "n1 cluster-1-10"},
		{"the others have less", confirmed, []vaultFact{older, at("n5", nil)}, "n1 cluster-1-10"},
		{"another has it, too", confirmed, []vaultFact{same}, "n1 cluster-1-10"},
		{"a newer one has come", confirmed, []vaultFact{older, newer, same}, "n4 cluster-2-1"},
	} {
		var got cluster.Origin
		if o := newestOf(test.best, test.found); o != nil {
			got = *o
		}
		if is := got.Vault + " " + got.Snapshot; is != test.want {
			t.Errorf("%s: %q, want %q", test.what, is, test.want)
		}
	}
}
