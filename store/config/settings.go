package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

// Settings are what can be changed in a store's life; zero values are the
// defaults. What a field points to is never changed, only replaced.
type Settings struct {
	Snapshots SnapshotSchedule `json:"snapshots,omitzero"`
	Remotes   []Remote         `json:"remotes,omitempty"` // in order of their names
	Tiers     tiering.Policy   `json:"tiers,omitzero"`
}

// Validate reports the first setting that cannot be: ErrConfig.
func (s Settings) Validate() error {
	return errors.Join(s.Snapshots.Validate(), ValidTiers(s.Tiers), validRemotes(s.Remotes))
}

// ValidTiers reports a policy that cannot be: ErrConfig.
func ValidTiers(p tiering.Policy) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errs.ErrConfig, err)
	}
	return nil
}

// A SnapshotSchedule says how often a mounted store makes a snapshot by itself,
// and which of these stay.
type SnapshotSchedule struct {
	Seconds int64     `json:"every_seconds"` // between two; 0: none are made
	Keep    Retention `json:"keep,omitzero"` // empty: all stay
}

// Every returns the time between two snapshots; 0: none are made.
func (s SnapshotSchedule) Every() time.Duration { return time.Duration(s.Seconds) * time.Second }

const longestSchedule = 10 * 365 * 24 * 3600 // seconds

// Validate reports a schedule that cannot be: ErrConfig.
func (s SnapshotSchedule) Validate() error {
	if s.Seconds < 0 || s.Seconds > longestSchedule {
		return fmt.Errorf("%w: a snapshot every %d seconds: choose 1s to 10 years", errs.ErrConfig, s.Seconds)
	}
	if s.Seconds == 0 && !s.Keep.Empty() {
		return fmt.Errorf("%w: there are snapshots to keep and none are made: say how often", errs.ErrConfig)
	}
	return s.Keep.Validate()
}

// A Retention says which snapshots stay. Each number keeps the newest snapshot
// of so many of the last hours, days, weeks, months or years that have one, Last
// the newest of all; negative numbers mean all. A snapshot that any rule keeps
// stays.
type Retention struct {
	Last    int      `json:"last,omitempty"`
	Hourly  int      `json:"hourly,omitempty"`
	Daily   int      `json:"daily,omitempty"`
	Weekly  int      `json:"weekly,omitempty"` // weeks of ISO 8601, from Monday
	Monthly int      `json:"monthly,omitempty"`
	Yearly  int      `json:"yearly,omitempty"`
	Tags    []string `json:"tags,omitempty"` // all snapshots with any of these
}

// Empty reports whether there is no rule. It would keep nothing; callers
// refuse it.
func (r Retention) Empty() bool {
	return cmp.Or(r.Last, r.Hourly, r.Daily, r.Weekly, r.Monthly, r.Yearly, len(r.Tags)) == 0
}

// Validate reports rules that cannot be: ErrConfig.
func (r Retention) Validate() error {
	for _, n := range []int{r.Last, r.Hourly, r.Daily, r.Weekly, r.Monthly, r.Yearly} {
		if n > math.MaxInt32 || n < math.MinInt32 {
			return fmt.Errorf("%w: %d snapshots to keep", errs.ErrConfig, n)
		}
	}
	for _, tag := range r.Tags {
		if tag == "" || len(tag) > 255 || !utf8.ValidString(tag) {
			return fmt.Errorf("%w: no snapshot can have the tag %q", errs.ErrConfig, tag)
		}
	}
	return nil
}

// settingsFile is the content of settings.json; docs/format/settings.md
// describes it.
type settingsFile struct {
	Head
	Settings
	Sum
}

var settingsKind = File{Name: "settings.json", Magic: "quarxfs settings", Version: 1, Strange: errs.ErrDamaged,
	Next: "put it back from a copy, or remove it to have the defaults again"}

// KeptSettings says that settings.json has a row.
func KeptSettings() Kept { return Kept{settingsKind, func() Content { return new(settingsFile) }} }

// Current is what is set in an open store.
type Current struct {
	files *Files

	mu      sync.Mutex // held over the writing of settings.json
	now     Settings
	err     error         // why the file cannot be used
	changed chan struct{} // closed at the next change
}

// LoadSettings reads what is set. A file that cannot be used keeps nobody from anything but
// changing it: the store's data do not depend on it.
func LoadSettings(f *Files) *Current {
	c := &Current{files: f, changed: make(chan struct{})}
	if c.now, c.err = f.settings(); c.err != nil {
		f.Log.Error("the store's settings cannot be used", "err", c.err)
	}
	return c
}

// settings returns the defaults when there is no file. ErrNewer, ErrDamaged.
func (f *Files) settings() (Settings, error) {
	var file settingsFile
	err := f.Read(KeptSettings(), &file)
	if errors.Is(err, os.ErrNotExist) {
		return Settings{}, nil
	}
	if err == nil && file.Settings.Validate() != nil {
		err = settingsKind.Damaged("has settings that cannot be (%v)", file.Settings.Validate())
	}
	if err != nil {
		return Settings{}, fmt.Errorf("%w; the defaults count until the file is removed", err)
	}
	return file.Settings, nil
}

// Settings returns what is set now, and a channel that is closed when that
// changes. With an error, ErrNewer or ErrDamaged, they are the defaults.
func (c *Current) Settings() (now Settings, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, c.changed, c.err
}

// ChangeSettings has fn change the settings, and makes that durable. Errors:
// fn's; ErrConfig; ErrNewer or ErrDamaged, when what there is cannot be read.
func (c *Current) ChangeSettings(fn func(*Settings) error) error {
	if c.files.ReadOnly {
		return errs.ErrReadOnly
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	f := settingsFile{Settings: c.now}
	err := fn(&f.Settings)
	if err == nil {
		err = f.Validate()
	}
	if err == nil {
		err = c.files.Keep(settingsKind, &f)
	}
	if err != nil {
		return fmt.Errorf("change settings: %w", err)
	}
	c.now = f.Settings
	// Whoever has seen the old channel looks again, and finds the new settings: the lock is held.
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}
