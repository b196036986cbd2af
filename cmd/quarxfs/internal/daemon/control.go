package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
)

const SocketName = remote.ControlSocket

// ErrNoDaemon: no process listens on the store's control socket.
var ErrNoDaemon = errors.New("no daemon")

// ownSocket and ownLog are where a daemon has its control socket and its log: in the store's
// directory. One that only reads has them elsewhere, since nothing there is to change, or can:
// the socket by the number of its filesystem, as several may read.
func (d *daemon) ownSocket() (string, error) {
	if !d.readsOnly() {
		return d.path(SocketName), nil
	}
	of := d.at.Device
	if d.mount == nil {
		of = fmt.Sprintf("pid%d", os.Getpid())
	}
	return besides(d.path(), socketOf(of))
}

func (d *daemon) ownLog() (string, error) {
	if !d.readsOnly() {
		return d.path(LogName), nil
	}
	return besides(d.path(), ".log")
}

func (d *daemon) readsOnly() bool { return d.snaps == nil && d.store.ReadOnly() }

// socketOf ends the name of the control socket of a daemon that only reads.
func socketOf(device string) string { return "-" + strings.ReplaceAll(device, ":", "-") + ".sock" }

// socketsOf returns where the control sockets of the daemons of a store may be: first that of the
// daemon which only reads and serves the filesystem with a device number, if one does.
func socketsOf(d *handle.Dir, device string) []string {
	list := []string{d.Join(SocketName)}
	prefix, err := besides(d.Join(), "-")
	if err != nil {
		return list
	}
	// Not by a pattern: the directory is named by the environment, and may have brackets in its
	// name.
	dir, prefix := filepath.Split(prefix)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, prefix) && strings.HasSuffix(name, ".sock") {
			list = append(list, filepath.Join(dir, name))
		}
	}
	own := func(path string) bool { return device != "" && strings.HasSuffix(path, socketOf(device)) }
	slices.SortStableFunc(list, func(a, b string) int {
		switch {
		case own(a):
			return -1
		case own(b):
			return 1
		}
		return 0
	})
	return list
}

const runtimeTop = "/run/quarxfs" // root's

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
	// 0700, as what is in it answers for the store.
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
	// removeControl does so once no request is left: without a socket a daemon counts as dead.
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

// Dial connects to the store's daemon. Several may have the store open for reading only:
// then to the one that serves the filesystem with that device number, if one does, else to any.
// ErrNoDaemon: there is none.
func Dial(ctx context.Context, dir, device string) (net.Conn, error) {
	// Through a handle, as the path may be longer than a socket's address.
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoDaemon
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// The names lead through the handle, which stays open until one is connected.
	for _, path := range socketsOf(d, device) {
		c, derr := dialSocket(ctx, path)
		if derr == nil {
			return c, nil
		}
		// The socket of a dead daemon is passed over; a daemon that may not be asked is an error,
		// if no other answers.
		if !errors.Is(derr, ErrNoDaemon) {
			err = derr
		}
	}
	if err == nil {
		err = ErrNoDaemon
	}
	return nil, err
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	// Who can write there could have put a link to somebody else's socket in its place.
	if at, err := os.Lstat(path); err == nil && at.Mode().Type() != os.ModeSocket {
		return nil, ErrNoDaemon
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNoDaemon
	}
	if errors.Is(err, syscall.EACCES) { // the socket, or what is above it, belongs to another user
		err = &os.PathError{Op: "connect", Path: path, Err: syscall.EACCES}
	}
	return c, handle.ShownError(err)
}

// Peer returns a pidfd of the process on the other side of a unix socket, which stays that
// process's even when its number is given to another.
func Peer(c net.Conn) (pid, pidfd int, err error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var cred *unix.Ucred
	// By the descriptor, while the connection keeps it open.
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, -1, err
	}
	// The peer holds its end of the connection, so its number is not another's yet.
	pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	return int(cred.Pid), pidfd, err
}

// Client returns a client of the store's daemon, which need not be there yet.
func Client(dir, device string) *remote.Client {
	return remote.NewControlClient(func(ctx context.Context) (net.Conn, error) {
		c, err := Dial(ctx, dir, device)
		if errors.Is(err, ErrNoDaemon) { // it was there before
			err = fmt.Errorf("%w: it has ended", ErrNoAnswer)
		}
		return c, err
	})
}

// Answers returns when the store's daemon has answered something. To be connected says nothing: the
// kernel does that for a daemon that hangs, too. ErrNoDaemon; ErrNoAnswer: it has not within that
// time.
func Answers(ctx context.Context, dir, device string, within time.Duration) error {
	c, err := Dial(ctx, dir, device)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	// Any path does; it is not found, which is an answer.
	_, err = io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n")
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return ErrNoDaemon // it ends just now
	}
	pid, pidfd, err := Peer(c)
	if err != nil {
		return fmt.Errorf("%w: nothing has come for %v", ErrNoAnswer, within)
	}
	unix.Close(pidfd)
	return fmt.Errorf("%w: nothing has come from process %d for %v", ErrNoAnswer, pid, within)
}
