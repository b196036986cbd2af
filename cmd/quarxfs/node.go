package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/handle"
)

// commandWait is how long a command waits for another to let go of a store.
const commandWait = 3 * time.Second

// An access is how a command reaches a store.
type access struct {
	target
	url    string // of a node that has the store; empty: it is in dir
	stderr io.Writer
	tidy   bool // reclaim what nothing refers to; a daemon does so anyway
}

// run runs fn on the store: over the network, over the control socket of its daemon,
// or on the store itself.
func (a access) run(ctx context.Context, fn func(remote.Node) error) error {
	if a.url != "" {
		r, err := nodeAt(a.url)
		if err != nil {
			return err
		}
		return onPeer(r, func(c *remote.Client) error { return fn(c) })
	}
	deadline := time.Now().Add(commandWait)
	for {
		c, err := daemon.Dial(ctx, a.dir, a.device)
		if err == nil {
			c.Close()
			client := daemon.Client(a.dir, a.device)
			defer client.Close()
			return fn(client)
		}
		if !errors.Is(err, daemon.ErrNoDaemon) {
			return err
		}
		err = a.runHere(ctx, fn)
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

// runHere runs fn on a store that no daemon holds, for reading only where it cannot be written to.
func (a access) runHere(ctx context.Context, fn func(remote.Node) error) (err error) {
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o := store.Options{Logger: log, SweepInterval: -1, LockWait: daemon.LockWait}
	st, leave, err := openStore(a.dir, o)
	var unwritable error
	if errors.Is(err, store.ErrUnwritable) {
		unwritable, o.ReadOnly = err, true
		st, leave, err = openStore(a.dir, o)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	defer func() { err = errors.Join(err, st.Close()) }()
	vol, err := volume.Open(st, volume.Options{Logger: log, NoAtime: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	err = handle.ShownError(fn(remote.NewLocal(st, localnode.Around(vol))))
	if errors.Is(err, store.ErrReadOnly) && unwritable != nil {
		err = unwritable // nobody has mounted it so
	}
	if a.tidy && !o.ReadOnly {
		_, serr := st.Sweep(ctx)
		err = errors.Join(err, serr)
	}
	return err
}
