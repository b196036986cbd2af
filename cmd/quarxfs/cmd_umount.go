package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/routine"
)

type umountOptions struct {
	force  bool
	wait   time.Duration
	stderr io.Writer
}

func newUmount() *cobra.Command {
	o := &umountOptions{}
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount a store and wait until its daemon has ended",
		Long: `Unmounts what is mounted at MOUNTPOINT and returns when the daemon has committed
everything and ended. If it could not commit, the exit code and the error are the daemon's, and
the store is as of the previous commit. The mount of a daemon that has died is removed.

A mount in use is not unmounted. The message names what uses it: programs, bind mounts, and
copies in other mount namespaces. Given a bind mount, umount unmounts only that, and the daemon
goes on. --force ends the daemon in any case.`,
		Example: `  quarxfs umount /mnt
  quarxfs umount --force /mnt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.stderr = cmd.ErrOrStderr()
			return o.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "unmount although files are in use; programs that use them get errors")
	o.wait = 2 * time.Minute
	timeVar(f, timeFlag{to: &o.wait}, "wait", "longest time to wait for the daemon")
	return cmd
}

func (o *umountOptions) run(ctx context.Context, arg string) error {
	// Without symbolic links: the kernel's table has mountpoints as they are.
	path, err := asked(ctx, hangTime, []string{arg}, func() (string, error) { return mounts.Resolve(arg) })
	if errors.Is(err, mounts.ErrRemoved) {
		if p, perr := openLocation(arg, follow); perr == nil && p.quarxfs() {
			return fmt.Errorf("%w: you stand in it: cd out of %s first", errBusy, p.mount.Dir)
		}
	}
	if err != nil {
		return err
	}
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	m, ok := mounts.At(table, path)
	if !ok || m.Dir != path {
		if ok {
			return fmt.Errorf("%w: %s lies inside the mount %s; unmount that one", errNotMounted, path, m.Dir)
		}
		for _, m := range table {
			if m.IsQuarXFS() && m.Source == path {
				return fmt.Errorf("%w: %s is the store that is mounted at %s; unmount that", errNotMounted, path, m.Dir)
			}
		}
		return fmt.Errorf("%w: %s; see the mounts with findmnt -t %s", errNotMounted, path, mounts.FSType)
	}
	// The store may have been moved since it was mounted.
	dir, err := storeSoon(ctx, m)
	if errors.Is(err, errMoved) {
		return o.unmountLost(m)
	}
	if err != nil {
		return err
	}
	// Before unmounting, since a daemon that leaves takes its socket away.
	w, err := watch(ctx, dir, m)
	if w != nil {
		defer w.Close()
	}
	if err != nil && (w == nil || !o.force) {
		// Without a daemon, or with a mount whose store is elsewhere or
		// forbidden, there is nobody to wait for.
		return o.unmountDead(ctx, dir, m, err)
	}
	// Looked for before unmounting, when the mount still says whose it is.
	holders, err := mounts.HoldersOf(m)
	if err != nil {
		return err
	}
	// A bind mount, or a copy: the daemon and the other mounts go on.
	if len(holders) > 0 && !w.IsAt(m) {
		return o.unmountOne(ctx, m)
	}
	if o.force {
		return o.leave(ctx, m, w)
	}
	if len(holders) > 0 {
		return stillHeld(m, holders)
	}
	// Else the kernel says EBUSY and the list of users begins with this very process.
	if wd, err := os.Getwd(); err == nil && mounts.Within(wd, m.Dir) {
		return fmt.Errorf("%w: you stand in it: cd out of %s first, or add --force", errBusy, m.Dir)
	}
	// From here on the mount is gone, whatever the daemon does: errors are about what was not kept.
	if err := o.unmountOne(ctx, m); err != nil {
		return err
	}
	// A holder that could not be seen keeps the daemon: waiting for its end would take all of
	// --wait.
	if err := o.mustEnd(m); err != nil {
		return err
	}
	if err := w.Wait(ctx, o.wait); err != nil {
		return err
	}
	return w.Ended()
}

// stillHeld is the error for a mount that has holders: without it, the daemon would go on.
func stillHeld(m mounts.Mount, holders []mounts.Holder) error {
	var what, how []string
	for _, h := range holders {
		what, how = append(what, h.String()), append(how, h.Release())
	}
	if more := len(what) - mounts.MaxUsers; more > 0 {
		what, how = append(what[:mounts.MaxUsers], fmt.Sprintf("%d more", more)), how[:mounts.MaxUsers]
	}
	said := "it is also mounted at "
	if holders[0].Upon {
		said = ""
	}
	return fmt.Errorf("%w: %s: %s%s; first run %s, or add --force", errBusy, printable(m.Dir), said, strings.Join(what, ", "), strings.Join(how, " && "))
}

// unmountOne unmounts a mount, whatever becomes of its filesystem.
func (o *umountOptions) unmountOne(ctx context.Context, m mounts.Mount) error {
	flags := 0
	if o.force {
		flags = unix.MNT_DETACH
	}
	// The kernel may wait for a daemon that hangs just now.
	_, err := asked(ctx, o.wait, []string{m.Dir}, func() (any, error) { return nil, mounts.Unmount(m.Dir, flags) })
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	// Names of processes where they can be seen; without root only the caller's own.
	if users := mounts.UsersOf(m.Device); len(users) > 0 {
		return fmt.Errorf("%w: %s: end %s first, or add --force", errBusy, printable(m.Dir), strings.Join(users, ", "))
	}
	return fmt.Errorf("%w: %s: end what uses it (fuser -vm %s), or add --force", errBusy, printable(m.Dir), printable(m.Dir))
}

// mustEnd looks whether the filesystem of a mount that has just been unmounted is gone. One that is
// still held, by what could not be seen before, keeps its daemon, and waiting for that is no use.
func (o *umountOptions) mustEnd(m mounts.Mount) error {
	if alive, known := mounts.Alive(m.Device); !alive || !known {
		return nil
	}
	m.ID = 0 // it is gone
	held, err := mounts.HoldersOf(m)
	if err != nil {
		return err
	}
	var by []string
	for _, h := range held {
		if h.Source == m.Source {
			by = append(by, h.String())
		}
	}
	if by = append(by, mounts.UsersOf(m.Device)...); len(by) == 0 {
		by = []string{"something that cannot be seen from here"}
	}
	// Once more: it may just have ended while its holders were looked for.
	if alive, _ := mounts.Alive(m.Device); !alive {
		return nil
	}
	return fmt.Errorf("%w: %s is unmounted here, but its daemon goes on for %s", errBusy, printable(m.Dir), strings.Join(by, ", "))
}

// leave lets the daemon do it: it flushes first, which a lazy unmount by
// somebody else would not wait for. Mounts that are left answer nobody any more; those that are
// seen here go.
func (o *umountOptions) leave(ctx context.Context, m mounts.Mount, w *daemon.Watch) error {
	if err := unix.PidfdSendSignal(w.PIDFD, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("tell the daemon of %s to end: %w", m.Dir, err)
	}
	err := w.Wait(ctx, o.wait)
	if err == nil {
		err = w.Ended()
	} else if !errors.Is(err, daemon.ErrNoAnswer) {
		return err
	}
	// Read after the daemon has left, as its own mount went with it.
	table, terr := mounts.Table()
	errs := []error{err, terr}
	// The last one first, as a mount may lie on another.
	for _, left := range slices.Backward(table) {
		if left.Device == m.Device && left.Source == m.Source {
			errs = append(errs, mounts.Unmount(left.Dir, unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// watch is daemon.WatchMount for a daemon that may have lost its control socket: while the mount
// lives there is one, and it makes its socket again.
func watch(ctx context.Context, dir string, m mounts.Mount) (*daemon.Watch, error) {
	for begun := time.Now(); ; {
		w, err := daemon.WatchMount(ctx, dir, m)
		within := daemon.AnswerTime
		// Where something else keeps the place of the socket, none comes: the daemon has tried.
		if fi, err := os.Lstat(filepath.Join(dir, daemon.SocketName)); err == nil && fi.Mode()&os.ModeSocket == 0 {
			within = commandWait
		}
		if !errors.Is(err, daemon.ErrNoDaemon) || time.Since(begun) > within || isDead(ctx, m.Dir) {
			return w, err
		}
		if err := routine.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// unmountDead is for a mount whose daemon cannot be reached.
func (o *umountOptions) unmountDead(ctx context.Context, dir string, m mounts.Mount, why error) error {
	dead := isDead(ctx, m.Dir)
	if !o.force && !dead {
		if errors.Is(why, daemon.ErrNoDaemon) {
			why = fmt.Errorf("the mount lives, and nobody listens on %s", filepath.Join(m.Source, daemon.SocketName))
		}
		if !errors.Is(why, daemon.ErrNoAnswer) {
			why = fmt.Errorf("%w: %w", daemon.ErrNoAnswer, why)
		}
		if errors.Is(why, syscall.EACCES) { // force would not help, either
			return why
		}
		return fmt.Errorf("%s: %w: add --force to unmount without waiting for the daemon", printable(m.Dir), why)
	}
	if err := mounts.Unmount(m.Dir, unix.MNT_DETACH); err != nil {
		return err
	}
	return o.unheard(ctx, dir, m, dead)
}

// unheard says what is known of the daemon of a mount that is gone now, where nobody has heard how
// it ended. The lock of the store says whether it has.
func (o *umountOptions) unheard(ctx context.Context, dir string, m mounts.Mount, dead bool) error {
	within := o.wait
	if dead { // a process that was killed needs a moment; another daemon may have the store by now
		within = daemon.LockWait
		if c, err := daemon.Dial(ctx, dir, ""); err == nil {
			c.Close()
			within = 0
		}
	}
	free, known := false, false
	if within > 0 {
		free, known = released(ctx, dir, within)
	}
	switch {
	case dead && (free || !known):
		fmt.Fprintf(o.stderr, "quarxfs: the daemon of %s had died; the store is as of its last commit\n", printable(m.Dir))
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case known && !free:
		return fmt.Errorf("%w: %s is unmounted, and its daemon still has the store open", daemon.ErrNoAnswer, printable(m.Dir))
	}
	return fmt.Errorf("%w: %s is unmounted, and nobody has heard whether all was kept; see %s",
		daemon.ErrNoAnswer, printable(m.Dir), printable(filepath.Join(dir, daemon.LogName)))
}

// released waits until no process has a store open for writing, whether it has a control socket or
// not. known is false for a store that the caller may not look at.
func released(ctx context.Context, dir string, within time.Duration) (free, known bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		// Shared, and only for a moment: whoever opens the store now waits longer than that.
		lock, err := db.LockDir(dir, true)
		if err == nil {
			lock.Close()
			return true, true
		}
		if !errors.Is(err, db.ErrLocked) {
			return false, false
		}
		if routine.Sleep(ctx, 20*time.Millisecond) != nil {
			return false, true
		}
	}
}

// unmountLost is for the mount of a store that is nowhere to be seen: it was removed, or is out of
// this namespace's sight. Its daemon cannot be asked how it ended.
func (o *umountOptions) unmountLost(m mounts.Mount) error {
	if !o.force {
		return fmt.Errorf("%s was mounted from %s: %w: it was removed, or cannot be seen from here; "+
			"add --force to unmount without hearing whether all was kept", printable(m.Dir), printable(m.Source), errMoved)
	}
	return mounts.Unmount(m.Dir, unix.MNT_DETACH)
}

// noDaemonServes reports whether that is what the kernel says of a mount whose daemon has died.
func noDaemonServes(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// isDead returns whether nobody serves a mount any more. One that hangs is not dead.
func isDead(ctx context.Context, dir string) bool {
	_, err := asked(ctx, daemon.AnswerTime, []string{dir}, func() (any, error) {
		var st unix.Statfs_t
		return nil, unix.Statfs(dir, &st) // always a request, where stat may be answered by the kernel's cache
	})
	return noDaemonServes(err)
}
