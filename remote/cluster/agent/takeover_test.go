package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/home"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
)

// volume returns what the register says of the only one there is.
func (m *machine) volume(t *testing.T) (v health.Volume, checks []string) {
	t.Helper()
	s, err := m.agent().Status(t.Context())
	if err != nil || len(s.Volumes) != 1 {
		t.Fatalf("%d volumes: %v", len(s.Volumes), err)
	}
	for _, c := range s.Checks {
		checks = append(checks, c.Code)
	}
	return s.Volumes[0], checks
}

// A takeover decides nothing before it is confirmed, keeps the former home out, may be begun again,
// and is done when the store is filled. A home whose register has gone back has it say again what
// the home knows.
func TestTakeover(t *testing.T) {
	n1 := found(t)
	n2 := newMachine(t, "n2")
	n2.joinSoon(t, n1.token(t))
	n2.waitUp(t, "n1", "n2")
	site := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	v, err := n1.agent().CreateVolume(t.Context(), cluster.Volume{
		Name: "home", Domain: "default", Store: site.Store.Dir(), Copies: 2, RPO: 60, Vaults: []string{"n2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	push := func(name string, seed uint64) error {
		ref := transfer.SnapshotRef{Name: name, ID: site.Plant(t, name, seed)}
		vault := n1.agent().Vault("n2", v.ID, 1)
		defer vault.Close()
		_, err := transfer.Transfer{From: site.Node, To: vault, Snapshots: []transfer.SnapshotRef{ref}, Whose: "test"}.Run(t.Context())
		return err
	}
	takeOver := func(q client.TakeoverRequest) (client.Takeover, error) {
		return n2.agent().TakeOver(t.Context(), "home", q)
	}
	at := filepath.Join(t.TempDir(), "store")
	if _, err := takeOver(client.TakeoverRequest{Store: at, Force: true}); !errors.Is(err, client.ErrNoVault) {
		t.Errorf("from a vault that has nothing: %v", err)
	}
	if err := push("cluster-1-7", 1); err != nil {
		t.Fatal(err)
	}

	if _, err := takeOver(client.TakeoverRequest{Store: at, Snapshot: "cluster-1-7"}); !errors.Is(err, client.ErrHomeUp) {
		t.Errorf("from a home that is up: %v", err)
	}
	for _, name := range []string{"", "cluster-1-6"} {
		shown, err := takeOver(client.TakeoverRequest{Store: at, Snapshot: name, Force: true})
		if err != nil || shown.Done || shown.From.Snapshot != "cluster-1-7" || shown.From.Vault != "n2" {
			t.Errorf("with %q confirmed: %+v, %v", name, shown, err)
		}
	}
	_, err = takeOver(client.TakeoverRequest{Store: site.Store.Dir(), Snapshot: "cluster-1-7", Force: true})
	if !errors.Is(err, client.ErrRequest) {
		t.Errorf("into a directory that is not empty: %v", err)
	}
	if is, _ := n1.volume(t); is.Epoch != 1 || is.Home != "n1" {
		t.Errorf("something was decided: %+v", is)
	}

	confirmed := client.TakeoverRequest{Store: at, Snapshot: "cluster-1-7", Force: true}
	for _, what := range []string{"the first time", "again"} {
		done, err := takeOver(confirmed)
		is := done.Volume
		if err != nil || !done.Done || is.Epoch != 2 || is.Home != "n2" || is.Store != at || !slices.Equal(is.Vaults, []string{"n1"}) ||
			is.From == nil || is.From.Snapshot != "cluster-1-7" {
			t.Errorf("%s: %+v, %v", what, done, err)
		}
	}
	if err := push("cluster-1-8", 2); !errors.Is(err, remote.ErrFenced) {
		t.Errorf("the former home is let in: %v", err)
	}
	if err := n1.agent().Filled(t.Context(), "home"); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("the former home says that it has all: %v", err)
	}
	if err := n2.agent().Filled(t.Context(), "home"); err != nil {
		t.Error(err)
	}
	if _, err := takeOver(confirmed); !errors.Is(err, client.ErrRequest) {
		t.Errorf("by its own home: %v", err)
	}

	// The register may be restored from a copy that was made before the home's epoch.
	n2.halt()
	n2.inEpoch(t, at, 9)
	n2.start(t)
	until(t, "a register that has gone back is seen", func() error {
		if _, checks := n1.volume(t); !slices.Contains(checks, "CONTROL_ROLLED_BACK") {
			return fmt.Errorf("checks: %q", checks)
		}
		return nil
	})
	var again client.Takeover
	until(t, "n2 has it again", func() (err error) {
		again, err = takeOver(client.TakeoverRequest{Store: filepath.Join(t.TempDir(), "other")})
		return err
	})
	if is := again.Volume; !again.Done || is.Epoch != 10 || is.Home != "n2" || is.Store != at || is.From != nil || !slices.Equal(is.Vaults, []string{"n1"}) {
		t.Errorf("what the home knows: %+v", again)
	}
	if is, checks := n1.volume(t); is.Epoch != 10 || is.Filling || slices.Contains(checks, "CONTROL_ROLLED_BACK") {
		t.Errorf("after it was said again: %+v, %q", is, checks)
	}
}

// inEpoch changes what a node that does not run remembers of the store.
func (m *machine) inEpoch(t *testing.T, dir string, epoch int64) {
	t.Helper()
	path := filepath.Join(string(m.dir), "volumes.json")
	b, err := os.ReadFile(path)
	records := make(map[string]home.Record)
	if err == nil {
		err = json.Unmarshal(b, &records)
	}
	r, ok := records[dir]
	if err != nil || !ok {
		t.Fatalf("%s: %s, %v", path, b, err)
	}
	r.Volume.Epoch = epoch
	records[dir] = r
	if b, err = json.Marshal(records); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
