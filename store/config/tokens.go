package config

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
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store/errs"
)

// A Scope is what a token lets its bearer do.
type Scope string

// The scopes. Who may sync gets any block by asking for it and so may read, too;
// an admin may do all. Writing does not include reading. Who may append adds objects and
// snapshots, and lists snapshots, as a push has to.
const (
	ScopeRead   Scope = "read"
	ScopeWrite  Scope = "write"
	ScopeSync   Scope = "sync"
	ScopeAppend Scope = "append"
	ScopeAdmin  Scope = "admin"
)

// Scopes returns all scopes.
func Scopes() []Scope { return []Scope{ScopeRead, ScopeWrite, ScopeSync, ScopeAppend, ScopeAdmin} }

// Allows reports whether who has this scope may do what asks for the other.
func (s Scope) Allows(asked Scope) bool {
	return s == asked || s == ScopeAdmin || s == ScopeSync && asked == ScopeRead
}

// ValidScopes reports a list that is empty, or has what is no scope: ErrConfig.
func ValidScopes(list []Scope) error {
	if len(list) == 0 {
		return fmt.Errorf("%w: no scope: choose of read, write, sync, append, admin", errs.ErrConfig)
	}
	for _, s := range list {
		if !slices.Contains(Scopes(), s) {
			return fmt.Errorf("%w: scope %q: choose of read, write, sync, append, admin", errs.ErrConfig, s)
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
		return fmt.Errorf("%w: token %q: a name is as a file's, without colons, and does not start with a dash", errs.ErrConfig, t.Name)
	}
	return ValidScopes(t.Scopes)
}

// tokensFile is the content of tokens.json; docs/format/tokens.md describes it.
type tokensFile struct {
	Head
	Tokens []Token `json:"tokens"` // in order of their names
	Sum
}

var tokensKind = File{Name: "tokens.json", Magic: "quarxfs tokens", Version: 1, Strange: errs.ErrDamaged,
	Next: "put it back from a copy, or remove it to have no tokens"}

// KeptTokens says that tokens.json has a row.
func KeptTokens() Kept { return Kept{tokensKind, func() Content { return new(tokensFile) }} }

// Access says who may come in over the network to an open store.
type Access struct {
	files *Files
	clock func() time.Time

	mu  sync.Mutex // held over the writing of tokens.json
	all []Token    // is never changed, only replaced
	err error      // why the file cannot be used
}

// LoadTokens reads who may come in. With a file that cannot be used that is nobody.
func LoadTokens(files *Files, clock func() time.Time) *Access {
	a := &Access{files: files, clock: clock}
	var f tokensFile
	err := files.Read(KeptTokens(), &f)
	if errors.Is(err, os.ErrNotExist) {
		return a
	}
	if err != nil {
		a.err = fmt.Errorf("%w; no token counts until the file is removed", err)
		files.Log.Error("the store's tokens cannot be used", "err", a.err)
		return a
	}
	a.all = f.Tokens
	return a
}

// changeTokens makes a list durable. The lock is held meanwhile, so that who uses a
// token that was revoked is behind it.
func (a *Access) changeTokens(list []Token) error {
	if err := a.files.Keep(tokensKind, &tokensFile{Tokens: list}); err != nil {
		return fmt.Errorf("change tokens: %w", err)
	}
	a.all = list
	return nil
}

// Tokens lists the tokens by name, without their hashes. ErrNewer, ErrDamaged.
func (a *Access) Tokens() ([]Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Clone(a.all)
	for i := range list {
		list[i].Hash = ""
	}
	return list, a.err
}

// CreateToken makes a token of 256 random bits, which is returned and kept nowhere.
// Zero expires: it is good until it is revoked. ErrConfig, ErrNameTaken, ErrNewer,
// ErrDamaged.
func (a *Access) CreateToken(name string, scopes []Scope, expires time.Time) (string, error) {
	if a.files.ReadOnly {
		return "", errs.ErrReadOnly
	}
	now := a.clock().UTC().Truncate(time.Second)
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	t := Token{Name: name, Scopes: scopes, Created: now, Expires: expires.UTC().Truncate(time.Second)}
	if err := t.validate(); err != nil {
		return "", err
	}
	if t.expired(now) {
		return "", fmt.Errorf("%w: token %q would have expired at %v", errs.ErrConfig, name, t.Expires)
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	t.Hash = hashToken(secret)

	a.mu.Lock()
	defer a.mu.Unlock()
	at, taken := slices.BinarySearchFunc(a.all, name, func(t Token, name string) int { return strings.Compare(t.Name, name) })
	switch {
	case a.err != nil:
		return "", a.err
	case taken:
		return "", fmt.Errorf("token %q: %w", name, errs.ErrNameTaken)
	case len(a.all) == maxTokens:
		return "", fmt.Errorf("%w: there are %d tokens, and there can be no more: revoke one", errs.ErrConfig, maxTokens)
	}
	return secret, a.changeTokens(slices.Insert(slices.Clone(a.all), at, t))
}

// RevokeToken makes a token useless from now on. ErrNotFound, ErrNewer, ErrDamaged.
func (a *Access) RevokeToken(name string) error {
	if a.files.ReadOnly {
		return errs.ErrReadOnly
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(a.all), func(t Token) bool { return t.Name == name })
	if a.err != nil {
		return a.err
	}
	if len(rest) == len(a.all) {
		return fmt.Errorf("token %q: %w", name, errs.ErrNotFound)
	}
	return a.changeTokens(rest)
}

// CheckToken returns what is kept of a token that is good now, and remembers that
// it was used. ErrToken.
func (a *Access) CheckToken(secret string) (Token, error) {
	hash := []byte(hashToken(secret))
	now := a.clock().UTC()
	a.mu.Lock()
	defer a.mu.Unlock()
	at := -1
	for i, t := range a.all {
		if subtle.ConstantTimeCompare([]byte(t.Hash), hash) == 1 {
			at = i
		}
	}
	if at < 0 {
		return Token{}, fmt.Errorf("%w: it is not known here, or was revoked", ErrToken)
	}
	t := a.all[at]
	if t.expired(now) {
		return Token{}, fmt.Errorf("%w: it has expired on %s", ErrToken, t.Expires.Format(time.RFC3339))
	}
	if hour := now.Truncate(useGrain); hour.After(t.LastUsed) {
		a.all = slices.Clone(a.all)
		a.all[at].LastUsed = hour
		if err := a.changeTokens(a.all); err != nil { // until the next hour only this process knows
			a.files.Log.Warn("the use of a token is not kept", "token", t.Name, "err", err)
		}
	}
	return t, nil
}

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
