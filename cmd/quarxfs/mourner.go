package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/owner"
)

// A mourner is a child of the daemon that lets it go when it is killed. One of the daemon's
// threads may then be waiting in the kernel for its own mount, as when a search for a
// hole has pages written back. That wait ends with the mount's connection, the connection
// with the daemon, and the daemon with the last of its threads: never. Whoever uses the
// mount waits too, and so does every sync(2). The mourner ends the connection.
type mourner struct {
	life *os.File // closed when the daemon leaves by itself
}

const (
	mournHelper = "mourn-helper"
	// deathSignal tells the mourner that the daemon is dying.
	deathSignal = unix.SIGUSR2
	// deathTime is how long a daemon may take to die that waits for nothing.
	deathTime = time.Second
)

// startMourner is for root: others may not end a connection.
func startMourner(dir string) (*mourner, error) {
	if os.Getuid() != 0 && os.Geteuid() != 0 {
		return &mourner{}, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// The child inherits that: a signal before it listens must not end it. It looks then.
	signal.Ignore(deathSignal)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // it is this thread whose death the child is told of
		cmd := exec.Command(exe, mournHelper, dir, strconv.Itoa(os.Getpid()), strconv.Itoa(unix.Gettid()))
		cmd.Args[0] = os.Args[0]
		cmd.Dir, cmd.Stdin = "/", r
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: deathSignal}
		err := owner.AsCaller(cmd.Start)
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		w.Close()
		return nil, fmt.Errorf("start %s: %w", mournHelper, err)
	}
	return &mourner{life: w}, nil
}

// dismiss is for a daemon that leaves by itself, after its mount.
func (m *mourner) dismiss() {
	if m != nil && m.life != nil {
		_ = m.life.Close()
	}
}

func newMournHelper() *cobra.Command {
	return &cobra.Command{
		Use:    mournHelper + " MOUNTPOINT PID TID",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			pid, err := strconv.Atoi(args[1])
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			return mourn(cmd.Context(), cmd.InOrStdin(), args[0], pid, args[2])
		},
	}
}

// mourn returns when the daemon with that pid has left, of itself or with help.
// tid is its thread that started this process.
func mourn(ctx context.Context, life io.Reader, dir string, pid int, tid string) error {
	// The service manager tells all processes of a service to leave; this one
	// leaves after the daemon.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	dying := make(chan os.Signal, 1)
	signal.Notify(dying, deathSignal)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%s", pid, tid)); err == nil { // else the signal came too early
		left := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, life); close(left) }()
		select {
		case <-left:
			return nil
		case <-dying:
		}
	}
	o := umountOptions{wait: deathTime}
	if err := o.waitFor(ctx, pidfd); !errors.Is(err, errNoAnswer) {
		return err
	}
	return abortMount(dir)
}

// abortMount ends a mount's connection. The mount itself stays, so that nobody
// writes below it: it is held, and so too busy to be unmounted.
func abortMount(dir string) error {
	hold, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(hold)
	if err := unix.Unmount(dir, unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("abort the mount %s: %w", dir, err)
	}
	return nil
}
