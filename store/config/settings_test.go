package config

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store/errs"
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
	b, err := settingsKind.Encode(&settingsFile{Settings: goldenSettings()})
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
		if err := settingsKind.Decode(bad, &f); err == nil && !cmp.Equal(f.Settings, goldenSettings()) {
			t.Errorf("byte %d flipped: %+v", i, f.Settings)
		}
	}
}

// What a later program has added is neither ignored nor taken for damage.
func TestSettingsOfANewerProgram(t *testing.T) {
	later := struct {
		Head
		Settings
		More string `json:"more"`
		Sum
	}{Settings: goldenSettings(), More: "x"}
	b, err := settingsKind.Encode(&later)
	if err != nil {
		t.Fatal(err)
	}
	var f settingsFile
	if err := settingsKind.Decode(b, &f); !errors.Is(err, errs.ErrNewer) {
		t.Errorf("an unknown setting: %v", err)
	}
	if err := settingsKind.Decode(bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 2`), 1), &f); !errors.Is(err, errs.ErrNewer) {
		t.Errorf("a later version: %v", err)
	}
}

func FuzzSettings(f *testing.F) {
	b, err := settingsKind.Encode(&settingsFile{Settings: goldenSettings()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got settingsFile
		if settingsKind.Decode(b, &got) != nil {
			return
		}
		again, err := settingsKind.Encode(&got)
		var back settingsFile
		if err != nil || settingsKind.Decode(again, &back) != nil || !cmp.Equal(got.Settings, back.Settings) {
			t.Errorf("%q: again %q, %v", b, again, err)
		}
	})
}
