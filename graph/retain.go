package graph

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/store/config"
)

// A Candidate is a snapshot that a policy judges.
type Candidate struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"` // in the time zone whose hours and days count
	Tags    []string  `json:"tags,omitempty"`
	Held    bool      `json:"held"` // it stays whatever the policy says
}

// A Verdict says whether a snapshot stays, and why.
type Verdict struct {
	Candidate
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"` // rules that keep it, such as "daily"
}

// A rule keeps the newest snapshot of each of n periods; period names the one
// that a time is in.
type rule struct {
	name   string
	n      int
	period func(t time.Time, i int) string
	last   string
}

func rulesOf(p config.Retention) []rule {
	layout := func(l string) func(time.Time, int) string {
		return func(t time.Time, _ int) string { return t.Format(l) }
	}
	return []rule{
		{name: "last", n: p.Last, period: func(_ time.Time, i int) string { return fmt.Sprint(i) }},
		{name: "hourly", n: p.Hourly, period: layout("2006-01-02 15 -0700")},
		{name: "daily", n: p.Daily, period: layout("2006-01-02")},
		{name: "weekly", n: p.Weekly, period: func(t time.Time, _ int) string {
			year, week := t.ISOWeek()
			return fmt.Sprint(year, " ", week)
		}},
		{name: "monthly", n: p.Monthly, period: layout("2006-01")},
		{name: "yearly", n: p.Yearly, period: layout("2006")},
	}
}

// Retain judges snapshots by a policy and returns a verdict for each, the
// newest first; equal times are ordered by name. A rule that has room left when
// it comes to the oldest snapshot keeps that too, so that a long history does
// not start anew every year. It is a pure function of its arguments, and judges
// what it has kept as it did before.
func Retain(p config.Retention, snapshots []Candidate) []Verdict {
	verdicts := make([]Verdict, len(snapshots))
	for i, s := range snapshots {
		verdicts[i].Candidate = s
	}
	slices.SortStableFunc(verdicts, func(a, b Verdict) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Name, a.Name))
	})
	rules := rulesOf(p)
	// From the newest on: each rule keeps the newest snapshot of a period that it meets first.
	for i := range verdicts {
		v := &verdicts[i]
		for k := range rules {
			if why := rules[k].keeps(v.Created, i, i == len(verdicts)-1); why != "" {
				v.Reasons = append(v.Reasons, why)
			}
		}
		for _, tag := range p.Tags {
			if slices.Contains(v.Tags, tag) {
				v.Reasons = append(v.Reasons, "tag "+tag)
			}
		}
		if v.Held {
			v.Reasons = append(v.Reasons, "hold")
		}
		v.Keep = len(v.Reasons) > 0
	}
	return verdicts
}

func (r *rule) keeps(t time.Time, i int, oldest bool) (why string) {
	if r.n == 0 {
		return ""
	}
	period, name := r.period(t, i), r.name
	switch {
	case period != r.last:
		r.last = period
	case oldest:
		name = "oldest, " + name
	default:
		return ""
	}
	// Below 0 it has no bound and is never used up.
	if r.n > 0 {
		r.n--
	}
	return name
}
