package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
)

// TestOneTakeoverAtATime: what a takeover has neither a writer nor another takeover gets.
func TestOneTakeoverAtATime(t *testing.T) {
	m := newMirrors()
	m.taking["v"] = true
	for _, takes := range []bool{false, true} {
		if _, err := m.get(cluster.Volume{ID: "v", Name: "home"}, takes, t.TempDir(), carrier.ReplicaOptions{}); !errors.Is(err, cluster.ErrFenced) {
			t.Errorf("takes %v: %v", takes, err)
		}
	}
	if !m.taking["v"] {
		t.Error("the first takeover has ended")
	}
	// One that cannot open the copy has taken nothing.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.get(cluster.Volume{ID: "w", Name: "other"}, true, file, carrier.ReplicaOptions{}); err == nil || m.taking["w"] {
		t.Errorf("a file in place of the copy: %v, taken %v", err, m.taking["w"])
	}
}
