package tiering

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A Policy says when blocks are moved by themselves. The zero Policy moves
// nothing; other zero fields mean the defaults given.
type Policy struct {
	Limit  int64  `json:"limit_bytes"`              // most bytes of the hot tier; 0: there is no policy
	High   int    `json:"high_percent,omitempty"`   // of Limit: blocks go to the cold tier from here on; 90
	Low    int    `json:"low_percent,omitempty"`    // of Limit: until so much is left; 80
	MinAge int64  `json:"min_age_seconds"`          // blocks stored or warm later stay; negative: none does; an hour
	Window int64  `json:"window_seconds,omitempty"` // a block used twice within is warm, and comes back; a day
	Rate   int64  `json:"rate_bytes,omitempty"`     // most bytes moved a second; 32 MiB
	Hours  string `json:"hours,omitempty"`          // of the day, local time, such as 22:00-06:00; always
	Paused bool   `json:"paused,omitempty"`
	Busy   bool   `json:"when_busy,omitempty"` // blocks are moved even when the machine is busy
}

// ErrPolicy: a policy that cannot be.
var ErrPolicy = errors.New("bad tier policy")

// On reports whether blocks are moved at all.
func (p Policy) On() bool { return p.Limit > 0 }

// WithDefaults returns the policy with all that is left open filled in.
func (p Policy) WithDefaults() Policy {
	if !p.On() {
		return p
	}
	set := func(v *int64, to int64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&p.MinAge, 3600)
	set(&p.Window, 24*3600)
	set(&p.Rate, 32<<20)
	if p.High == 0 {
		p.High = 90
	}
	if p.Low == 0 {
		// Never over the high one, which may have been set lower than the default.
		p.Low = min(80, p.High)
	}
	return p
}

// maxSeconds bounds ages and windows: ten years.
const maxSeconds = 10 * 365 * 24 * 3600

// size shows an amount of bytes.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Validate reports the first field that cannot be: ErrPolicy.
func (p Policy) Validate() error {
	if p == (Policy{}) {
		return nil
	}
	d := p.WithDefaults()
	switch {
	case p.Limit <= 0:
		return fmt.Errorf("%w: say how much the hot tier may hold", ErrPolicy)
	case d.Low < 1 || d.High > 100 || d.Low > d.High:
		return fmt.Errorf("%w: watermarks of %d and %d per cent: choose 1 <= low <= high <= 100", ErrPolicy, d.Low, d.High)
	case p.MinAge > maxSeconds || p.Window < 0 || p.Window > maxSeconds:
		return fmt.Errorf("%w: an age of %d or a window of %d seconds: choose up to ten years", ErrPolicy, p.MinAge, p.Window)
	case d.Rate < 64<<10:
		return fmt.Errorf("%w: a rate of %s a second: choose 64 KiB or more", ErrPolicy, size(p.Rate))
	}
	_, _, err := p.span()
	return err
}

// span returns the minutes of the day between which blocks are moved; equal:
// always.
func (p Policy) span() (from, to int, err error) {
	if p.Hours == "" {
		return 0, 0, nil
	}
	a, b, ok := strings.Cut(p.Hours, "-")
	t, err1 := time.Parse("15:04", a)
	u, err2 := time.Parse("15:04", b)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("%w: hours %q: write them like 22:00-06:00", ErrPolicy, p.Hours)
	}
	return t.Hour()*60 + t.Minute(), u.Hour()*60 + u.Minute(), nil
}

// Open reports whether blocks may be moved at a time of day.
func (p Policy) Open(now time.Time) bool {
	from, to, err := p.span()
	m := now.Hour()*60 + now.Minute()
	switch {
	case err != nil:
		return false
	case from == to:
		return true
	case from < to:
		return from <= m && m < to
	}
	return m >= from || m < to
}

// A Census sums up what could leave the hot tier, in bounded memory: bytes of
// records by how cold they are. A block's score is the time at which it was
// stored or, if that is later, at which its heat is 1.
type Census struct {
	Old    [coldness]int64 // bytes that are older than the minimum age
	Young  [coldness]int64 // bytes that are not
	Pinned int64
}

// coldness is how many classes of cold there are, the coldest first. Each is 19 %
// wider than the one before: seconds around now, months in years.
const coldness = 257

// Coldness returns the class of a score. The order of classes is that of scores.
func Coldness(now, score uint32) int {
	d := float64(now) - float64(score)
	l := int(4 * math.Log2(1+math.Abs(d)))
	if d < 0 {
		l = -l
	}
	return max(0, min(coldness-1, coldness/2-l))
}

// Add counts a block of so many bytes.
func (c *Census) Add(class int, young bool, bytes int64) {
	if young {
		c.Young[class] += bytes
	} else {
		c.Old[class] += bytes
	}
}

// A Usage is what a plan is made from.
type Usage struct {
	Now    time.Time
	Live   int64  // bytes of records in use in the hot tier
	Files  int64  // bytes of its segments
	Cold   string // why nothing can be moved to the cold tier; "": it can be
	Census Census
}

