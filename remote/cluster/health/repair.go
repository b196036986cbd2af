package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

// stallTime is how long a repair may go without progress.
const stallTime = 10 * time.Minute

// A Repair is a volume that lacks a copy.
type Repair struct {
	Volume  string     `json:"volume"`
	Node    string     `json:"node"`    // that gets the copy; empty: there is none to be had
	Why     string     `json:"why"`     // why it is wanted, or why it cannot be
	Since   time.Time  `json:"since"`   // when it became so
	Moved   *time.Time `json:"moved"`   // when bytes last went there; null: none have, or it is not known
	Sent    *int64     `json:"sent"`    // bytes; null: not known
	Stalled bool       `json:"stalled"` // nothing has happened for ten minutes
	Reason  string     `json:"reason"`  // what keeps it from going on; empty: nothing that is known
}

// showRepairs puts together what the controller has noted, and how far the homes say it is.
func showRepairs(f Facts) []Repair {
	shown := []Repair{}
	for _, noted := range f.Repairs {
		r := Repair{Volume: noted.Volume, Node: noted.Node, Why: noted.Why, Since: noted.Since, Reason: noted.Why}
		if r.Node != "" {
			r.progress(f)
		}
		last := r.Since
		if r.Moved != nil && r.Moved.After(last) {
			last = *r.Moved
		}
		r.Stalled = f.AsOf.Sub(last) >= stallTime
		shown = append(shown, r)
	}
	slices.SortFunc(shown, func(a, b Repair) int { return cmp.Compare(a.Volume, b.Volume) })
	return shown
}

// progress fills in how far the copy is, and what keeps it from going on.
func (r *Repair) progress(f Facts) {
	r.Reason = ""
	v := f.VolumeOf(r.Volume)
	if v == nil {
		return
	}
	home, n := f.HomeOf(*v), f.NodeOf(v.Home)
	switch {
	case n == nil || !n.Up:
		r.Reason = "its home " + v.Home + " is down"
	case home == nil:
		r.Reason = "its home " + v.Home + " does not say how far it is"
	case home.Hangs:
		r.Reason = "its daemon on its home " + v.Home + " does not answer"
	case !home.Online:
		r.Reason = "it is not mounted on its home " + v.Home
	}
	if home == nil {
		return
	}
	// The home's own word on the push is more than what is seen from here.
	for _, p := range home.Pushes {
		if p.Vault == r.Node {
			r.Sent, r.Moved = &p.Sent, p.Moved
			if p.Error != "" {
				r.Reason = strings.ReplaceAll(p.Error, "\n", "; ")
			}
		}
	}
}

// repairs are those that do not go on.
func repairs(shown []Repair) (checks []Check) {
	for _, r := range shown {
		if !r.Stalled {
			continue
		}
		since, to := r.Since, ""
		if r.Node != "" {
			to = " on " + r.Node
		}
		checks = append(checks, Check{
			Code: "REPAIR_STALLED", Level: Warn, Subjects: []string{r.Volume}, Since: &since,
			Text: fmt.Sprintf("the copy of %s that is wanted%s has made no progress for %v: %s", r.Volume, to, stallTime, cmp.Or(r.Reason, "nobody says why")),
			Do:   "see quarxfs cluster where " + r.Volume + "; let another machine join, or quarxfs cluster volume vault " + r.Volume + " --add NODE",
		})
	}
	return checks
}

// missing says that the volume has fewer vaults than it is to have, or that one of them is lost and
// nothing takes its place.
func (v Volume) missing(f Facts) []Check {
	stuck := f.stuck(v.Name)
	fewer := v.Copies-1 > len(v.Vaults)
	if !fewer && stuck == nil {
		return nil
	}
	c := Check{
		Code: "COPIES_MISSING", Level: Warn, Subjects: []string{v.Name},
		Text: v.Name + " lacks a copy",
		Do:   "let another machine join, or free space on one; the copy is made then",
	}
	if fewer {
		c.Text = fmt.Sprintf("%s has %d vaults, and is to have %d", v.Name, len(v.Vaults), v.Copies-1)
	}
	// Why nothing is done at all comes before why this one cannot be.
	switch {
	case f.Plan.Held != "":
		c.Text, c.Do = c.Text+": "+f.Plan.Held, "see to the nodes that are down; it is made as soon as that is over"
	case stuck != nil:
		c.Text, c.Since = c.Text+": "+stuck.Why, &stuck.Since
	}
	return []Check{c}
}

// repairBegins says when the copies of a node that is down are made anew.
func repairBegins(f Facts, node string, gone time.Duration) string {
	has := slices.ContainsFunc(f.Volumes, func(v cluster.Volume) bool { return slices.Contains(v.Vaults, node) })
	left := f.Cluster.RepairAfter() - gone
	if !has || left <= 0 {
		return ""
	}
	return fmt.Sprintf("; its copies are made anew in %v", left.Round(time.Second))
}

// room is about a death that could not be repaired.
func room(f Facts, _ Control) []Check {
	if f.Plan.NoRoom == "" {
		return nil
	}
	return []Check{{
		Code: "SPACE_LOW", Level: Warn, Subjects: append([]string{f.Plan.NoRoom}, f.Plan.NoRoomOf...),
		Text: fmt.Sprintf("if %s died, the other nodes had no room for its copies of %s", f.Plan.NoRoom, strings.Join(f.Plan.NoRoomOf, ", ")),
		Do:   "free some space, or let another machine join",
	}}
}
