package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A Scope is what a token lets its bearer do.
type Scope string

// The scopes. Who may sync gets any block by asking for it and so may read, too;
// an admin may do all. Writing does not include reading.
const (
	ScopeRead  Scope = "read"
	ScopeWrite Scope = "write"
	ScopeSync  Scope = "sync"
	ScopeAdmin Scope = "admin"
)

// Scopes returns all scopes.
func Scopes() []Scope { return []Scope{ScopeRead, ScopeWrite, ScopeSync, ScopeAdmin} }

// Allows reports whether who has this scope may do what asks for the other.
func (s Scope) Allows(asked Scope) bool {
	return s == asked || s == ScopeAdmin || s == ScopeSync && asked == ScopeRead
}

// ValidScopes reports a list that is empty, or has what is no scope: ErrConfig.
func ValidScopes(list []Scope) error {
	if len(list) == 0 {
		return fmt.Errorf("%w: no scope: choose of read, write, sync, admin", ErrConfig)
	}
	for _, s := range list {
		if !slices.Contains(Scopes(), s) {
			return fmt.Errorf("%w: scope %q: choose of read, write, sync, admin", ErrConfig, s)
		}
	}
	return nil
}

// ErrToken: a token is not known, was revoked or has expired.
var ErrToken = errors.New("the token is not accepted")

// A Token is what is kept of a bearer's token: not the token itself, which only
// its maker has seen.
type Token struct {
	Name     string    `json:"name"`
	Scopes   []Scope   `json:"scopes"`
	Hash     string    `json:"sha256,omitempty"` // of the token, in hex; left out of what is listed
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`   // zero: never
	LastUsed time.Time `json:"last_used,omitzero"` // to the hour, in UTC
}

// Allows reports whether the token's bearer may do what asks for a scope.
func (t Token) Allows(asked Scope) bool {
	return slices.ContainsFunc(t.Scopes, func(s Scope) bool { return s.Allows(asked) })
}

func (t Token) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

const (
	maxTokens   = 128
	tokenPrefix = "quarxfs_" // so that a token that has leaked is known for one
	useGrain    = time.Hour
)

// validate reports a token that cannot be: ErrConfig.
func (t Token) validate() error {
	if ValidSnapshotName(t.Name) != nil || strings.HasPrefix(t.Name, "-") {
		return fmt.Errorf("%w: token %q: a name is as a file's, without colons, and does not start with a dash", ErrConfig, t.Name)
	}
	return ValidScopes(t.Scopes)
}

// tokensFile is the content of tokens.json; docs/format/tokens.md describes it.
type tokensFile struct {
	fileHead
	Tokens []Token `json:"tokens"` // in order of their names
	fileSum
}

var tokensKind = fileKind{name: "tokens.json", magic: "quarxfs tokens", version: 1, strange: ErrDamaged, next: "put it back from a copy, or remove it to have no tokens"}

// loadTokens keeps a file that cannot be used from nothing but letting anybody in.
func (s *Store) loadTokens() {
	var f tokensFile
	err := s.readKept(tokensKind, &f)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		s.tokens.err = fmt.Errorf("%w; no token counts until the file is removed", err)
		s.log.Error("the store's tokens cannot be used", "err", s.tokens.err)
		return
	}
	s.tokens.all = f.Tokens
}

// changeTokens makes a list durable. The lock is held meanwhile, so that who uses a
// token that was revoked is behind it.
func (s *Store) changeTokens(list []Token) error {
	if err := s.keepFile(tokensKind, &tokensFile{Tokens: list}); err != nil {
		return fmt.Errorf("change tokens: %w", err)
	}
	s.tokens.all = list
	return nil
}

// Tokens lists the tokens by name, without their hashes. ErrNewer, ErrDamaged.
func (s *Store) Tokens() ([]Token, error) {
	s.tokens.Lock()
	defer s.tokens.Unlock()
	list := slices.Clone(s.tokens.all)
	for i := range list {
		list[i].Hash = ""
	}
	return list, s.tokens.err
}

// CreateToken makes a token of 256 random bits, which is returned and kept nowhere.
// Zero expires: it is good until it is revoked. ErrConfig, ErrNameTaken, ErrNewer,
// ErrDamaged.
func (s *Store) CreateToken(name string, scopes []Scope, expires time.Time) (string, error) {
	if s.opts.ReadOnly {
		return "", ErrReadOnly
	}
	now := s.opts.Now().UTC().Truncate(time.Second)
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	t := Token{Name: name, Scopes: scopes, Created: now, Expires: expires.UTC().Truncate(time.Second)}
	if err := t.validate(); err != nil {
		return "", err
	}
	if t.expired(now) {
		return "", fmt.Errorf("%w: token %q would have expired at %v", ErrConfig, name, t.Expires)
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	t.Hash = hashToken(secret)

	s.tokens.Lock()
	defer s.tokens.Unlock()
	at, taken := slices.BinarySearchFunc(s.tokens.all, name, func(t Token, name string) int { return strings.Compare(t.Name, name) })
	switch {
	case s.tokens.err != nil:
		return "", s.tokens.err
	case taken:
		return "", fmt.Errorf("token %q: %w", name, ErrNameTaken)
	case len(s.tokens.all) == maxTokens:
		return "", fmt.Errorf("%w: there are %d tokens, and there can be no more: revoke one", ErrConfig, maxTokens)
	}
	return secret, s.changeTokens(slices.Insert(slices.Clone(s.tokens.all), at, t))
}

// RevokeToken makes a token useless from now on. ErrNotFound, ErrNewer, ErrDamaged.
func (s *Store) RevokeToken(name string) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	s.tokens.Lock()
	defer s.tokens.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.tokens.all), func(t Token) bool { return t.Name == name })
	if s.tokens.err != nil {
		return s.tokens.err
	}
	if len(rest) == len(s.tokens.all) {
		return fmt.Errorf("token %q: %w", name, ErrNotFound)
	}
	return s.changeTokens(rest)
}

// CheckToken returns what is kept of a token that is good now, and remembers that
// it was used. ErrToken.
func (s *Store) CheckToken(secret string) (Token, error) {
	hash := []byte(hashToken(secret))
	now := s.opts.Now().UTC()
	s.tokens.Lock()
	defer s.tokens.Unlock()
	at := -1
	for i, t := range s.tokens.all {
		if subtle.ConstantTimeCompare([]byte(t.Hash), hash) == 1 {
			at = i
		}
	}
	if at < 0 {
		return Token{}, fmt.Errorf("%w: it is not known here, or was revoked", ErrToken)
	}
	t := s.tokens.all[at]
	if t.expired(now) {
		return Token{}, fmt.Errorf("%w: it has expired on %s", ErrToken, t.Expires.Format(time.RFC3339))
	}
	if hour := now.Truncate(useGrain); hour.After(t.LastUsed) {
		s.tokens.all = slices.Clone(s.tokens.all)
		s.tokens.all[at].LastUsed = hour
		if err := s.changeTokens(s.tokens.all); err != nil { // until the next hour only this process knows
			s.log.Warn("the use of a token is not kept", "token", t.Name, "err", err)
		}
	}
	return t, nil
}

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
