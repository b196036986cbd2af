package config

import (
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
	b, err := tokensKind.Encode(&f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tokensGolden, string(b)); diff != "" {
		t.Error(diff)
	}
}

func TestScopes(t *testing.T) {
	allowed := map[Scope][]Scope{
		ScopeRead: {ScopeRead}, ScopeWrite: {ScopeWrite}, ScopeSync: {ScopeRead, ScopeSync}, ScopeAppend: {ScopeAppend}, ScopeAdmin: Scopes(),
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
