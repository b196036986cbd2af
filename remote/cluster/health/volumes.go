package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

// A Volume is what is shown of one; null is unknown.
type Volume struct {
	Name       string       `json:"name"`
	ID         string       `json:"id"`
	Domain     string       `json:"domain"`
	Epoch      int64        `json:"epoch"`
	Home       string       `json:"home"`
	Store      string       `json:"store"`
	Online     *bool        `json:"online"` // a daemon has it open there
	Mountpoint string       `json:"mountpoint"`
	Bytes      *int64       `json:"bytes"` // that its blocks take at home
	RPO        int64        `json:"rpo_s"`
	Copies     int          `json:"copies"`    // wanted, with the home's own
	Protected  *bool        `json:"protected"` // a mirror is in sync, or a vault has a snapshot that is no older than the RPO
	Lag        *float64     `json:"lag_s"`     // age of the newest snapshot at a vault that answered
	Filling    bool         `json:"filling"`   // its new home does not have all of it yet
	Vaults     []VolumeCopy `json:"vaults"`
	Mirrors    []Mirror     `json:"mirrors,omitempty"` // none: it has no such copies
}

// A Mirror is a node that is to have each commit before it is acknowledged.
type Mirror struct {
	Node   string `json:"node"`
	InSync bool   `json:"in_sync"` // it has all that is acknowledged; false: it was left behind, or is being made
}

// A VolumeCopy is what a vault has of a volume.
type VolumeCopy struct {
	Node     string     `json:"node"`
	Answered bool       `json:"answered"`
	Verified *time.Time `json:"verified"`  // when it has looked, by its own clock; null: it did not answer
	Newest   *Snapshot  `json:"newest"`    // null: none, or unknown
	Number   *int       `json:"snapshots"` // how many it has, those of users among them; null: unknown
	Age      *float64   `json:"age_s"`     // of the newest; null: none, unknown, or from the future
	Error    string     `json:"error"`     // of the vault, or of the last push
}

// showVolumes puts together what the register, the homes and the vaults say.
func showVolumes(f Facts) []Volume {
	shown := []Volume{}
	for _, v := range f.Volumes {
		s := Volume{
			Name: v.Name, ID: v.ID, Domain: v.Domain, Epoch: v.Epoch, Home: v.Home, Store: v.Store, RPO: v.RPO, Copies: v.Copies,
			Filling: v.From != nil, Vaults: []VolumeCopy{},
		}
		for _, name := range v.Mirrored.Nodes() {
			s.Mirrors = append(s.Mirrors, Mirror{name, v.Mirrored.HasSync(name)})
		}
		home := f.HomeOf(v)
		if home != nil {
			s.Mountpoint = home.Mountpoint
			if !home.Hangs {
				s.Online = &home.Online
			}
			if home.Online {
				s.Bytes = &home.Bytes
			}
		} else if n := f.NodeOf(v.Home); n == nil || n.Said != nil || !n.Up && f.NoVote == nil {
			// The node is known to be down, or it answers and knows nothing of the volume.
			no := false
			s.Online = &no
		}
		silent := false
		for _, name := range v.Vaults {
			c := f.copyAt(v, name, home)
			silent = silent || !c.Answered
			if c.Age != nil && (s.Lag == nil || *c.Age < *s.Lag) {
				s.Lag = c.Age
			}
			s.Vaults = append(s.Vaults, c)
		}
		good := s.mirrored() || s.Lag != nil && *s.Lag <= float64(v.RPO)
		if good || !silent {
			s.Protected = &good
		}
		shown = append(shown, s)
	}
	return shown
}

func (f Facts) copyAt(v cluster.Volume, name string, home *Home) VolumeCopy {
	c := VolumeCopy{Node: name}
	if home != nil {
		for _, p := range home.Pushes {
			if p.Vault == name {
				c.Error = p.Error
			}
		}
	}
	has, answered := f.CopyOf(v, name)
	if !answered {
		return c
	}
	c.Answered, c.Verified = true, &f.NodeOf(name).Said.Time
	if has == nil {
		return c
	}
	if has.Error != "" {
		c.Answered, c.Error = false, has.Error // it could not look
		return c
	}
	c.Number = &has.Snapshots
	if c.Newest = has.Newest; c.Newest == nil {
		return c
	}
	// A snapshot from the future says nothing of its age; CLOCK_OFF says why.
	if age := f.AsOf.Sub(c.Newest.Created); age > -mostSkew {
		seconds := max(0, age.Seconds())
		c.Age = &seconds
	}
	return c
}

// volumes judges each of those that are shown.
func volumes(f Facts, shown []Volume) (checks []Check) {
	for _, v := range shown {
		checks = append(checks, v.atHome(f)...)
		checks = append(checks, v.atVaults(f)...)
		checks = append(checks, v.atMirrors(f)...)
	}
	return append(checks, former(f)...)
}

