package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/transport"
	"github.com/quarxtor/quarxfs/fs/volume"
)

// The errors of Mount, to be told apart with errors.Is.
var (
	ErrNoFUSE       = errors.New("FUSE is not available")
	ErrNoFusermount = errors.New("fusermount3 is not installed")
	ErrMountpoint   = errors.New("bad mountpoint")
)

// A Transport is a way that the kernel's requests take to a mount.
type Transport = transport.Kind

// Auto is io_uring where the kernel is known to be good at it, else /dev/fuse.
const (
	Auto   = transport.Auto
	Ring   = transport.Ring
	Device = transport.Device
)

// ServeOptions are the settings of any mount.
type ServeOptions struct {
	ReadAhead int // KiB that the kernel reads ahead; 0: 4096. Only root can raise it over 128.
	Transport Transport
	Logger    *slog.Logger
}

// MountOptions are the settings of a volume's mount.
type MountOptions struct {
	ServeOptions
	Source     string                      // shown by df: the store's directory
	AllowOther bool                        // users other than the mounting one may enter; always so for root
	Options    []string                    // further mount options: ro, nosuid, nodev, noexec, ...
	Sync       func(context.Context) error // has another process call syncfs(2) on the mount, before mkdir makes a snapshot
	Debug      bool                        // log every request
}

const maxRequest = 1 << 20 // bytes of one READ or WRITE; the kernel's own limit

// A Mount is a mounted filesystem.
type Mount struct {
	server *transport.Server
	fs     *filesystem // nil: it is no volume's
}

// CheckMountpoint reports why a filesystem cannot be mounted at dir. The errors
// are ErrMountpoint.
func CheckMountpoint(dir string) error {
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s does not exist; make it with mkdir", ErrMountpoint, dir)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %s is not a directory", ErrMountpoint, dir)
	case errors.Is(err, syscall.ENOTCONN):
		return fmt.Errorf("%w: %s holds a mount whose daemon has died; run quarxfs umount %s", ErrMountpoint, dir, dir)
	case err != nil:
		return fmt.Errorf("%w: %v", ErrMountpoint, err)
	}
	// Empty or not: a mount on a mount would hide it from its own umount.
	if mounted, err := isMountpoint(dir); err != nil || mounted {
		return fmt.Errorf("%w: %s is already a mountpoint; unmount it first", ErrMountpoint, dir)
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s is not empty; choose an empty directory", ErrMountpoint, dir)
	}
	return nil
}

func isMountpoint(dir string) (bool, error) {
	var here, up syscall.Stat_t
	if err := syscall.Stat(dir, &here); err != nil {
		return false, err
	}
	if err := syscall.Stat(filepath.Join(dir, ".."), &up); err != nil {
		return false, err
	}
	// Another device than the parent's, or the root, which is its own parent.
	return here.Dev != up.Dev || here.Ino == up.Ino, nil
}

// NewMount mounts the volume at dir and serves it; it returns when the mount
// answers. It sets the process's umask to 0.
func NewMount(v *volume.Volume, dir string, o MountOptions) (*Mount, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := newFilesystem(v, o.Logger)
	// All is set before attach: from then on requests come.
	f.sync = o.Sync
	v.OnInvalidate(f.invalidate)
	syscall.Umask(0) // before the first request
	m, err := attach(f, dir, o.fuse(), o.ServeOptions)
	if err != nil {
		return nil, err
	}
	m.fs, f.server = f, m.server
	m.serve(dir, o.ServeOptions)
	return m, nil
}

// Serve mounts a filesystem of any kind at dir and serves it; it returns when the
// mount answers. Errors: ErrMountpoint, ErrNoFUSE, ErrNoFusermount.
//
// Nothing here may send the mount a request, as go-fuse's WaitMount does: a daemon
// that is killed while it waits for itself cannot leave, since the request ends
// only when the daemon has left, and keeps the store. The kernel has been
// greeted when attach returns, and requests from then on wait for Serve.
func Serve(raw fuse.RawFileSystem, dir string, o *fuse.MountOptions, own ServeOptions) (*Mount, error) {
	m, err := attach(raw, dir, o, own)
	if err != nil {
		return nil, err
	}
	m.serve(dir, own)
	return m, nil
}

