package config

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/store/errs"
)

// A Remote is another store that snapshots are sent to or fetched from.
type Remote struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	TokenFile   string `json:"token_file,omitempty"`  // its path; the token itself is kept nowhere else
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the server's certificate, in hex
	CA          string `json:"ca,omitempty"`          // path of the certificates that may vouch for it
	Cert        string `json:"cert,omitempty"`        // path of the certificate to show to it
	Key         string `json:"key,omitempty"`         // path of that one's key
	Prefix      string `json:"prefix,omitempty"`      // of the names that snapshots have on the receiving side
	Follow      Follow `json:"follow,omitzero"`
}

// A Follow says that a mounted store syncs by itself.
type Follow struct {
	Seconds int64 `json:"every_seconds"` // between two syncs; 0: none
	Pull    bool  `json:"pull,omitempty"`
	Prune   bool  `json:"prune,omitempty"`
}

// Every returns the time between two syncs; 0: there are none.
func (f Follow) Every() time.Duration { return time.Duration(f.Seconds) * time.Second }

// NoRemote is the name of a node that is given by its URL alone and has none.
const NoRemote = "url"

// Subject is what an error calls it.
func (r *Remote) Subject() string {
	if r.Name == NoRemote {
		return r.URL
	}
	return fmt.Sprintf("remote %q", r.Name)
}

const maxRemotes = 256

// Validate reports a remote that cannot be: ErrConfig.
func (r *Remote) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s: %w", r.Subject(), fmt.Sprintf(format, args...), errs.ErrConfig)
	}
	if ValidSnapshotName(r.Name) != nil || strings.HasPrefix(r.Name, "-") {
		return bad("a name is as a file's, without colons, and does not start with a dash")
	}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return bad("URL %q: give http://HOST:PORT or https://HOST:PORT", r.URL)
	case u.User != nil:
		return bad("a URL may not have a password in it: use a token file")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return bad("URL %q: nothing may follow the port", r.URL)
	case r.Prefix != "" && ValidSnapshotName(r.Prefix) != nil:
		return bad("prefix %q: it has a slash, a colon or control characters, or is too long", r.Prefix)
	case r.Follow.Seconds < 0 || r.Follow.Seconds > longestSchedule:
		return bad("a sync every %d seconds: choose 1s to 10 years", r.Follow.Seconds)
	}
	// Found out here and not at the first sync, perhaps at night.
	if (r.Cert == "") != (r.Key == "") {
		return bad("a certificate to show and its key go together")
	}
	for _, path := range []string{r.TokenFile, r.CA, r.Cert, r.Key} {
		if path != "" && !filepath.IsAbs(path) {
			return bad("path %q: it must start with a slash", path)
		}
	}
	if r.Fingerprint != "" && !ValidFingerprint(r.Fingerprint) {
		return bad("fingerprint %q: give the 64 hex digits of a SHA-256", r.Fingerprint)
	}
	return nil
}

// ValidFingerprint reports whether s is a SHA-256 in hex, with or without colons.
func ValidFingerprint(s string) bool {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	return err == nil && len(b) == 32
}

func validRemotes(list []Remote) error {
	if len(list) > maxRemotes {
		return fmt.Errorf("%d remotes: at most %d: %w", len(list), maxRemotes, errs.ErrConfig)
	}
	for i := range list {
		if err := list[i].Validate(); err != nil {
			return err
		}
		if i > 0 && list[i-1].Name >= list[i].Name {
			return fmt.Errorf("remotes that are not in order: %w", errs.ErrConfig)
		}
	}
	return nil
}

// Remote returns the remote of a name. ErrNotFound.
func (s *Settings) Remote(name string) (Remote, error) {
	for _, r := range s.Remotes {
		if r.Name == name {
			return r, nil
		}
	}
	return Remote{}, fmt.Errorf("remote %q: %w", name, errs.ErrNotFound)
}

// SetRemote adds a remote, or replaces the one of its name.
func (s *Settings) SetRemote(r Remote) {
	list := slices.DeleteFunc(slices.Clone(s.Remotes), func(old Remote) bool { return old.Name == r.Name })
	s.Remotes = append(list, r)
	slices.SortFunc(s.Remotes, func(a, b Remote) int { return strings.Compare(a.Name, b.Name) })
}

// RemoveRemote removes it. ErrNotFound.
func (s *Settings) RemoveRemote(name string) error {
	if _, err := s.Remote(name); err != nil {
		return err
	}
	s.Remotes = slices.DeleteFunc(slices.Clone(s.Remotes), func(old Remote) bool { return old.Name == name })
	return nil
}
