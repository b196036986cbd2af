package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quarxtor/quarxfs/store/errs"
)

// MaxSnapshotName is the longest name of a snapshot, in bytes.
const MaxSnapshotName = 255

// ValidSnapshotName reports why a snapshot cannot have a name: it has to do as
// the name of a file, and to stand before a colon and a path. ErrConfig.
func ValidSnapshotName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("snapshot name %q: %w", name, errs.ErrConfig)
	case len(name) > MaxSnapshotName:
		return fmt.Errorf("a snapshot name of %d bytes, the most is %d: %w", len(name), MaxSnapshotName, errs.ErrConfig)
	case !utf8.ValidString(name) || strings.ContainsAny(name, "/:") || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("snapshot name %q has a slash, a colon or control characters, or is not UTF-8: %w", name, errs.ErrConfig)
	}
	return nil
}
