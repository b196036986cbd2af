package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store/config"
)

func goldenSettings() config.Settings {
	return config.Settings{Snapshots: config.SnapshotSchedule{Seconds: 3600, Keep: config.Retention{Hourly: 24, Daily: 30, Tags: []string{"gold"}}}}
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
	if !cmp.Equal(now, config.Settings{}) || err != nil {
		t.Errorf("at first: %+v, %v", now, err)
	}
	refused := errors.New("no")
	if err := s.ChangeSettings(func(c *config.Settings) error { *c = goldenSettings(); return refused }); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
	if err := s.ChangeSettings(func(c *config.Settings) error { c.Snapshots.Seconds = -1; return nil }); !errors.Is(err, ErrConfig) {
		t.Errorf("impossible: %v", err)
	}
	select {
	case <-changed:
		t.Error("nothing has changed")
	default:
	}
	if err := s.ChangeSettings(func(c *config.Settings) error { *c = goldenSettings(); return nil }); err != nil {
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
	if now, _, err := s.Settings(); !errors.Is(err, ErrDamaged) || !cmp.Equal(now, config.Settings{}) {
		t.Errorf("settings %+v, %v", now, err)
	}
	if err := s.ChangeSettings(func(*config.Settings) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("change: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "{}" || err != nil {
		t.Errorf("the file is %q now, %v", b, err)
	}
}

func TestTokens(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(dir, DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		t.Helper()
		s, err := Open(dir, Options{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	defer func() { s.Close() }()
	create := func(name string, expires time.Time, scopes ...config.Scope) string {
		t.Helper()
		secret, err := s.CreateToken(name, scopes, expires)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	short := create("short", now.Add(time.Hour), config.ScopeWrite, config.ScopeRead, config.ScopeWrite)
	long := create("long", time.Time{}, config.ScopeSync)
	if short == long || len(short) < 32+len("quarxfs_") {
		t.Errorf("tokens %q, %q", short, long)
	}
	for _, bad := range []struct {
		name    string
		scopes  []config.Scope
		expires time.Time
		want    error
	}{
		{"long", []config.Scope{config.ScopeRead}, time.Time{}, ErrNameTaken},
		{"", []config.Scope{config.ScopeRead}, time.Time{}, ErrConfig},
		{"a:b", []config.Scope{config.ScopeRead}, time.Time{}, ErrConfig},
		{"x", nil, time.Time{}, ErrConfig},
		{"x", []config.Scope{"root"}, time.Time{}, ErrConfig},
		{"x", []config.Scope{config.ScopeRead}, now, ErrConfig},
	} {
		if _, err := s.CreateToken(bad.name, bad.scopes, bad.expires); !errors.Is(err, bad.want) {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	// At rest there is no token, and nobody else reads the file.
	path := filepath.Join(dir, "tokens.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{short, long} {
		if bytes.Contains(b, []byte(strings.TrimPrefix(secret, "quarxfs_"))) {
			t.Errorf("%s has a token in it", path)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	good := func(secret, name string) {
		t.Helper()
		got, err := s.CheckToken(secret)
		if err != nil || got.Name != name {
			t.Errorf("token %s: %q, %v", name, got.Name, err)
		}
	}
	refused := func(secret string) {
		t.Helper()
		if got, err := s.CheckToken(secret); !errors.Is(err, config.ErrToken) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	good(short, "short")
	good(long, "long")
	refused("")
	refused(short[:len(short)-1])
	refused(strings.ToUpper(short))

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	good(short, "short")
	now = now.Add(time.Hour)
	refused(short)
	good(long, "long")
	list, err := s.Tokens()
	if err != nil || len(list) != 2 || list[0].Hash != "" || !list[0].LastUsed.Equal(now.Truncate(time.Hour)) {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.RevokeToken("long"); err != nil {
		t.Fatal(err)
	}
	refused(long)
	if err := s.RevokeToken("long"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	refused(long)
}

// A file that cannot be read lets nobody in and is not replaced.
func TestTokensDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(dir, DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens.json"), []byte(`{"magic":"quarxfs tokens","version":1,"tokens":[],"crc32c":"00000000"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Tokens(); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := s.CreateToken("x", []config.Scope{config.ScopeRead}, time.Time{}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := s.CheckToken("x"); !errors.Is(err, config.ErrToken) {
		t.Error(err)
	}
}