func (v Volume) atHome(f Facts) []Check {
	n := f.NodeOf(v.Home)
	switch {
	case v.Filling:
		return []Check{{
			Code: "VOLUME_FILLING", Level: Err, Subjects: []string{v.Name},
			Text: fmt.Sprintf("%s is not whole on its new home %s yet", v.Name, v.Home),
			Do:   "repeat there what has begun it: quarxfs cluster volume takeover " + v.Name,
		}}
	case v.Online == nil && n != nil && n.Said != nil:
		return []Check{{
			Code: "VOLUME_UNKNOWN", Level: Warn, Subjects: []string{v.Name},
			Text: fmt.Sprintf("whether %s can be used is not known: its daemon, or its disk, on %s does not answer", v.Name, v.Home),
			Do:   fmt.Sprintf("see to the disk of %s, and to the daemon that has %s", v.Home, v.Store),
		}}
	case v.Online == nil || *v.Online:
		return nil // VIEW_PARTIAL says that the home did not answer
	case n == nil || !n.Up:
		return []Check{{
			Code: "VOLUME_OFFLINE", Level: Err, Subjects: []string{v.Name}, Since: sinceDown(n),
			Text: fmt.Sprintf("%s cannot be used: its home %s is down", v.Name, v.Home),
			Do:   fmt.Sprintf("start %s; if it does not come back, quarxfs cluster volume takeover %s on another node", v.Home, v.Name),
		}}
	}
	return []Check{{
		Code: "VOLUME_OFFLINE", Level: Warn, Subjects: []string{v.Name},
		Text: fmt.Sprintf("%s is not mounted on its home %s, and no snapshots are made", v.Name, v.Home),
		Do:   fmt.Sprintf("on %s: quarxfs mount %s DIRECTORY", v.Home, v.Store),
	}}
}

func sinceDown(n *NodeFacts) *time.Time {
	if n == nil {
		return nil
	}
	return n.DownSince
}

// atVaults says how well the volume is protected, and why not better.
func (v Volume) atVaults(f Facts) (checks []Check) {
	answered, any := 0, false
	var why []string
	for _, c := range v.Vaults {
		if c.Answered {
			answered++
		}
		any = any || c.Newest != nil
		if c.Error != "" {
			why = append(why, c.Node+": "+strings.ReplaceAll(c.Error, "\n", "; "))
		}
	}
	if len(why) > 0 {
		why = append([]string{""}, why...)
	}
	because := strings.Join(why, ". ")
	do := "see quarxfs cluster where " + v.Name + ", and agent.log on " + v.Home
	// "None has it" needs an answer of each: one that is silent may have it.
	switch {
	case len(v.Vaults) == 0 && v.mirrored(): // it is wanted so
	case answered == len(v.Vaults) && !any:
		on := v.Home
		if v.mirrored() {
			on += " and its mirrors"
		}
		checks = append(checks, Check{
			Code: "VOLUME_UNPROTECTED", Level: Warn, Subjects: []string{v.Name},
			Text: v.Name + " is on " + on + " alone: no vault has a snapshot of it" + because, Do: do,
		})
	case answered == 0 && len(v.Vaults) > 0:
		checks = append(checks, Check{
			Code: "VOLUME_UNKNOWN", Level: Warn, Subjects: []string{v.Name},
			Text: "no vault of " + v.Name + " says what it has" + because, Do: "see to " + strings.Join(v.VaultNames(), ", "),
		})
	case v.Protected == nil || !*v.Protected:
		old := "the newest snapshot is from the future, by the clock of " + v.Home
		if v.Lag != nil {
			old = fmt.Sprintf("its newest snapshot at a vault is %v old", time.Duration(*v.Lag*float64(time.Second)).Round(time.Second))
		}
		checks = append(checks, Check{
			Code: "VOLUME_LAGGING", Level: Warn, Subjects: []string{v.Name},
			Text: fmt.Sprintf("%s: %s, and may be %v%s", v.Name, old, time.Duration(v.RPO)*time.Second, because), Do: do,
		})
	case len(why) > 0:
		checks = append(checks, Check{
			Code: "VOLUME_LAGGING", Level: Warn, Subjects: []string{v.Name},
			Text: v.Name + ": not all of its snapshots reach their vaults" + because, Do: do,
		})
	}
	checks = append(checks, v.missing(f)...)
	if n := f.NodeOf(v.Home); n != nil && n.Zone != "" && len(v.Vaults) > 0 && !slices.ContainsFunc(v.Vaults, func(c VolumeCopy) bool {
		other := f.NodeOf(c.Node)
		return other == nil || other.Zone != n.Zone
	}) {
		checks = append(checks, Check{
			Code: "ZONE_SHARED", Level: Warn, Subjects: []string{v.Name},
			Text: fmt.Sprintf("all copies of %s are in zone %s", v.Name, n.Zone),
			Do:   "quarxfs cluster volume vault " + v.Name + " --add a node of another zone",
		})
	}
	return checks
}

