package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// ageSlack is how much older the newest snapshot may be than the forecast said: it was made before
// the machines were off.
const ageSlack = shownRPO + 2*time.Second

// A forecast is what cluster blast says of a volume.
type forecast struct {
	Volume string  `json:"volume"`
	Fate   string  `json:"fate"`
	Age    float64 `json:"age_s"`
	Copies int     `json:"copies"`
}

// runA6 kills each pair of six machines, and compares what cluster blast had said with what can be
// read then.
func runA6(ctx context.Context, t *trial) error {
	names := []string{"n1", "n2", "n3", "n4", "n5", "n6"}
	if err := t.newCluster(ctx, names...); err != nil {
		return err
	}
	if _, err := t.rig.nodes["n1"].quarxfs(ctx, "cluster", "settings", "--repair-after", "24h"); err != nil {
		return err
	}
	// Each machine writes a volume; some have no vault, some one, some two.
	wanted := make(map[string][]byte)
	for i, name := range names {
		volume, dir := "of-"+name, "/srv/of-"+name
		n := t.rig.nodes[name]
		if err := os.Mkdir(n.path(dir), 0o755); err != nil {
			return err
		}
		args := []string{"cluster", "volume", "create", volume, "--rpo", shownRPO.String(), "--mount", dir}
		var vaults []string
		for k := range i % 3 {
			vaults = append(vaults, names[(i+1+k+t.rng.IntN(2))%len(names)])
		}
		vaults = slices.Compact(vaults)
		args = append(args, "--copies", fmt.Sprint(1+len(vaults)))
		if len(vaults) > 0 {
			args = append(args, "--vault", strings.Join(vaults, ","))
		}
		if _, err := n.quarxfs(ctx, args...); err != nil {
			return err
		}
		wanted[volume] = fmt.Appendf(nil, "written on %s, seed %d\n", name, t.result.Seed)
		if err := writeSynced(filepath.Join(n.path(dir), "file"), wanted[volume]); err != nil {
			return err
		}
	}
	compared := make(map[string]int) // by fate
	for a := range names {
		for b := a + 1; b < len(names); b++ {
			if err := t.killPair(ctx, names[a], names[b], wanted, compared); err != nil {
				return fmt.Errorf("%s and %s: %w", names[a], names[b], err)
			}
		}
	}
	t.result.Rounds++
	t.measured("pairs", len(names)*(len(names)-1)/2)
	t.measured("volumes compared, by what was said of them", compared)
	return nil
}

func (t *trial) killPair(ctx context.Context, a, b string, wanted map[string][]byte, compared map[string]int) error {
	pair := []*node{t.rig.nodes[a], t.rig.nodes[b]}
	living := t.rig.others(pair...)
	if err := t.allOnline(ctx); err != nil {
		return err
	}
	said, err := living[0].quarxfs(ctx, "cluster", "blast", a, b, "--json")
	if err != nil {
		return err
	}
	var blast struct {
		Losses []forecast `json:"losses"`
	}
	if err := json.Unmarshal([]byte(said), &blast); err != nil {
		return err
	}
	for _, n := range pair {
		if err := n.kill(); err != nil {
			return err
		}
	}
	killed := time.Now()
	really, err := t.reality(ctx, wanted, living)
	if err != nil {
		return err
	}
	wrong := 0
	for volume := range wanted {
		f := forecast{Volume: volume, Fate: "nothing"}
		if i := slices.IndexFunc(blast.Losses, func(l forecast) bool { return l.Volume == volume }); i >= 0 {
			f = blast.Losses[i]
		}
		compared[f.Fate]++
		if r := really[volume]; !r.is(f, killed) {
			wrong++
			t.fail("%s and %s: %s is %q by the forecast (%d copies, %.1f s), and really: at home %v, at vaults %v, %.1f s old",
				a, b, volume, f.Fate, f.Copies, f.Age, r.home, r.vaults, killed.Sub(r.newest).Seconds())
		}
	}
	t.say("%s and %s: %d of %d volumes are as it was said", a, b, len(wanted)-wrong, len(wanted))
	var starts []func() error
	for _, n := range pair {
		starts = append(starts, func() error { return t.reviveWithVolume(ctx, n) })
	}
	return together(starts...)
}

func (t *trial) reviveWithVolume(ctx context.Context, n *node) error {
	if err := t.revive(ctx, n); err != nil {
		return err
	}
	dir := "/srv/of-" + n.name
	if err := os.Mkdir(n.path(dir), 0o755); err != nil {
		return err
	}
	_, err := n.quarxfs(ctx, "mount", "/var/lib/quarxfs/node/volumes/of-"+n.name, dir)
	return err
}

// allOnline returns when each volume is mounted, and each of its vaults has a snapshot.
func (t *trial) allOnline(ctx context.Context) error {
	return t.rig.await(ctx, 3*time.Minute, "all volumes are well", func() error {
		s, _, err := t.rig.nodes["n1"].status(ctx)
		if err != nil {
			return err
		}
		for _, v := range s.Volumes {
			if v.Online == nil || !*v.Online || whole(v) != len(v.Vaults) {
				return fmt.Errorf("%+v", v)
			}
		}
		for _, n := range s.Nodes {
			if n.Version == nil {
				return fmt.Errorf("%s does not answer", n.Name)
			}
		}
		return nil
	})
}

// A reality is what can be read of a volume.
type reality struct {
	home   bool     // it is mounted, and its file can be read there
	vaults []string // that have a snapshot of it
	newest time.Time
}

// is tells whether the forecast was right.
func (r reality) is(f forecast, killed time.Time) bool {
	switch f.Fate {
	case "lost":
		return !r.home && len(r.vaults) == 0
	case "from a vault":
		return !r.home && len(r.vaults) == f.Copies && killed.Sub(r.newest).Seconds() <= f.Age+ageSlack.Seconds()
	case "with less copies":
		return r.home && len(r.vaults)+1 == f.Copies
	case "nothing":
		return r.home
	}
	return false
}

// reality looks at the machines that are on, each by itself: there may be no quorum.
func (t *trial) reality(ctx context.Context, wanted map[string][]byte, living []*node) (map[string]reality, error) {
	found := make(map[string]reality)
	for _, n := range living {
		s, _, err := n.status(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range s.Volumes {
			r := found[v.Name]
			if v.Name == "of-"+n.name {
				b, err := os.ReadFile(n.path("/srv/" + v.Name + "/file"))
				r.home = err == nil && slices.Equal(b, wanted[v.Name])
			}
			newest, err := newestAt(ctx, n, v)
			if err != nil {
				return nil, err
			}
			if !newest.IsZero() {
				r.vaults = append(r.vaults, n.name)
			}
			if newest.After(r.newest) {
				r.newest = newest
			}
			found[v.Name] = r
		}
	}
	return found, nil
}

// newestAt asks the machine's own vault for the volume's snapshots, as a takeover does.
func newestAt(ctx context.Context, n *node, v health.Volume) (newest time.Time, err error) {
	if !slices.Contains(vaultsOf(v), n.name) {
		return newest, nil
	}
	a := n.agent()
	defer a.Close()
	vault := a.Vault(n.name, v.ID, v.Epoch)
	defer vault.Close()
	err = vault.ListSnapshots(ctx, func(s remote.Snapshot) error {
		if s.Created.After(newest) {
			newest = s.Created
		}
		return nil
	})
	return newest, err
}
