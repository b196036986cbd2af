package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/termlog"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/owner"
)

type rebuildOptions struct {
	dropLoose bool
	json      bool
}

func newRebuild() *cobra.Command {
	o := &rebuildOptions{}
	cmd := &cobra.Command{
		Use:   "rebuild [STORE]",
		Short: "Rebuild the database of a store from its segments",
		Long: `Rebuilds the database from the segments, for when it is lost or damaged beyond
fsck --repair. The store must not be mounted. Snapshots and objects come
back under their names. The live filesystem does not: it is in the database only. Blocks that
belong to no snapshot or named object become objects under their IDs, unless --drop-loose is
given. The old database is kept beside the new one.`,
		Example: `  quarxfs rebuild /srv/store`,
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dropLoose, "drop-loose", false, "drop blocks that belong to no snapshot or named object")
	jsonFlag(f, &o.json)
	return cmd
}

func (o *rebuildOptions) run(cmd *cobra.Command, args []string) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	log := slog.New(termlog.New(a.stderr))
	// New files belong to the owner of the store, whoever repairs it.
	inside, leave, err := owner.EnterPath(a.dir, log)
	if err != nil {
		return err
	}
	// A rebuild reads all segments, which may take hours.
	line := newProgress(cmd.ErrOrStderr(), o.json)
	r, err := store.Rebuild(cmd.Context(), inside, store.RebuildOptions{
		DropLoose: o.dropLoose,
		Logger:    log,
		Progress: func(r store.Rebuilt) {
			line.show("%.1f %% of %s, %s blocks", percent(r.Bytes, r.Total), size(r.Total), humanize.Comma(r.Records))
		},
	})
	line.clear()
	if err = errors.Join(err, leave()); err != nil {
		return err
	}
	if o.json {
		return rawjson.Write(cmd.OutOrStdout(), r)
	}
	return printRebuilt(cmd.OutOrStdout(), r)
}

func printRebuilt(w io.Writer, r store.Rebuilt) error {
	_, err := fmt.Fprintf(w, "%s in %s, %s, %s with names, %s in none of them\n",
		amount(r.Blocks, "block"), amount(int64(r.Segments), "segment"), amount(r.Snapshots, "snapshot"), amount(r.Objects, "object"),
		amount(r.Loose, "block"))
	if r.Bad > 0 || r.Missing > 0 {
		fmt.Fprintf(w, "lost: %s, %s: see quarxfs fsck\n", amount(r.Bad, "bad record"), amount(r.Missing, "block"))
	}
	if r.Damage != "" {
		fmt.Fprintln(w, joinLines(r.Damage))
	}
	back := "and no snapshot is there to go back to"
	if r.Snapshots > 0 {
		back = "go back to a snapshot: mount it, then quarxfs snapshot rollback MOUNTPOINT NAME"
	}
	fmt.Fprintln(w, "the live tree is not in segments and is empty now;", back)
	if r.Held > 0 {
		fmt.Fprintf(w, "%s of the schedule's held, so that it removes none before that: let go of them with quarxfs snapshot release\n", amount(r.Held, "snapshot"))
	}
	if r.Old != "" {
		fmt.Fprintf(w, "the old database is %s\n", r.Old)
	}
	return err
}
