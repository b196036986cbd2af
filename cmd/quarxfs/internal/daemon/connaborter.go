package daemon

import (
	"bytes"
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

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/store/owner"
)

// A connAborter is a child of the daemon that aborts its FUSE connection when it is killed. One
// of the daemon's threads may then be waiting in the kernel for its own mount, as when a search
// for a hole has pages written back. That wait ends with the connection, the connection with the
// daemon, and the daemon with the last of its threads: never. Whoever uses the mount waits too,
// and so does every sync(2).
type connAborter struct {
	life *os.File // closed when the daemon leaves by itself
}

// AbortHelper is the command of the child.
const AbortHelper = "abort-helper"

const (
	// deathSignal tells the child that the daemon is dying.
	deathSignal = unix.SIGUSR2
	// deathTime is how long a daemon may take to die that waits for nothing.
	deathTime = time.Second
)

// startConnAborter is for root: others may not end a connection.
func startConnAborter(mount mounts.Key) (*connAborter, error) {
	if os.Getuid() != 0 && os.Geteuid() != 0 {
		return &connAborter{}, nil
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
		cmd := exec.Command(exe, AbortHelper, mount.String(), strconv.Itoa(os.Getpid()), strconv.Itoa(unix.Gettid()))
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
		return nil, fmt.Errorf("start %s: %w", AbortHelper, err)
	}
	return &connAborter{life: w}, nil
}

// dismiss is for a daemon that leaves by itself, after its mount.
func (a *connAborter) dismiss() {
	if a != nil && a.life != nil {
		_ = a.life.Close()
	}
}

// ErrHelper: a helper was not called by a daemon.
var ErrHelper = errors.New("only a daemon calls this")

// Abort is what AbortHelper does with its three arguments: MOUNT PID TID.
func Abort(ctx context.Context, stdin io.Reader, args []string) error {
	mount, ok := mounts.ParseKey(args[0])
	pid, err := strconv.Atoi(args[1])
	if err != nil || !ok {
		return ErrHelper
	}
	return abortAfter(ctx, stdin, mount, pid, args[2])
}

// abortAfter returns when the daemon with that pid has left, of itself or because its connection
// was aborted. tid is its thread that started this process.
func abortAfter(ctx context.Context, life io.Reader, mount mounts.Key, pid int, tid string) error {
	// The service manager tells all processes of a service to leave; this one
	// leaves after the daemon.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	dying := make(chan os.Signal, 1)
	signal.Notify(dying, deathSignal)
	// By a handle, as the number may be another process's when the daemon has ended.
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	left := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, life); close(left) }()
	// Looked at twice, as the signal may have come before it was listened to, and comes a moment
	// before the thread is seen to have ended.
	for early := time.After(deathTime); !ended(pid, tid); early = nil {
		select {
		case <-left:
			return nil
		case <-early:
			continue
		case <-dying:
		}
		break
	}
	// A daemon that can die does so within this time, and its mount ends as usual.
	if err := WaitForEnd(ctx, pidfd, deathTime); !errors.Is(err, ErrNoAnswer) {
		return err
	}
	return abortMount(mount)
}

// ended reports whether a thread has. That of a process's first thread stays to be seen, as a
// zombie, until all others have ended.
func ended(pid int, tid string) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, tid))
	// The name before the state may have any bytes, also brackets.
	_, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return err != nil || ok && len(state) > 0 && (state[0] == 'Z' || state[0] == 'X')
}

// abortMount ends a mount's connection. The mount itself stays, so that nobody
// writes below it: it is held, and so too busy to be unmounted.
func abortMount(mount mounts.Key) error {
	m, ok := mount.FindAny()
	if !ok {
		return nil
	}
	hold, err := unix.Open(m.Dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", m.Dir, err)
	}
	defer unix.Close(hold)
	// By the handle: another filesystem, which would lose its connection, may be at the path now.
	at := fmt.Sprintf("/proc/self/fd/%d", hold)
	if k, err := mounts.KeyOf(at); err != nil || k.Device != mount.Device {
		return err
	}
	if err := unix.Unmount(at, unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("abort the mount %s: %w", m.Dir, err)
	}
	return nil
}
