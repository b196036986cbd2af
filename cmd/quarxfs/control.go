package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
)

const controlName = "control.sock"

// errNoDaemon: no process listens on the store's control socket.
var errNoDaemon = errors.New("no daemon")

// ownSocket and ownLog are where a daemon has its control socket and its log: in the store's
// directory. One that only reads has them elsewhere, since nothing there is to change, or can:
// the socket by the number of its process, as several may read.
func (d *daemon) ownSocket() (string, error) {
	if !d.readsOnly() {
		return d.path(controlName), nil
	}
	return besides(d.path(), fmt.Sprintf("-%d%s", os.Getpid(), socketExt))
}

func (d *daemon) ownLog() (string, error) {
	if !d.readsOnly() {
		return d.path(logName), nil
	}
	return besides(d.path(), ".log")
}

func (d *daemon) readsOnly() bool { return d.past == nil && d.store.ReadOnly() }

// socketsOf returns where the control sockets of the daemons of a store may be.
func socketsOf(d *handle.Dir) []string {
	list := []string{d.Join(controlName)}
	if prefix, err := besides(d.Join(), "-"); err == nil {
		more, _ := filepath.Glob(prefix + "*" + socketExt)
		list = append(list, more...)
	}
	return list
}

const (
	socketExt  = ".sock"
	runtimeTop = "/run/quarxfs" // root's
)

// besides names a file of a store that is not in its directory, which its device and its inode
// stand for.
func besides(dir, suffix string) (string, error) {
	top := runtimeTop
	if uid := os.Getuid(); uid != 0 {
		if top = os.Getenv("XDG_RUNTIME_DIR"); top == "" {
			top = filepath.Join(os.TempDir(), fmt.Sprintf("quarxfs-%d", uid))
		} else {
			top = filepath.Join(top, "quarxfs")
		}
	}
	if err := os.Mkdir(top, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Somebody else could have made it.
	var st unix.Stat_t
	if err := unix.Lstat(top, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: top, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return "", fmt.Errorf("%s: %w: it must be a directory of user %d with mode 0700", top, owner.ErrUnsafe, os.Getuid())
	}
	return filepath.Join(top, strings.ReplaceAll(volume.DirectoryKey(dir), ":", "-")+suffix), nil
}

// listenControl makes a control socket; one that is there is a dead daemon's. Its path
// must be short, as through a handle: a socket's address takes 107 bytes.
func listenControl(path string) (net.Listener, error) {
	if err := removeControl(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, handle.ShownError(fmt.Errorf("listen on %s: %w", path, err))
	}
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(path, 0o600)
}

func removeControl(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// dialControl connects to the store's daemon, to any if there are several. errNoDaemon: there
// is none.
func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	conns, err := dialControls(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, c := range conns[1:] {
		c.Close()
	}
	return conns[0], nil
}

// dialControls connects to all daemons of a store: several may have it open for reading only.
// errNoDaemon: there is none.
func dialControls(ctx context.Context, dir string) ([]net.Conn, error) {
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoDaemon
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var conns []net.Conn
	for _, path := range socketsOf(d) {
		c, derr := dialSocket(ctx, path)
		if derr == nil {
			conns = append(conns, c)
		} else if !errors.Is(derr, errNoDaemon) {
			err = derr
		}
	}
	if len(conns) > 0 {
		return conns, nil
	}
	if err == nil {
		err = errNoDaemon
	}
	return nil, err
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	// Who can write there could have put a link to somebody else's socket in its place.
	if at, err := os.Lstat(path); err == nil && at.Mode().Type() != os.ModeSocket {
		return nil, errNoDaemon
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNoDaemon
	}
	return c, handle.ShownError(err)
}

// peerProcess returns a pidfd of the process on the other side of a unix socket, which stays that
// process's even when its number is given to another.
func peerProcess(c net.Conn) (pid, pidfd int, err error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, -1, err
	}
	pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	return int(cred.Pid), pidfd, err
}

func controlClient(dir string) *remote.Client {
	return remote.NewClient("http://daemon", func(ctx context.Context) (net.Conn, error) { return dialControl(ctx, dir) })
}
