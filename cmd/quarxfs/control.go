package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/handle"
)

const controlName = "control.sock"

// errNoDaemon: no process listens on the store's control socket.
var errNoDaemon = errors.New("no daemon")

// listenControl replaces the store's control socket; the caller holds the
// store's lock, so one that is there is a dead daemon's. The name of the directory
// must be short, as of a handle: a socket's address takes 107 bytes.
func listenControl(dir string) (net.Listener, error) {
	if err := removeControl(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, controlName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, handle.ShownError(fmt.Errorf("listen on %s: %w", path, err))
	}
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(path, 0o600)
}

func removeControl(dir string) error {
	err := os.Remove(filepath.Join(dir, controlName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// dialControl connects to the store's daemon. errNoDaemon: there is none.
func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoDaemon
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// Who can write there could have put a link to somebody else's socket in its place.
	if at, err := os.Lstat(d.Join(controlName)); err == nil && at.Mode().Type() != os.ModeSocket {
		return nil, errNoDaemon
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", d.Join(controlName))
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
