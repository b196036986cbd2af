package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const settingsGolden = `{
  "magic": "quarxfs settings",
  "version": 1,
  "snapshots": {
    "every_seconds": 3600,
    "keep": {
      "hourly": 24,
      "daily": 30,
      "tags": [
        "gold"
      ]
    }
  },
  "crc32c": "d7bdb94a"
}
`

func goldenSettings() Settings {
	return Settings{Snapshots: SnapshotSchedule{Seconds: 3600, Keep: Retention{Hourly: 24, Daily: 30, Tags: []string{"gold"}}}}
}

func TestSettingsGolden(t *testing.T) {
	b, err := settingsKind.encode(&settingsFile{Settings: goldenSettings()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settingsGolden, string(b)); diff != "" {
		t.Error(diff)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		var f settingsFile
		if err := settingsKind.decode(bad, &f); err == nil && !cmp.Equal(f.Settings, goldenSettings()) {
			t.Errorf("byte %d flipped: %+v", i, f.Settings)
		}
	}
}

// What a later program has added is neither ignored nor taken for damage.
func TestSettingsOfANewerProgram(t *testing.T) {
	later := struct {
		fileHead
		Settings
		More string `json:"more"`
		fileSum
	}{Settings: goldenSettings(), More: "x"}
	b, err := settingsKind.encode(&later)
	if err != nil {
		t.Fatal(err)
	}
	var f settingsFile
	if err := settingsKind.decode(b, &f); !errors.Is(err, ErrNewer) {
		t.Errorf("an unknown setting: %v", err)
	}
	if err := settingsKind.decode(bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 2`), 1), &f); !errors.Is(err, ErrNewer) {
		t.Errorf("a later version: %v", err)
	}
}

func FuzzSettings(f *testing.F) {
	b, err := settingsKind.encode(&settingsFile{Settings: goldenSettings()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got settingsFile
		if settingsKind.decode(b, &got) != nil {
			return
		}
		again, err := settingsKind.encode(&got)
		var back settingsFile
		if err != nil || settingsKind.decode(again, &back) != nil || !cmp.Equal(got.Settings, back.Settings) {
			t.Errorf("%q: again %q, %v", b, again, err)
		}
	})
}

func TestChangeSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(dir, smallConfig()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	now, changed, err := s.Settings()
	if !cmp.Equal(now, Settings{}) || err != nil {
		t.Errorf("at first: %+v, %v", now, err)
	}
	refused := errors.New("no")
	if err := s.ChangeSettings(func(c *Settings) error { *c = goldenSettings(); return refused }); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
	if err := s.ChangeSettings(func(c *Settings) error { c.Snapshots.Seconds = -1; return nil }); !errors.Is(err, ErrConfig) {
		t.Errorf("impossible: %v", err)
	}
	select {
	case <-changed:
		t.Error("nothing has changed")
	default:
	}
	if err := s.ChangeSettings(func(c *Settings) error { *c = goldenSettings(); return nil }); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if now, _, err := s.Settings(); !cmp.Equal(now, goldenSettings()) || err != nil {
		t.Errorf("opened again: %+v, %v", now, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Data can be reached without the settings; these are not written over.
func TestDamagedSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(dir, smallConfig()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "settings.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now, _, err := s.Settings(); !errors.Is(err, ErrDamaged) || !cmp.Equal(now, Settings{}) {
		t.Errorf("settings %+v, %v", now, err)
	}
	if err := s.ChangeSettings(func(*Settings) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("change: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "{}" || err != nil {
		t.Errorf("the file is %q now, %v", b, err)
	}
}