// A Plan says what to move, and why.
type Plan struct {
	Demote  int64    `json:"demote_bytes"`     // of records
	Class   int      `json:"-"`                // up to which they are cold enough
	Urgent  bool     `json:"urgent,omitempty"` // over the limit: now, at full speed, and young blocks too
	Compact bool     `json:"tidy,omitempty"`   // segments with garbage take the room: compact them
	Short   bool     `json:"short,omitempty"`  // over the limit, and no more can be moved
	Why     []string `json:"why"`
}

func (p *Plan) because(format string, args ...any) {
	p.Why = append(p.Why, fmt.Sprintf(format, args...))
}

// mark is a share of the limit, in bytes.
func (p Policy) mark(percent int) int64 { return int64(float64(p.Limit) / 100 * float64(percent)) }

// Due reports whether so much in the hot tier asks for a census.
func (p Policy) Due(live, files int64) bool { return p.On() && max(live, files) >= p.mark(p.High) }

// Plan says what is to be moved to the cold tier. It is a function of its
// arguments alone.
func (p Policy) Plan(u Usage) (plan Plan) {
	p = p.WithDefaults()
	if !p.On() {
		plan.because("there is no policy")
		return plan
	}
	// Urgent only if moving would help: what the files take beyond live bytes is for compaction.
	plan.Urgent = u.Files >= p.Limit && u.Live >= p.mark(p.Low)
	plan.Compact = u.Files >= p.mark(p.High)
	switch {
	case !p.Due(u.Live, u.Files):
		plan.because("the hot tier has %s in use, less than %d %% of %s", size(u.Live), p.High, size(p.Limit))
		return plan
	// Before what the user has set: where nothing can be moved to, no hour is the right one.
	case u.Cold != "":
		plan.because("nothing is moved: %s", u.Cold)
		plan.Short = u.Files >= p.Limit
		return plan
	case u.Live < p.mark(p.High) && !plan.Urgent:
		plan.because("%d bytes are in use of the %d that segments take: they are compacted", u.Live, u.Files)
		return plan
	case p.Paused && !plan.Urgent:
		plan.because("moving is paused")
		return plan
	case !plan.Urgent && !p.Open(u.Now):
		plan.because("it is not between %s", p.Hours)
		return plan
	}
	// Down to the low mark in one go, or each new block would start another move.
	need := u.Live - p.mark(p.Low)
	plan.because("the hot tier has %s in use: %s leave to come to %d %% of %s", size(u.Live), size(need), p.Low, size(p.Limit))
	plan.choose(p, &u.Census, need)
	return plan
}

// choose finds the class down to which the coldest blocks make up need bytes.
func (plan *Plan) choose(p Policy, c *Census, need int64) {
	plan.Class = -1
	for class := range coldness {
		here := c.Old[class]
		if plan.Urgent {
			here += c.Young[class]
		}
		// Classes come coldest first, so the last one that is needed is the warmest that leaves.
		if here == 0 || plan.Demote >= need {
			continue
		}
		plan.Demote, plan.Class = min(need, plan.Demote+here), class
	}
	young := int64(0)
	for _, n := range c.Young {
		young += n
	}
	if plan.Urgent && young > 0 {
		plan.because("it is over its limit: the minimum age, the hours and the rate do not count now")
	} else if young > 0 {
		plan.because("%d bytes are younger than %v and stay", young, time.Duration(max(0, p.MinAge))*time.Second)
	}
	if c.Pinned > 0 {
		plan.because("%d bytes are pinned and stay", c.Pinned)
	}
	if plan.Demote < need {
		plan.because("only %d bytes can leave", plan.Demote)
		plan.Short = plan.Urgent && plan.Demote == 0
	}
}

// Welcome reports whether a cold block that is warm comes back: there is room
// below the low watermark, or the block is at least twice as hot as what would have to
// leave for so many bytes. That much keeps blocks of like heat from changing
// places for ever.
func (p Policy) Welcome(u *Usage, warm uint32, bytes int64) bool {
	p = p.WithDefaults()
	switch now := uint32(u.Now.Unix()); {
	case !p.On() || p.Paused || !p.Open(u.Now) || warm == 0:
		return false
	case u.Live+bytes <= p.mark(p.Low):
		return true
	case u.Live+bytes > p.mark((p.High+100)/2): // what is over the watermark leaves first
		return false
	default:
		double := warm - min(warm, uint32(p.Window)) // the same heat, halved
		left := u.Live + bytes - p.mark(p.Low)
		for class, n := range u.Census.Old {
			if left -= n; left <= 0 {
				return Coldness(now, double) > class
			}
		}
		return false
	}
}

// Young reports whether a block is to stay for its age: it was stored, or while
// warm used, less than the minimum age ago. One use in a scan does not make it young.
func Young(p Policy, now, stored, seen, warm uint32) bool {
	if p = p.WithDefaults(); p.MinAge < 0 {
		return false
	}
	last := stored
	if warm != 0 {
		last = max(last, seen)
	}
	return int64(now) < int64(last)+p.MinAge
}
