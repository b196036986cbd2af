package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type umountOptions struct {
	force bool
	wait  time.Duration
}

func newUmount() *cobra.Command {
	o := &umountOptions{}
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount a store and wait until its daemon has left",
		Long: `Unmounts what is mounted at MOUNTPOINT and returns when the daemon has committed
everything and left. The mount of a daemon that has died is cleaned away.`,
		Example: `  quarxfs umount /mnt
  quarxfs umount --force /mnt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "unmount although files are in use; who uses them gets errors")
	f.DurationVar(&o.wait, "wait", 2*time.Minute, "longest time to wait for the daemon")
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
	_, pidfd, err := daemonProcess(ctx, m.source)
	if err != nil {
		// Without a daemon, or with a mount whose store is elsewhere or
		// forbidden, there is nobody to wait for.
		return o.unmountDead(m.dir, err)
	}
	defer unix.Close(pidfd)
	if o.force {
		return o.leave(ctx, m.dir, pidfd)
	}
	if err := unmount(m.dir, 0); err != nil {
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%w: %s: end what uses it (fuser -vm %s), or add --force", errBusy, m.dir, m.dir)
		}
		return err
	}
	return o.waitFor(ctx, pidfd)
}

// leave lets the daemon do it: it flushes first, which a lazy unmount by
// somebody else would not wait for.
func (o *umountOptions) leave(ctx context.Context, dir string, pidfd int) error {
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("tell the daemon of %s to leave: %w", dir, err)
	}
	err := o.waitFor(ctx, pidfd)
	if errors.Is(err, errNoAnswer) {
		return errors.Join(err, unmount(dir, unix.MNT_DETACH))
	}
	return err
}

func (o *umountOptions) unmountDead(dir string, why error) error {
	if !errors.Is(why, errNoDaemon) && !o.force {
		if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
			return fmt.Errorf("%w: %w: add --force to unmount nevertheless", errNoAnswer, why)
		}
	}
	return unmount(dir, unix.MNT_DETACH)
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
