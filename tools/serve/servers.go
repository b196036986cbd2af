package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mountTime bounds a mount: a filesystem that takes longer has not come back.
const mountTime = 60 * time.Second

// NewPlain is a directory as it is, or whatever somebody mounted there.
func NewPlain(name, dir string) (*Target, error) {
	p, err := newPlace(name, "plain", dir)
	if err != nil {
		return nil, err
	}
	p.Server = plain{p.Dir}
	return p, nil
}

type plain struct{ dir string }

func (plain) Start(context.Context, string) error { return nil }
func (plain) Stop(context.Context, string) error  { return nil }
func (plain) PID(context.Context) (int, error)    { return 0, nil }
func (s plain) Reset(context.Context) error       { return empty(s.dir) }

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// NewLoopback is go-fuse's example/loopback, bin, over a directory in dir.
func NewLoopback(name, dir, bin string) (*Target, error) {
	p, err := newPlace(name, "loopback", dir)
	if err != nil {
		return nil, err
	}
	back := filepath.Join(p.root, "back")
	p.Server = &loopback{bin: bin, back: back}
	return p, os.Mkdir(back, 0o755)
}

type loopback struct {
	bin, back string
	cmd       *exec.Cmd
	left      chan error // closed once the process has left
}

func (s *loopback) Start(ctx context.Context, mountpoint string) error {
	// A file and not a pipe, which nobody would empty while it serves.
	log, err := os.CreateTemp("", "loopback-")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd := exec.Command(s.bin, "-q", "-directmount", mountpoint, s.back)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	// One waits for the process, whoever asks: Wait may be called once only.
	left := make(chan error)
	go func() { defer close(left); _ = cmd.Wait() }()
	s.cmd, s.left = cmd, left

	up := poll(ctx, mountTime, func() bool {
		// By the kernel's table: to stat a mountpoint that is just being mounted may hang.
		on, err := Mounted(mountpoint)
		return err != nil || on || s.gone()
	})
	if !up || s.gone() {
		said, _ := os.ReadFile(log.Name())
		err := fmt.Errorf("loopback did not mount: %s", tail(string(said)))
		return errors.Join(err, killServer(cmd.Process.Pid, mountpoint))
	}
	return nil
}

func (s *loopback) gone() bool {
	select {
	case <-s.left:
		return true
	default:
		return false
	}
}

func (s *loopback) Stop(ctx context.Context, mountpoint string) error {
	if err := unmount(ctx, mountpoint); err != nil {
		return err
	}
	// The daemon ends a moment after its mount has gone; only then may its directory be emptied.
	select {
	case <-s.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *loopback) Reset(context.Context) error { return empty(s.back) }

func (s *loopback) PID(context.Context) (int, error) {
	return s.cmd.Process.Pid, nil
}

// QuarXFS says how a store is made and mounted.
type QuarXFS struct {
	Bin        string
	InitFlags  []string
	MountFlags []string
	Store      string // on a disk of the caller's; "" is one in the place
}

// NewQuarXFS is a new store in dir, not yet mounted.
func NewQuarXFS(ctx context.Context, name, dir string, q QuarXFS) (*Target, error) {
	p, err := newPlace(name, "quarxfs", dir)
	if err != nil {
		return nil, err
	}
	s := &quarxfs{QuarXFS: q, store: q.Store}
	if s.store == "" {
		s.store = filepath.Join(p.root, "store")
	}
	p.Server = s
	return p, s.Reset(ctx)
}

type quarxfs struct {
	QuarXFS
	store string
}

func (s *quarxfs) Start(ctx context.Context, mountpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, mountTime)
	defer cancel()
	args := append([]string{"mount", s.store, mountpoint}, s.MountFlags...)
	_, err := run(ctx, nil, s.Bin, args...)
	return err
}

func (s *quarxfs) Stop(ctx context.Context, mountpoint string) error {
	_, err := run(ctx, nil, s.Bin, "umount", mountpoint)
	return err
}

func (s *quarxfs) Reset(ctx context.Context) error {
	if err := os.RemoveAll(s.store); err != nil {
		return err
	}
	_, err := run(ctx, nil, s.Bin, append([]string{"init", s.store}, s.InitFlags...)...)
	return err
}

func (s *quarxfs) PID(ctx context.Context) (int, error) {
	st, err := s.stats(ctx)
	if err == nil && st.Daemon.PID <= 0 {
		err = fmt.Errorf("%s stats %s --json names no daemon.pid", s.Bin, s.store)
	}
	return st.Daemon.PID, err
}

func (s *quarxfs) Messages(ctx context.Context) (map[string]int64, error) {
	st, err := s.stats(ctx)
	return st.FUSE.Requests, err
}

// daemonStats is the part of `quarxfs stats --json` that tools rely on.
type daemonStats struct {
	Daemon struct {
		PID int `json:"pid"`
	} `json:"daemon"`
	FUSE struct {
		Requests map[string]int64 `json:"requests"`
	} `json:"fuse"`
}

func (s *quarxfs) stats(ctx context.Context) (daemonStats, error) {
	var st daemonStats
	cmd := exec.CommandContext(ctx, s.Bin, "stats", s.store, "--json")
	out, err := cmd.Output()
	if err != nil {
		return st, fmt.Errorf("%s stats %s: %w", s.Bin, s.store, err)
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return st, fmt.Errorf("%s stats %s --json: %w", s.Bin, s.store, err)
	}
	return st, nil
}

// Commands serve any other filesystem. Each is a line for sh, with $MNT the
// mountpoint and $DIR a directory for the filesystem's own data.
type Commands struct {
	Mount  string // returns when the filesystem answers
	Umount string // "" is umount(2)
	Init   string // makes $DIR, which is empty, a new filesystem; may be ""
	PID    string // prints the daemon's process ID; may be ""
}

// NewCommands is a filesystem served by commands in a directory of its own.
func NewCommands(ctx context.Context, name, dir string, c Commands) (*Target, error) {
	p, err := newPlace(name, "custom", dir)
	if err != nil {
		return nil, err
	}
	s := &commands{Commands: c, data: filepath.Join(p.root, "data"), point: p.Dir}
	p.Server = s
	if err := os.Mkdir(s.data, 0o755); err != nil {
		return nil, err
	}
	return p, s.Reset(ctx)
}

type commands struct {
	Commands
	data, point string
}

func (s *commands) sh(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mountTime)
	defer cancel()
	return run(ctx, []string{"MNT=" + s.point, "DIR=" + s.data}, "sh", "-c", line)
}

func (s *commands) Start(ctx context.Context, mountpoint string) error {
	if _, err := s.sh(ctx, s.Mount); err != nil {
		return err
	}
	if on, err := Mounted(mountpoint); err != nil || !on {
		return errors.Join(err, fmt.Errorf("nothing is mounted at %s after %q", mountpoint, s.Mount))
	}
	return nil
}

func (s *commands) Stop(ctx context.Context, mountpoint string) error {
	if s.Umount == "" {
		return unmount(ctx, mountpoint)
	}
	_, err := s.sh(ctx, s.Umount)
	return err
}

func (s *commands) Reset(ctx context.Context) error {
	if err := empty(s.data); err != nil || s.Init == "" {
		return err
	}
	_, err := s.sh(ctx, s.Init)
	return err
}

func (s *commands) PID(ctx context.Context) (int, error) {
	if s.Commands.PID == "" {
		return 0, nil
	}
	out, err := s.sh(ctx, s.Commands.PID)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%q printed %q, not a process ID", s.Commands.PID, out)
	}
	return pid, nil
}