// mirrored reports whether a mirror has all that is acknowledged.
func (v Volume) mirrored() bool {
	return slices.ContainsFunc(v.Mirrors, func(m Mirror) bool { return m.InSync })
}

// atMirrors names those that lack what is acknowledged. The register says so before anything is
// acknowledged without them; without a register nothing is known.
func (v Volume) atMirrors(f Facts) (checks []Check) {
	for _, m := range v.Mirrors {
		if m.InSync || f.NoVote != nil {
			continue
		}
		checks = append(checks, Check{
			Code: "MIRROR_BEHIND", Level: Warn, Subjects: []string{v.Name, m.Node},
			Text: fmt.Sprintf("%s lacks commits of %s that are acknowledged: it cannot take it over without loss", m.Node, v.Name),
			Do:   fmt.Sprintf("start %s; it is brought up to date by itself while %s is mounted on %s", m.Node, v.Name, v.Home),
		})
	}
	return checks
}

// VaultNames are the nodes that are to have its snapshots.
func (v Volume) VaultNames() (names []string) {
	for _, c := range v.Vaults {
		names = append(names, c.Node)
	}
	return names
}

// bad counts the blocks of a node's vault that are missing or damaged.
func (a *Answer) bad() (sum int64) {
	stores := make(map[string]int64) // of domains: several volumes tell of each
	for _, c := range a.Copies {
		stores[c.Domain] = c.Bad
	}
	for _, count := range stores {
		sum += count
	}
	return sum
}

// former is about stores that are not written any more, vaults with damage, and a register that is
// older than what the nodes know.
func former(f Facts) (checks []Check) {
	for _, n := range f.Nodes {
		if n.Said == nil {
			continue
		}
		if bad := n.Said.bad(); bad > 0 {
			checks = append(checks, Check{
				Code: "BAD_BLOCKS", Level: Err, Subjects: []string{n.Name},
				Text: fmt.Sprintf("%d blocks of the vault on %s are missing or damaged", bad, n.Name),
				Do:   "see to the disk of " + n.Name + "; what the homes still have comes again with the next snapshots",
			})
		}
		for _, h := range n.Said.Homes {
			if h.FencedBy == "" {
				continue // it writes the volume, and atHome says how that is
			}
			saved := "it is saved at no vault yet; mount it there to have that done"
			if h.Saved != "" {
				saved = "what it has is saved at a vault as snapshot " + h.Saved
			}
			mounted := ""
			if h.Mountpoint != "" {
				mounted = "quarxfs umount " + h.Mountpoint + "; "
			}
			checks = append(checks, Check{
				Code: "VOLUME_FENCED", Level: Warn, Subjects: []string{h.Volume, n.Name},
				Text: fmt.Sprintf("%s on %s, in %s, is of epoch %d: %s writes the volume now. Nothing of it is lost, and %s",
					h.Volume, n.Name, h.Store, h.Epoch, h.FencedBy, saved),
				Do: fmt.Sprintf("on %s: %scompare, then quarxfs cluster volume forget %s", n.Name, mounted, h.Volume),
			})
		}
	}
	if names := f.Ahead(); len(names) > 0 || f.GoneBack {
		checks = append(checks, Check{
			Code: "CONTROL_ROLLED_BACK", Level: Err, Subjects: names,
			Text: "the register is older than what the nodes have done, as after it was restored from a copy: " +
				cmp.Or(strings.Join(names, ", "), "nodes have seen a later revision"),
			Do: "quarxfs cluster rebuild, which brings it to what the nodes know",
		})
	}
	return checks
}

// Ahead returns the volumes of which nodes have seen a later epoch than the register, or which it
// does not have: it is older than what was acted upon. Without the register nothing can be said.
func (f Facts) Ahead() (names []string) {
	if f.NoVote != nil {
		return nil
	}
	epochs := make(map[string]int64)
	for _, v := range f.Volumes {
		epochs[v.ID] = v.Epoch
	}
	// By ID and not by name: a volume that was made anew under a name has epochs of its own.
	ahead := func(volume, id string, epoch int64) {
		if is, ok := epochs[id]; !ok || epoch > is {
			names = append(names, volume)
		}
	}
	for _, n := range f.Nodes {
		if n.Said == nil {
			continue
		}
		for _, c := range n.Said.Copies {
			ahead(c.Volume, c.ID, c.Epoch)
		}
		for _, h := range n.Said.Homes {
			ahead(h.Volume, h.ID, h.Epoch)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
