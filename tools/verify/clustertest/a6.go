package main

import (
	"context"
	"encoding/json"
	"errors"
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
	for volume, content := range wanted {
		f := forecast{Volume: volume, Fate: "nothing"}
		if i := slices.IndexFunc(blast.Losses, func(l forecast) bool { return l.Volume == volume }); i >= 0 {
			f = blast.Losses[i]
		}
		compared[f.Fate]++
		r, err := t.reality(ctx, volume, content, living)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s and %s: %s is %q by the forecast (%d copies, %.1f s), and really %+v", a, b, volume, f.Fate, f.Copies, f.Age, r)
		switch f.Fate {
		case "lost":
			t.require(!r.home && len(r.vaults) == 0, "%s", text)
		case "from a vault":
			t.require(!r.home && len(r.vaults) == f.Copies && r.age <= f.Age+ageSlack.Seconds()+time.Since(r.asked).Seconds()+r.since, "%s", text)
		case "with less copies":
			t.require(r.home && len(r.vaults)+1 == f.Copies, "%s", text)
		case "nothing":
			t.require(r.home, "%s", text)
		default:
			t.fail("%s", text)
		}
	}
	t.say("%s and %s: %d volumes as it was said", a, b, len(wanted))
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
	age    float64  // of the newest, in seconds, when it was looked
	since  float64
	asked  time.Time
}

// reality looks at the machines that are on, each by itself: there may be no quorum.
func (t *trial) reality(ctx context.Context, volume string, content []byte, living []*node) (r reality, err error) {
	r.asked = time.Now()
	var newest time.Time
	for _, n := range living {
		if volume == "of-"+n.name {
			b, err := os.ReadFile(n.path("/srv/" + volume + "/file"))
			r.home = err == nil && slices.Equal(b, content)
		}
		a := n.agent()
		s, err := a.Status(ctx)
		if err != nil {
			return r, err
		}
		i := slices.IndexFunc(s.Volumes, func(v health.Volume) bool { return v.Name == volume })
		if i < 0 {
			return r, errors.New(n.name + " has forgotten " + volume)
		}
		if c, err := newestAt(ctx, n, s.Volumes[i]); err != nil {
			return r, err
		} else if !c.IsZero() {
			r.vaults = append(r.vaults, n.name)
			if c.After(newest) {
				newest = c
			}
		}
		a.Close()
	}
	if !newest.IsZero() {
		r.age = time.Since(newest).Seconds()
	}
	return r, nil
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