// attach mounts; requests wait for serve.
func attach(raw fuse.RawFileSystem, dir string, o *fuse.MountOptions, own ServeOptions) (*Mount, error) {
	if err := CheckMountpoint(dir); err != nil {
		return nil, err
	}
	if err := checkFUSE(); err != nil {
		return nil, err
	}
	server, err := transport.New(raw, dir, o, transport.Options{Kind: own.Transport})
	var noRing *transport.ErrNoRing
	if errors.As(err, &noRing) {
		return nil, fmt.Errorf("%w: %w; choose another transport", ErrNoFUSE, noRing)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return &Mount{server: server}, nil
}

func (m *Mount) serve(dir string, o ServeOptions) {
	if kind, why := m.server.InUse(); why == nil {
		o.Logger.Info("requests come over "+kind.String(), "threads", m.server.Threads())
	} else {
		o.Logger.Info("requests come over "+kind.String(), "why", why)
	}
	freeProcessors(m.server.Threads())
	m.server.Serve()
	if err := raiseReadAhead(dir, o.ReadAhead); err != nil {
		o.Logger.Info("the kernel's read-ahead stays at its default", "err", err)
	}
}

// freeProcessors adds processors to Go's scheduler for the threads that block in a read of
// /dev/fuse. Such a thread keeps its processor until the runtime's monitor takes it away, so with
// as many processors as cores an idle mount could have none left, and a request would begin by
// waiting for one. What shall use the cores counts cores.
func freeProcessors(threads int) { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + threads) }

func checkFUSE() error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("%w: /dev/fuse is missing; load the fuse module or run with --device /dev/fuse", ErrNoFUSE)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := transport.Helper(); err != nil {
		return fmt.Errorf("%w: install the package fuse3 or mount as root", ErrNoFusermount)
	}
	return nil
}

func (o MountOptions) fuse() *fuse.MountOptions {
	root := os.Geteuid() == 0
	return &fuse.MountOptions{
		AllowOther: o.AllowOther || root,
		// The kernel checks permissions, by the attributes that it caches; nothing here has to.
		Options:          append([]string{"default_permissions"}, o.Options...),
		FsName:           o.Source,
		Name:             "quarxfs",
		MaxWrite:         maxRequest,
		MaxReadAhead:     maxRequest,
		MaxBackground:    64,
		EnableAcl:        true,
		Debug:            o.Debug,
		Logger:           slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		DirectMount:      root,
		DirectMountFlags: unix.MS_MGC_VAL, // root may use suid and devices

		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		ExtraCapabilities: fuse.CAP_WRITEBACK_CACHE | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_NO_OPENDIR_SUPPORT |
			fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT | fuse.CAP_EXPORT_SUPPORT,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}
}

// raiseReadAhead lets the kernel read further ahead than FUSE's default of
// 128 KiB.
func raiseReadAhead(dir string, kib int) error {
	if kib == 0 {
		kib = 4096
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil { // needs no request
		return err
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	return os.WriteFile(path, []byte(strconv.Itoa(kib)), 0)
}

// Wait returns when the filesystem has been unmounted and no request is left.
func (m *Mount) Wait() { m.server.Wait() }

// heldTime is how long Unmount waits for the end of a filesystem that somebody still holds.
const heldTime = time.Second

// Unmount detaches the mount, which is at dir now: it may have been moved. It waits for the
// filesystem's end. Files that are open in it, and bind mounts of it, answer until they are gone or
// the process ends, so after a second it returns all the same.
func (m *Mount) Unmount(dir string) error {
	if err := transport.Detach(dir); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { m.server.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(heldTime):
	}
	return nil
}

// Stats returns the mount's counts of requests.
func (m *Mount) Stats() Stats { return m.fs.meter.Stats() }
