package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
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
		Short: "Unmount a store and wait until its daemon has left",
		Long: `Unmounts what is mounted at MOUNTPOINT and returns when the daemon has committed
everything and left; if it could not, the exit code and the error are the daemon's, and the store is as
of the commit before. The mount of a daemon that has died is cleaned away.

While bind mounts of it are left, or another mount namespace has a copy, the daemon would go on: that is
refused with their names. For a bind mount, only that is unmounted. --force has the daemon leave in any case.`,
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
	path, err := resolve(arg)
	if err != nil {
		return err
	}
	table, err := mountTable()
	if err != nil {
		return err
	}
	m, ok := mountOf(table, path)
	if !ok || m.dir != path {
		if ok {
			return fmt.Errorf("%w: %s lies inside the mount %s; unmount that one", errNotMounted, path, m.dir)
		}
		return fmt.Errorf("%w: %s; see the mounts with findmnt -t %s", errNotMounted, path, fsType)
	}
	dir, err := m.storeSoon()
	if err != nil {
		return err
	}
	w, err := watchDaemon(ctx, dir, m)
	if w != nil {
		defer w.close()
	}
	if err != nil && (w == nil || !o.force) {
		// Without a daemon, or with a mount whose store is elsewhere or
		// forbidden, there is nobody to wait for.
		return o.unmountDead(m, err)
	}
	holders, err := holdersOf(m)
	if err != nil {
		return err
	}
	if len(holders) > 0 && !w.isAt(m) {
		return o.unmountOne(m)
	}
	if o.force {
		return o.leave(ctx, m, w)
	}
	if len(holders) > 0 {
		return stillHeld(m, holders)
	}
	if wd, err := os.Getwd(); err == nil && within(wd, m.dir) {
		return fmt.Errorf("%w: you stand in it: cd out of %s first, or add --force", errBusy, m.dir)
	}
	if err := o.unmountOne(m); err != nil {
		return err
	}
	if err := o.mustEnd(m); err != nil {
		return err
	}
	if err := o.waitFor(ctx, w.pidfd); err != nil {
		return err
	}
	return w.ended()
}

// stillHeld is the error for a mount that has holders: without it, the daemon would go on.
func stillHeld(m mounted, holders []holder) error {
	var what, how []string
	for _, h := range holders {
		what, how = append(what, h.String()), append(how, h.release())
	}
	if more := len(what) - maxUsers; more > 0 {
		what, how = append(what[:maxUsers], fmt.Sprintf("%d more", more)), how[:maxUsers]
	}
	said := "it is also mounted at "
	if holders[0].upon {
		said = ""
	}
	return fmt.Errorf("%w: %s: %s%s; first run %s, or add --force", errBusy, printable(m.dir), said, strings.Join(what, ", "), strings.Join(how, " && "))
}

// unmountOne unmounts a mount, whatever becomes of its filesystem.
func (o *umountOptions) unmountOne(m mounted) error {
	flags := 0
	if o.force {
		flags = unix.MNT_DETACH
	}
	err := unmount(m.dir, flags)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	if users := usersOf(m.device); len(users) > 0 {
		return fmt.Errorf("%w: %s: end %s first, or add --force", errBusy, printable(m.dir), strings.Join(users, ", "))
	}
	return fmt.Errorf("%w: %s: end what uses it (fuser -vm %s), or add --force", errBusy, printable(m.dir), printable(m.dir))
}

// mustEnd looks whether the filesystem of a mount that has just been unmounted is gone. One that is
// still held, by what could not be seen before, keeps its daemon, and waiting for that is no use.
func (o *umountOptions) mustEnd(m mounted) error {
	if alive, known := lives(m.device); !alive || !known {
		return nil
	}
	all, err := allTables()
	if err != nil {
		return err
	}
	m.id = 0 // it is gone
	var by []string
	for _, h := range findHolders(all, m) {
		if h.source == m.source {
			by = append(by, h.String())
		}
	}
	if by = append(by, usersOf(m.device)...); len(by) == 0 {
		by = []string{"something that cannot be seen from here"}
	}
	if alive, _ := lives(m.device); !alive {
		return nil
	}
	return fmt.Errorf("%w: %s is unmounted here, but its daemon goes on for %s", errBusy, printable(m.dir), strings.Join(by, ", "))
}

// leave lets the daemon do it: it flushes first, which a lazy unmount by
// somebody else would not wait for. Mounts that are left answer nobody any more; those that are
// seen here go.
func (o *umountOptions) leave(ctx context.Context, m mounted, w *daemonWatch) error {
	if err := unix.PidfdSendSignal(w.pidfd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("tell the daemon of %s to leave: %w", m.dir, err)
	}
	err := o.waitFor(ctx, w.pidfd)
	if err == nil {
		err = w.ended()
	} else if !errors.Is(err, errNoAnswer) {
		return err
	}
	table, terr := mountTable()
	errs := []error{err, terr}
	for _, left := range slices.Backward(table) {
		if left.device == m.device && left.source == m.source {
			errs = append(errs, unmount(left.dir, unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// unmountDead is for a mount whose daemon cannot be reached.
func (o *umountOptions) unmountDead(m mounted, why error) error {
	if !o.force && !isDead(m.dir) {
		if errors.Is(why, errNoDaemon) {
			why = fmt.Errorf("the mount lives, and nobody listens on %s", filepath.Join(m.source, controlName))
		}
		if !errors.Is(why, errNoAnswer) {
			why = fmt.Errorf("%w: %w", errNoAnswer, why)
		}
		return fmt.Errorf("%s: %w: add --force to unmount without waiting for the daemon", printable(m.dir), why)
	}
	if errors.Is(why, errNoDaemon) {
		fmt.Fprintf(o.stderr, "quarxfs: the daemon of %s had died; the store is as of its last commit\n", printable(m.dir))
	}
	return unmount(m.dir, unix.MNT_DETACH)
}

// isDead returns whether nobody serves a mount any more. One that hangs is not dead.
func isDead(dir string) bool {
	said := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		said <- unix.Statfs(dir, &st) // always a request, where stat may be answered by the kernel's cache
	}()
	select {
	case err := <-said:
		return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
	case <-time.After(answerTime):
		return false
	}
}

func unmount(dir string, flags int) error {
	err := unix.Unmount(dir, flags)
	if !errors.Is(err, unix.EPERM) {
		if err != nil {
			err = fmt.Errorf("unmount %s: %w", dir, err)
		}
		return err
	}
	args := []string{"-u", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", dir}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, syscall.EBUSY.Error()) || strings.Contains(strings.ToLower(text), "busy") {
		return fmt.Errorf("%s: %w", text, syscall.EBUSY)
	}
	return fmt.Errorf("unmount %s: %w: %s", dir, err, text)
}

// waitFor returns when the process has ended.
func (o *umountOptions) waitFor(ctx context.Context, pidfd int) error {
	deadline := time.Now().Add(o.wait)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("%w: it has not left after %v; see %s in the store", errNoAnswer, o.wait, logName)
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, 200*time.Millisecond).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the daemon: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}
