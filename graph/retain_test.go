package graph

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/store/config"
)

// at makes a candidate from "2026-03-01 10:00 name tag,tag"; a name in capitals
// is held.
func at(t testing.TB, zone *time.Location, line string) Candidate {
	t.Helper()
	f := strings.Fields(line)
	created, err := time.ParseInLocation("2006-01-02 15:04", f[0]+" "+f[1], zone)
	if err != nil {
		t.Fatal(err)
	}
	c := Candidate{Name: f[2], Created: created, Held: strings.ToUpper(f[2]) == f[2]}
	if len(f) > 3 {
		c.Tags = strings.Split(f[3], ",")
	}
	return c
}

func TestRetain(t *testing.T) {
	month := []string{
		"2026-03-01 10:00 a", "2026-03-01 10:30 b", "2026-03-01 11:00 c", "2026-03-02 09:00 d", "2026-03-08 23:59 e",
		"2026-03-09 00:00 f", "2026-04-01 00:00 g",
	}
	years := []string{"2023-06-01 00:00 a", "2023-07-01 00:00 b", "2024-01-01 00:00 c", "2024-12-30 00:00 d", "2025-01-01 00:00 e", "2026-01-01 00:00 f"}
	for _, x := range []struct {
		name      string
		policy    config.Retention
		snapshots []string
		want      string // those kept, newest first, with reasons
	}{
		{"nothing", config.Retention{}, month, ""},
		{"last", config.Retention{Last: 2}, month, "g:last f:last"},
		{"more than there are", config.Retention{Last: 100}, month[:2], "b:last a:last"},
		{"hourly", config.Retention{Hourly: 3}, month[:4], "d:hourly c:hourly b:hourly"},
		{"hourly with room", config.Retention{Hourly: 4}, month[:3], "c:hourly b:hourly a:oldest,hourly"},
		{"daily", config.Retention{Daily: 3}, month, "g:daily f:daily e:daily"},
		{"weekly, from Monday on", config.Retention{Weekly: 3}, month, "g:weekly f:weekly e:weekly"},
		{"monthly", config.Retention{Monthly: 1}, month, "g:monthly"},
		{"monthly with room", config.Retention{Monthly: 5}, month, "g:monthly f:monthly a:oldest,monthly"},
		{"yearly", config.Retention{Yearly: 3}, years, "f:yearly e:yearly d:yearly"},
		{"yearly without bound", config.Retention{Yearly: -1}, years, "f:yearly e:yearly d:yearly b:yearly a:oldest,yearly"},
		{"a week across years", config.Retention{Weekly: 2}, years, "f:weekly e:weekly"},
		{"all weeks", config.Retention{Weekly: -1}, years[3:5], "e:weekly d:oldest,weekly"},
		{"several rules", config.Retention{Last: 1, Daily: 2}, month[:4], "d:last,daily c:daily"},
		{"tags", config.Retention{Tags: []string{"keep", "gold"}}, []string{"2026-01-01 00:00 a keep,x", "2026-01-02 00:00 b x", "2026-01-03 00:00 c gold"}, "c:tag-gold a:tag-keep"},
		{"hold", config.Retention{Last: 1}, []string{"2026-01-01 00:00 A", "2026-01-02 00:00 b", "2026-01-03 00:00 c"}, "c:last A:hold"},
		{"the same time", config.Retention{Last: 1}, []string{"2026-01-01 00:00 a", "2026-01-01 00:00 b"}, "b:last"},
		{"none there", config.Retention{Last: 1}, nil, ""},
	} {
		var candidates []Candidate
		for _, line := range x.snapshots {
			candidates = append(candidates, at(t, time.UTC, line))
		}
		var kept []string
		for _, v := range Retain(x.policy, candidates) {
			if v.Keep {
				reasons := strings.ReplaceAll(strings.Join(v.Reasons, ","), ", ", ",")
				kept = append(kept, v.Name+":"+strings.ReplaceAll(reasons, " ", "-"))
			}
		}
		if diff := cmp.Diff(x.want, strings.Join(kept, " ")); diff != "" {
			t.Errorf("%s: %s", x.name, diff)
		}
	}
}

// The hour that a clock goes back over is two hours.
func TestRetainSummerTime(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC) // 02:30 +0200
	var c []Candidate
	for i := range 2 {
		c = append(c, Candidate{Name: fmt.Sprint(i), Created: first.Add(time.Duration(i) * time.Hour).In(zone)})
	}
	c = append(c, Candidate{Name: "old", Created: first.Add(-48 * time.Hour).In(zone)})
	kept := 0
	for _, v := range Retain(config.Retention{Hourly: 2}, c) {
		if v.Keep {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("kept %d", kept)
	}
}

// What was kept is kept again, a policy with more keeps no less, and the newest
// always stays.
func TestRetainLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Date(2024, 12, 25, 0, 0, 0, 0, time.UTC)
		var c []Candidate
		for i := range rapid.IntRange(1, 60).Draw(rt, "snapshots") {
			hours := rapid.IntRange(0, 20_000).Draw(rt, "hours")
			c = append(c, Candidate{Name: fmt.Sprint(i), Created: start.Add(time.Duration(hours) * time.Hour)})
		}
		n := rapid.IntRange(-1, 4)
		p := config.Retention{
			Last: n.Draw(rt, "last"), Hourly: n.Draw(rt, "hourly"), Daily: n.Draw(rt, "daily"),
			Weekly: n.Draw(rt, "weekly"), Monthly: n.Draw(rt, "monthly"), Yearly: n.Draw(rt, "yearly"),
		}
		keep := func(p config.Retention, c []Candidate) map[string]bool {
			names := make(map[string]bool)
			for _, v := range Retain(p, c) {
				if v.Keep {
					names[v.Name] = true
				}
			}
			return names
		}
		kept := keep(p, c)
		var left []Candidate
		newest := c[0]
		for _, x := range c {
			if kept[x.Name] {
				left = append(left, x)
			}
			if x.Created.After(newest.Created) || x.Created.Equal(newest.Created) && x.Name > newest.Name {
				newest = x
			}
		}
		if again := keep(p, left); len(again) != len(kept) {
			rt.Errorf("kept %d of %d, then %d", len(kept), len(c), len(again))
		}
		if !p.Empty() && !kept[newest.Name] {
			rt.Errorf("the newest goes")
		}
		more := p
		if more.Daily >= 0 {
			more.Daily++
		}
		for name := range kept {
			if !keep(more, c)[name] {
				rt.Errorf("with one day more %s goes", name)
			}
		}
	})
}
