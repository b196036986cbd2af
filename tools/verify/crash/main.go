// Command crashtest kills a filesystem's daemon at random moments under load
// and checks, after each remount, that the crash contract was kept.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
	"github.com/quarxtor/quarxfs/tools/serve"
)

func main() { cli.Main(newCommand()) }

type options struct {
	server, work          string
	quarxBin, loopbackBin string
	initFlags, mountFlags string
	rounds                int
	seed                  uint64
	longest               time.Duration
	check, during         string
	maintenance, powercut bool
	images                int
	diskSize              int64
	diskOptions           string
}

func newCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "crashtest [flags]",
		Short: "Kill the daemon at random moments, remount, and judge what is there",
		Long: `Rounds of: mount; let six workers change files; kill the daemon at a random moment
(SIGKILL, in one round of eight SIGTERM); lazy unmount; mount again; judge.

  ordered   two workers whose every call reaches the daemon (O_DIRECT): what is there
            must be the state after some prefix of their calls, both at one instant
  paged     two that write through the page cache: every page must be as it was at some
            moment since the file's last acknowledged fsync
  saver     replaces a file by rename: always one of its contents, whole
  database  transactions with a rollback journal, as SQLite's: none half, none lost

With --maintenance there are three more:

  mover     demotes and promotes the others' files, and drains a cold tier beside the store
  snapshots makes and removes snapshots: those made are there, and as they were
  seeker    looks for data and holes in the others' files

Each acknowledged fsync is logged, with the content's checksum, outside of the
filesystem. After a failure the store, the log and the histories are kept.

With --powercut the store lies on an ext4 on a loop device of its own, and a round ends
otherwise: at random moments of the workers' time the device's content is copied in an
instant (FICLONE), without what the kernel had not yet written to it. Then the daemon is
killed, and each of the copies takes the disk's place, is mounted, and judged by what had
been acknowledged when its copying began; the next round goes on from the last. It needs
root, mkfs.xfs and a kernel with XFS, on which the device's image lies.

A seed fixes what the workers choose to do, and for how long they do it; how far they come
in that time is the machine's, so a replay is alike but not the same.

Exit status: 0 the contract was kept, 1 it was not, or the test could not run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "quarxfs", "quarxfs; or, to test this program, loopback or plain")
	f.StringVar(&o.work, "work", "/var/tmp/quarxfs-bench", "`directory` for the store and the log")
	f.StringVar(&o.quarxBin, "quarxfs", "bin/quarxfs", "the quarxfs `program`")
	f.StringVar(&o.loopbackBin, "loopback", "bin/loopback", "the loopback `program`")
	f.StringVar(&o.initFlags, "init-flags", "", "`flags` for quarxfs init")
	f.StringVar(&o.mountFlags, "mount-flags", "", "`flags` for quarxfs mount")
	f.IntVar(&o.rounds, "rounds", 20, "how many crashes")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the run; 0 takes a new one")
	f.DurationVar(&o.longest, "longest", 3*time.Second, "longest time before a crash")
	f.StringVar(&o.check, "check", "", "shell `command` to run after each crash, before the mount, with $STORE")
	f.StringVar(&o.during, "during", "", "shell `command` to run again and again while the workers work, with $STORE and $MNT")
	f.BoolVar(&o.maintenance, "maintenance", false, "also move blocks between tiers, make and remove snapshots, and look for holes")
	f.BoolVar(&o.powercut, "powercut", false, "cut the power instead of killing the daemon")
	f.IntVar(&o.images, "images", 5, "with --powercut: images of the disk per round")
	f.Int64Var(&o.diskSize, "disk-size", 1024, "with --powercut: size of the disk in `MiB`")
	f.StringVar(&o.diskOptions, "disk-options", "noauto_da_alloc", "with --powercut: mount `options` of the disk's ext4")
	return cmd
}

func (o *options) run(ctx context.Context, out io.Writer) (err error) {
	if o.rounds < 1 || o.longest < time.Millisecond {
		return errors.New("--rounds and --longest must be positive")
	}
	if o.maintenance && o.server != "quarxfs" {
		return errors.New("--maintenance is for --server quarxfs")
	}
	// Drawn here and printed below: a failure without its seed could not be tried again.
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	var cut *powerCut
	if o.powercut {
		disk, err := o.disk()
		if err != nil {
			return err
		}
		// Before the place's Close, so that it runs after it: the store lies on this disk.
		defer func() { err = errors.Join(err, disk.close()) }()
		cut = &powerCut{disk: disk, images: o.images}
	}
	place, err := o.place(ctx, cut)
	// A place that could not be made whole may still have left a mount.
	if place != nil {
		defer func() { err = errors.Join(err, place.Close(ctx)) }()
	}
	if err != nil {
		return err
	}
	// Beside the filesystem that is tested, on one that no daemon of ours can lose.
	logName := filepath.Join(o.work, fmt.Sprintf("crashtest-%d-fsyncs.jsonl", o.seed))
	log, err := os.Create(logName)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, log.Close())
		// Worth keeping only for a failure; an interrupted run has shown none.
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, os.Remove(logName))
		}
	}()
	fmt.Fprintf(out, "seed %d, %d rounds on %s\n", o.seed, o.rounds, place.Name)
	d := &driver{
		place: place, rng: rand.New(rand.NewPCG(o.seed, 0)),
		rounds: o.rounds, longest: o.longest, term: o.server == "quarxfs", check: o.check, during: o.during, out: out, power: cut,
		store: filepath.Join(filepath.Dir(place.Dir), "store"),
	}
	if cut != nil {
		d.store = cut.disk.store()
	}
	acks := newAckLog(log)
	d.workers = newWorkers(place.Dir, o.seed, acks)
	if o.maintenance {
		// After the six, whose random streams go by their number: a seed means the same with and
		// without.
		d.workers = append(d.workers, newMaintenance(o.quarxBin, place.Dir, d.store, o.seed, acks)...)
	}
	switch err := d.run(ctx); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return errors.Join(err, o.keep(d, out, logName))
	}
	// The median, as one mount in many replays much more than the others.
	slices.Sort(d.mounts)
	crashes := fmt.Sprintf("%d crashes", d.rounds)
	if cut != nil {
		crashes = fmt.Sprintf("%d power cuts (copying the disk took up to %v)", cut.judged, cut.longest.Round(time.Microsecond))
	}
	fmt.Fprintf(out, "kept: %s, %d operations, %d fsyncs acknowledged, nothing lost; mounts after a crash took %v (median) to %v\n",
		crashes, d.totals.ops, d.totals.fsyncs, d.mounts[len(d.mounts)/2].Round(time.Millisecond), d.mounts[len(d.mounts)-1].Round(time.Millisecond))
	return nil
}

// keep leaves everything for an inquest and says how to try again.
func (o *options) keep(d *driver, out io.Writer, logName string) error {
	root := d.place.Keep()
	// The disk's directory is removed when run ends, and the image with it.
	if d.power != nil && d.power.image != "" {
		fmt.Fprintln(out, "disk.img there is the disk as the power cut left it")
		if err := d.power.disk.keep(d.power.image, root); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "store and histories kept in %s, log in %s; again: --seed %d --rounds %d --longest %v\n", root, logName, o.seed, o.rounds, o.longest)
	return d.keepEvidence(root)
}

func (o *options) disk() (*disk, error) {
	if o.server != "quarxfs" || o.images < 1 || o.diskSize < 64 {
		return nil, errors.New("--powercut is for --server quarxfs, one image or more per round, and a disk of 64 MiB or more")
	}
	return newDisk(o.work, o.diskSize<<20, o.diskOptions)
}

func (o *options) place(ctx context.Context, cut *powerCut) (*serve.Target, error) {
	store := ""
	if cut != nil {
		store = cut.disk.store()
	}
	switch o.server {
	case "quarxfs":
		return serve.NewQuarXFS(ctx, "quarxfs", o.work, serve.QuarXFS{
			Bin: o.quarxBin, InitFlags: strings.Fields(o.initFlags), MountFlags: strings.Fields(o.mountFlags), Store: store,
		})
	case "loopback":
		return serve.NewLoopback("loopback", o.work, o.loopbackBin)
	case "plain":
		return serve.NewPlain("plain", o.work)
	}
	return nil, fmt.Errorf("--server %s: quarxfs, loopback or plain", o.server)
}
