package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
	"unicode/utf8"
)

// Settings are what can be changed in a store's life; zero values are the
// defaults. What a field points to is never changed, only replaced.
type Settings struct {
	Snapshots SnapshotSchedule `json:"snapshots,omitzero"`
	Remotes   []Remote         `json:"remotes,omitempty"` // in order of their names
	Tiers     TierPolicy       `json:"tiers,omitzero"`
}

// Validate reports the first setting that cannot be: ErrConfig.
func (s Settings) Validate() error {
	return errors.Join(s.Snapshots.Validate(), validTiers(s.Tiers), validRemotes(s.Remotes))
}

func validTiers(p TierPolicy) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
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
		return fmt.Errorf("%w: a snapshot every %d seconds: choose 1s to 10 years", ErrConfig, s.Seconds)
	}
	if s.Seconds == 0 && !s.Keep.Empty() {
		return fmt.Errorf("%w: there are snapshots to keep and none are made: say how often", ErrConfig)
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
			return fmt.Errorf("%w: %d snapshots to keep", ErrConfig, n)
		}
	}
	for _, tag := range r.Tags {
		if tag == "" || len(tag) > 255 || !utf8.ValidString(tag) {
			return fmt.Errorf("%w: no snapshot can have the tag %q", ErrConfig, tag)
		}
	}
	return nil
}

// settingsFile is the content of settings.json; docs/format/settings.md
// describes it.
type settingsFile struct {
	fileHead
	Settings
	fileSum
}

var settingsKind = fileKind{name: "settings.json", magic: "quarxfs settings", version: 1, strange: ErrDamaged, next: "put it back from a copy, or remove it to have the defaults again"}

// readSettings returns the defaults when there is no file. ErrNewer, ErrDamaged.
func (s *Store) readSettings() (Settings, error) {
	var f settingsFile
	err := s.readKept(settingsKind, &f)
	if errors.Is(err, os.ErrNotExist) {
		return Settings{}, nil
	}
	if err == nil && f.Settings.Validate() != nil {
		err = settingsKind.damaged("has settings that cannot be (%v)", f.Settings.Validate())
	}
	if err != nil {
		return Settings{}, fmt.Errorf("%w; the defaults count until the file is removed", err)
	}
	return f.Settings, nil
}

// loadSettings keeps a file that cannot be used from nothing but being changed:
// the store's data do not depend on it.
func (s *Store) loadSettings() {
	s.settings.changed = make(chan struct{})
	if s.settings.now, s.settings.err = s.readSettings(); s.settings.err != nil {
		s.log.Error("the store's settings cannot be used", "err", s.settings.err)
	}
}

// Settings returns what is set now, and a channel that is closed when that
// changes. With an error, ErrNewer or ErrDamaged, they are the defaults.
func (s *Store) Settings() (now Settings, changed <-chan struct{}, err error) {
	s.settings.Lock()
	defer s.settings.Unlock()
	return s.settings.now, s.settings.changed, s.settings.err
}

// ChangeSettings has fn change the settings, and makes that durable. Errors:
// fn's; ErrConfig; ErrNewer or ErrDamaged, when what there is cannot be read.
func (s *Store) ChangeSettings(fn func(*Settings) error) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	s.settings.Lock()
	defer s.settings.Unlock()
	if s.settings.err != nil {
		return s.settings.err
	}
	f := settingsFile{Settings: s.settings.now}
	err := fn(&f.Settings)
	if err == nil {
		err = f.Validate()
	}
	if err == nil {
		err = s.keepFile(settingsKind, &f)
	}
	if err != nil {
		return fmt.Errorf("change settings: %w", err)
	}
	s.settings.now = f.Settings
	close(s.settings.changed)
	s.settings.changed = make(chan struct{})
	return nil
}
