package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/quarxtor/quarxfs/tiering"
)

// RelocateCold tells the store that its cold tier is in another directory now: it was moved there
// or copied, with the marker and all segments. Nothing is copied or removed here, and the old
// directory is not touched. Until that is checked nothing changes. ErrNotCold: it is not this
// tier, or not all of it; ErrNoTier; ErrConfig; ErrUnavailable.
func (tl *tierList) RelocateCold(dir string) error {
	if err := tl.checkColdDir(dir); err != nil {
		return fmt.Errorf("relocate the cold tier to %s: %w", dir, err)
	}
	return tl.relocateCold(ColdTier{Dir: filepath.Clean(dir)})
}

// RelocateBucket is RelocateCold for a tier in a bucket, which another bucket or server has now.
func (tl *tierList) RelocateBucket(url string, server S3Server) error {
	return tl.relocateCold(ColdTier{Dir: strings.TrimSuffix(url, "/"), S3: &server})
}

// relocateCold has the cold tier be where to says.
func (tl *tierList) relocateCold(to ColdTier) error {
	if tl.readOnly {
		return ErrReadOnly
	}
	tl.mu.Lock()
	defer tl.mu.Unlock()
	from := tl.file.Cold
	if from == nil {
		return fmt.Errorf("relocate the cold tier: %w", ErrNoTier)
	}
	if err := tl.moveCold(from, to); err != nil {
		return fmt.Errorf("relocate the cold tier from %s to %s: %w", from.Dir, to.Dir, err)
	}
	tl.log.Info("the cold tier was relocated", "from", from.Dir, "to", to.Dir)
	return nil
}

// moveCold is relocateCold with mu held.
func (tl *tierList) moveCold(from *ColdTier, to ColdTier) error {
	// Segments that are not full are files of the one and wait in the spool of the other.
	if (from.S3 == nil) != (to.S3 == nil) {
		return fmt.Errorf("%w: a tier in a directory stays one, and so does one in a bucket; drain it, and add the other", ErrConfig)
	}
	to.ID, to.Added = from.ID, from.Added
	if err := to.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	// From here on nothing is appended to the cold tier and nothing removed from it: what was
	// compared is what is opened.
	tl.sweeper.maintenance[tiering.Cold].Lock()
	defer tl.sweeper.maintenance[tiering.Cold].Unlock()
	// What was moved is in the rows of segments after a commit only.
	if err := tl.commits.Commit(); err != nil {
		return err
	}
	if err := tl.requireCold(&to); err != nil {
		return err
	}
	there := tl.coldOptions(&to)
	there.Take = true
	if err := tl.tiers.RelocateCold(*there); err != nil {
		return err
	}
	// Nothing was written there yet. So whichever of the two a crash here leaves in the list, all
	// that was committed is in it.
	f := tl.file
	f.Cold = &to
	if err := tl.writeTiers(f); err != nil {
		return errors.Join(err, tl.tiers.RelocateCold(*tl.coldOptions(from)))
	}
	return nil
}

// requireCold reports a place that is not that of the store's cold tier, or that lacks segments.
func (tl *tierList) requireCold(to *ColdTier) error {
	claims, err := tl.index.claims()
	if err != nil {
		return err
	}
	faults, err := tiering.InspectCold(tiering.Options{FS: tl.coldFS()}, *tl.coldOptions(to), claims[tiering.Cold])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotCold, err)
	}
	if len(faults) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s %s", faults[0].File, faults[0].What)
	if more := len(faults) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more segments are not as they must be", more)
	}
	return fmt.Errorf("%w: %s", ErrNotCold, text)
}
