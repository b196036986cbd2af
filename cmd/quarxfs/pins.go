package main

import (
	"context"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering"
)

var _ remote.Pins = volumeFiles{}

// SetPinned implements remote.Pins.
func (l volumeFiles) SetPinned(_ context.Context, path string, pinned bool) error {
	a, err := l.find(path)
	if err != nil {
		return err
	}
	return l.vol.SetPinned(a.Ino, pinned)
}

// Pinned implements remote.Pins.
func (l volumeFiles) Pinned(ctx context.Context) ([]string, error) { return l.vol.Pinned(ctx) }

// PinnedBlocks implements remote.Pins.
func (l volumeFiles) PinnedBlocks(ctx context.Context, fn func(store.ID) error) error {
	return l.vol.PinnedBlocks(ctx, fn)
}

// keepTiers moves a mounted store's blocks between tiers until ctx ends; a batch under
// way is finished.
func keepTiers(ctx context.Context, st *store.Store, vol *volume.Volume) {
	st.KeepTiers(ctx, store.KeeperOptions{Pins: vol.PinnedBlocks, Busy: tiering.NewPressure().Busy})
}
