// Package serve mounts and unmounts the filesystems that the tools measure and
// torment, and cleans up after them whatever happens.
package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Server makes one filesystem available at a mountpoint.
type Server interface {
	// Start returns when the filesystem answers at mountpoint.
	Start(ctx context.Context, mountpoint string) error
	// Stop returns when the filesystem is unmounted and its daemon has left.
	Stop(ctx context.Context, mountpoint string) error
	// Reset makes the filesystem new and empty. It is called while stopped.
	Reset(ctx context.Context) error
	// PID names the daemon of a started filesystem; 0 where there is none.
	PID(ctx context.Context) (int, error)
}

// A Counter is a Server that counts the FUSE messages it has had, by operation,
// since it was started.
type Counter interface {
	Messages(ctx context.Context) (map[string]int64, error)
}

// A Target is a directory to work in and the server behind it.
type Target struct {
	Name   string
	Kind   string // "plain", "loopback", "quarxfs" or "custom"
	Dir    string // the mountpoint, or for a plain directory the directory
	Server Server
	root   string // made by us, removed by Close
	on     bool   // started, perhaps only half
	pid    int
}

// stopTime bounds an orderly unmount in Close, before the daemon is killed.
const stopTime = 30 * time.Second

// Mount starts the server.
func (p *Target) Mount(ctx context.Context) error {
	p.on = true
	if err := p.Server.Start(ctx, p.Dir); err != nil {
		return fmt.Errorf("mount %s: %w", p.Name, err)
	}
	return nil
}

// Unmount stops the server, if it runs.
func (p *Target) Unmount(ctx context.Context) error {
	if !p.on {
		return nil
	}
	if err := p.Server.Stop(ctx, p.Dir); err != nil {
		return fmt.Errorf("unmount %s: %w", p.Name, err)
	}
	p.on, p.pid = false, 0
	return nil
}

// PID is the running daemon's process ID, or 0 where there is none. It asks the
// server once per mount.
func (p *Target) PID(ctx context.Context) (int, error) {
	if !p.on || p.pid > 0 {
		return p.pid, nil
	}
	pid, err := p.Server.PID(ctx)
	p.pid = pid
	return pid, err
}

// Reset leaves the place mounted, new and empty.
func (p *Target) Reset(ctx context.Context) error {
	if err := p.Unmount(ctx); err != nil {
		return err
	}
	if err := p.Server.Reset(ctx); err != nil {
		return fmt.Errorf("reset %s: %w", p.Name, err)
	}
	return p.Mount(ctx)
}

// Kill ends the daemon with SIGKILL, so that every call that waits for it
// returns an error, and takes its mount out of the tree. A daemon that will
// not tell its process ID is left to notice that its mount is gone.
func (p *Target) Kill(ctx context.Context) error {
	if pid, err := p.PID(ctx); err == nil && pid > 0 {
		if err := killServer(pid, p.Dir); err != nil {
			return err
		}
	}
	if err := Detach(p.Dir); err != nil {
		return err
	}
	p.on, p.pid = false, 0
	return nil
}

// Keep leaves the place's files where they are when it is closed, and says
// where that is.
func (p *Target) Keep() string {
	root := p.root
	p.root = ""
	return root
}

// Close unmounts and removes all that was made for the place, by force where
// it has to. It works after ctx is cancelled.
func (p *Target) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err := p.Unmount(ctx)
	if err != nil {
		err = errors.Join(err, p.Kill(ctx))
	}
	if p.root == "" {
		return err
	}
	// A mount that is still there would be emptied, not removed.
	if inside, merr := mountsUnder(p.root); merr != nil || len(inside) > 0 {
		return errors.Join(err, merr, fmt.Errorf("left %s in place, still mounted: %v", p.root, inside))
	}
	return errors.Join(err, os.RemoveAll(p.root))
}

// newPlace makes a directory of its own under dir, with a mountpoint in it.
func newPlace(name, kind, dir string) (*Target, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(dir, "quarxfs-tools-")
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	p := &Target{Name: name, Kind: kind, Dir: filepath.Join(root, "mnt"), root: root}
	return p, os.Mkdir(p.Dir, 0o755)
}

// KillProcess sends SIGKILL and waits until the process has left or all its
// threads are zombies, which hold no files.
func KillProcess(pid int) error {
	if err := sendKill(pid); err != nil {
		return err
	}
	return awaitKilled(pid)
}

// killServer is KillProcess for the daemon behind a mount.
func killServer(pid int, mountpoint string) error {
	if err := sendKill(pid); err != nil {
		return err
	}
	abort(mountpoint)
	return awaitKilled(pid)
}

func sendKill(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	return nil
}

func awaitKilled(pid int) error {
	if !WaitGone(pid, 10*time.Second) {
		return fmt.Errorf("process %d is still there 10 s after SIGKILL", pid)
	}
	return nil
}

// alive looks at all threads: while one of them waits in the kernel, the process
// seems a zombie and still holds its files.
func alive(pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(tasks, func(path string) bool {
		stat, err := os.ReadFile(path)
		fields := StatFields(string(stat))
		return err == nil && len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
	})
}

// poll asks done every few milliseconds and tells whether it came true in time.
func poll(ctx context.Context, limit time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	for !done() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// WaitGone tells whether a process has left within a time.
func WaitGone(pid int, limit time.Duration) bool {
	return poll(context.Background(), limit, func() bool { return !alive(pid) })
}
