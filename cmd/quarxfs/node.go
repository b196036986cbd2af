package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// commandWait is how long a command waits for another to let go of a store.
const commandWait = 3 * time.Second

// withNode runs fn on the store in dir: over the control socket of its daemon,
// else on the store itself.
func withNode(ctx context.Context, dir string, stderr io.Writer, fn func(remote.Node) error) error {
	deadline := time.Now().Add(commandWait)
	for {
		c, err := dialControl(ctx, dir)
		if err == nil {
			c.Close()
			client := controlClient(dir)
			defer client.Close()
			return fn(client)
		}
		if !errors.Is(err, errNoDaemon) {
			return err
		}
		err = withStore(dir, stderr, fn)
		if !errors.Is(err, store.ErrLocked) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// withStore runs fn on a store that no daemon holds.
func withStore(dir string, stderr io.Writer, fn func(remote.Node) error) (err error) {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	st, err := store.Open(dir, store.Options{Logger: log, SweepInterval: -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	vol, err := volume.Open(st, volume.Options{Logger: log, NoAtime: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	return fn(remote.NewLocal(st, remote.Surroundings{
		Volume: func() remote.VolumeStats { return remote.VolumeStats(vol.Stats()) },
		Files:  volumeFiles{vol},
	}))
}
