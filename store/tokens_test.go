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
)

const tokensGolden = `{
  "magic": "quarxfs tokens",
  "version": 1,
  "tokens": [
    {
      "name": "nas",
      "scopes": [
        "sync"
      ],
      "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
      "created": "2026-01-02T03:04:05Z"
    }
  ],
  "crc32c": "05aa464f"
}
`

func TestTokensGolden(t *testing.T) {
	f := tokensFile{Tokens: []Token{{Name: "nas", Scopes: []Scope{ScopeSync}, Hash: hashToken("test"), Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}}
	b, err := tokensKind.encode(&f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tokensGolden, string(b)); diff != "" {
		t.Error(diff)
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
	create := func(name string, expires time.Time, scopes ...Scope) string {
		t.Helper()
		secret, err := s.CreateToken(name, scopes, expires)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	short := create("short", now.Add(time.Hour), ScopeWrite, ScopeRead, ScopeWrite)
	long := create("long", time.Time{}, ScopeSync)
	if short == long || len(short) < 32+len(tokenPrefix) {
		t.Errorf("tokens %q, %q", short, long)
	}
	for _, bad := range []struct {
		name    string
		scopes  []Scope
		expires time.Time
		want    error
	}{
		{"long", []Scope{ScopeRead}, time.Time{}, ErrNameTaken},
		{"", []Scope{ScopeRead}, time.Time{}, ErrConfig},
		{"a:b", []Scope{ScopeRead}, time.Time{}, ErrConfig},
		{"x", nil, time.Time{}, ErrConfig},
		{"x", []Scope{"root"}, time.Time{}, ErrConfig},
		{"x", []Scope{ScopeRead}, now, ErrConfig},
	} {
		if _, err := s.CreateToken(bad.name, bad.scopes, bad.expires); !errors.Is(err, bad.want) {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	// At rest there is no token, and nobody else reads the file.
	path := filepath.Join(dir, tokensKind.name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{short, long} {
		if bytes.Contains(b, []byte(strings.TrimPrefix(secret, tokenPrefix))) {
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
		if got, err := s.CheckToken(secret); !errors.Is(err, ErrToken) {
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
	if err := os.WriteFile(filepath.Join(dir, tokensKind.name), []byte(`{"magic":"quarxfs tokens","version":1,"tokens":[],"crc32c":"00000000"}`), 0o600); err != nil {
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
	if _, err := s.CreateToken("x", []Scope{ScopeRead}, time.Time{}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := s.CheckToken("x"); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
}

func TestScopes(t *testing.T) {
	allowed := map[Scope][]Scope{
		ScopeRead: {ScopeRead}, ScopeWrite: {ScopeWrite}, ScopeSync: {ScopeRead, ScopeSync}, ScopeAdmin: Scopes(),
	}
	for _, has := range Scopes() {
		for _, asked := range Scopes() {
			want := false
			for _, a := range allowed[has] {
				want = want || a == asked
			}
			if got := (Token{Scopes: []Scope{has}}).Allows(asked); got != want {
				t.Errorf("%s allows %s: %v", has, asked, got)
			}
		}
	}
}
