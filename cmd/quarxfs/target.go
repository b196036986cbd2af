package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/termlog"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/routine"
)

// errNotDir: the argument names a file, perhaps one inside a mount.
var errNotDir = syscall.ENOTDIR

const storeVariable = "QUARXFS_STORE"

// locate returns the directory of the store that an argument names, or its URL; ""
// is the mount one stands in, else $QUARXFS_STORE. An argument that is there names
//
//	a URL                            the store that its node has
//	the directory of a store         that store, wherever the directory is
//	any path in a mount of a store   the mounted store
//
// and nothing else; one that is not there names no store. store.ErrNotStore, errNoStore,
// errNotMounted.
func locate(arg string) (string, error) {
	to, err := locateAt(arg)
	return to.dir, err
}

// A target is what STORE names.
type target struct {
	dir    string    // of the store, or the URL of a node that has it
	device string    // of the mount that STORE leads into, if it does: its daemon is asked
	at     *location // where STORE leads to in that mount; nil: it names no path in one
}

// in is the target of what leads into a mount.
func in(p *location) target { return target{p.mount.Source, p.mount.Device, p} }

// locateAt is locate with all that is to be known.
func locateAt(arg string) (to target, err error) {
	if arg == "" {
		if p, err := openLocation(".", follow); p != nil && p.quarxfs() {
			return target{dir: p.mount.Source, device: p.mount.Device}, err
		}
		if arg = os.Getenv(storeVariable); arg == "" {
			return to, errNoStore
		}
	}
	if isURL(arg) {
		return target{dir: arg}, nil
	}
	p, err := openLocation(arg, follow)
	if noDaemonServes(err) {
		p, err = findLocation(arg) // below the mountpoint of a dead daemon
	}
	switch {
	case errors.Is(err, errMoved):
		return to, err
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, errNotDir) || errors.Is(err, syscall.ELOOP):
		return to, explainNoStore(arg, err)
	case err != nil:
		return to, err
	// Whatever files the top of a mount has, it is the mount that is meant.
	case p.top():
		return in(p), nil
	}
	_, err = store.ReadConfig(p.path)
	switch {
	case err == nil:
		return target{dir: p.path}, nil
	case p.quarxfs():
		return in(p), nil
	case errors.Is(err, store.ErrNotStore) || errors.Is(err, errNotDir):
		return to, explainNoStore(p.path, err)
	}
	return to, err
}

// findStorePath returns the store whose mount a path leads into, to what is there or is to be
// made. errNotMounted.
func findStorePath(path string) (to target, err error) {
	p, err := findLocation(path)
	if err == nil && !p.quarxfs() {
		err = fmt.Errorf("%w: %s", errNotMounted, path)
	}
	if err != nil {
		return to, err
	}
	return in(p), nil
}

// isStore reports whether an argument stands for a store by itself, and not for something that
// is in one: a URL, the directory of a store, or a mountpoint of one, also of a part of it. An
// argument that could be STORE, where STORE may be left out, or the name of something else
// is STORE only then; so no name is taken for the store that one stands in.
func isStore(arg string) bool {
	if arg == "" || isURL(arg) {
		return arg != ""
	}
	p, err := openLocation(arg, follow)
	if err != nil {
		return errors.Is(err, errMoved)
	}
	if p.quarxfs() && p.path == p.mount.Dir {
		return true
	}
	_, err = store.ReadConfig(p.path)
	return err == nil || !errors.Is(err, store.ErrNotStore) && !errors.Is(err, errNotDir)
}

// errUnmounted: there is a mountpoint of a store, or an empty directory, which most likely is one.
var errUnmounted = errors.New("nothing is mounted there")

const fstab = "/etc/fstab"

// explainNoStore says why what is at a path is no store: store.ErrNotStore. It may be the
// mountpoint of one, or in it.
func explainNoStore(path string, err error) error {
	if table, rerr := os.ReadFile(fstab); rerr == nil {
		if of := storeInFstab(string(table), path); of != "" {
			return fmt.Errorf("%s: %s, and %w: %w", path, of, errUnmounted, store.ErrNotStore)
		}
	}
	names, derr := os.ReadDir(path)
	switch {
	case errors.Is(derr, os.ErrNotExist):
		return fmt.Errorf("%s does not exist: %w", path, store.ErrNotStore)
	case derr == nil && len(names) == 0:
		return fmt.Errorf("%s is an empty directory, and %w: %w", path, errUnmounted, store.ErrNotStore)
	case errors.Is(err, store.ErrNotStore):
		return err
	}
	return fmt.Errorf("%s: %w", path, store.ErrNotStore)
}

// storeInFstab says of which store fstab(5) has a mountpoint that is at a path or above it, if any.
func storeInFstab(table, path string) (says string) {
	path, err := mounts.Resolve(path)
	if err != nil {
		return ""
	}
	nearest := ""
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		from := strings.TrimPrefix(mounts.Unescape(f[0]), "quarxfs#") // as mount.fuse has it
		// Three ways to write it, by mount(8) itself or through mount.fuse.
		known := f[2] == mounts.FSType || f[2] == "quarxfs" || f[2] == "fuse" && from != mounts.Unescape(f[0])
		at, err := mounts.Resolve(mounts.Unescape(f[1]))
		// The nearest, as one mount may lie in another.
		if known && err == nil && mounts.Within(path, at) && len(at) > len(nearest) {
			nearest, says = at, fmt.Sprintf("%s is the mountpoint of %s in %s", at, from, fstab)
		}
	}
	return says
}

// findStoreOf is findStore where PATH may be behind STORE: without STORE, it is the store whose
// mount the first path leads into, if it leads into any.
func findStoreOf(cmd *cobra.Command, args []string) (access, error) {
	if len(args) > 1 && args[0] == "" {
		to, err := asked(cmd.Context(), hangTime, args[1:2], func() (target, error) { return findStorePath(args[1]) })
		if errors.Is(err, daemon.ErrNoAnswer) || cmd.Context().Err() != nil {
			return access{}, err
		}
		if err == nil {
			return access{target: to, stderr: cmd.ErrOrStderr(), looks: among(cmd, lookingCommands)}, nil
		}
	}
	return findStore(cmd, args)
}

// onStore runs fn on the store that the first argument names, if there is one.
func onStore(cmd *cobra.Command, args []string, fn func(remote.Node) error) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	return a.run(cmd.Context(), fn)
}

// changeStore is onStore for what may leave blocks behind that nothing refers to.
func changeStore(cmd *cobra.Command, args []string, fn func(remote.Node) error) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	a.sweepAfter = true
	return a.run(cmd.Context(), fn)
}

func findStore(cmd *cobra.Command, args []string) (access, error) {
	arg := ""
	if len(args) > 0 {
		arg = args[0]
	}
	to, err := asked(cmd.Context(), hangTime, args, func() (target, error) { return locateAt(arg) })
	a := access{stderr: cmd.ErrOrStderr(), looks: among(cmd, lookingCommands)}
	if isURL(to.dir) {
		a.url = to.dir
		return a, acceptURL(cmd, a.url)
	}
	a.target = to
	return a, err
}

// commandWait is how long a command waits for another to let go of a store.
const commandWait = 3 * time.Second

// An access is how a command reaches a store.
type access struct {
	target
	url        string // of a node that has the store; empty: it is in dir
	stderr     io.Writer
	sweepAfter bool // reclaim what nothing refers to; a daemon does so anyway
	looks      bool // changes nothing
}

// run runs fn on the store: over the network, over the control socket of its daemon,
// or on the store itself.
func (a access) run(ctx context.Context, fn func(remote.Node) error) error {
	if a.url != "" {
		r, err := nodeAt(a.url)
		if err != nil {
			return err
		}
		return onPeer(r, func(c *remote.Client) error { return fn(c) })
	}
	deadline := time.Now().Add(commandWait)
	for {
		_, err := asked(ctx, 2*hangTime, []string{a.dir}, func() (any, error) {
			return nil, daemon.Answers(ctx, a.dir, a.device, hangTime)
		})
		if err == nil {
			client := daemon.Client(a.dir, a.device)
			defer client.Close()
			defer a.whileAsked(ctx)()
			return fn(client)
		}
		if !errors.Is(err, daemon.ErrNoDaemon) {
			return err
		}
		// Nobody has it open now; but a daemon or a command may take it meanwhile, and then it is
		// asked.
		err = a.runHere(ctx, fn)
		if !errors.Is(err, store.ErrLocked) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		// A command that holds the store has no socket that could be waited on.
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hangLook is how often a command that waits for a daemon looks whether that still answers, and how
// long the answer may take. Tests shorten it.
var hangLook = 30 * time.Second

// whileAsked looks at the daemon until stop is called, and says once if that answers no more: what
// was asked of it may take long, and must not be given up, but a daemon that hangs ends nothing.
func (a access) whileAsked(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for routine.Sleep(ctx, hangLook) == nil {
			_, err := asked(ctx, 2*hangLook, []string{a.dir}, func() (any, error) {
				return nil, daemon.Answers(ctx, a.dir, a.device, hangLook)
			})
			if ctx.Err() == nil && errors.Is(err, daemon.ErrNoAnswer) {
				fmt.Fprintf(a.stderr, "quarxfs: the daemon of %s does not answer any more; "+
					"this waits for it until it is interrupted\n", printable(a.dir))
				return
			}
		}
	}()
	// Waited for, so that nothing is said after the command's own last line.
	return func() { cancel(); <-over }
}

// runHere runs fn on a store that no daemon holds, for reading only where it cannot be written to.
func (a access) runHere(ctx context.Context, fn func(remote.Node) error) (err error) {
	log := slog.New(termlog.New(a.stderr))
	o := store.Options{Logger: log, SweepInterval: -1, LockWait: daemon.LockWait}
	// Opening for more writes a little, for which a full disk may have no room.
	o.ReadOnly = a.looks && full(a.dir)
	st, leave, err := openStore(a.dir, o)
	if err != nil && o.ReadOnly {
		o.ReadOnly = false // one that was never used has nothing to be read yet
		st, leave, err = openStore(a.dir, o)
	}
	var unwritable error
	if errors.Is(err, store.ErrUnwritable) {
		unwritable, o.ReadOnly = err, true
		st, leave, err = openStore(a.dir, o)
	}
	if err != nil {
		return err
	}
	// Deferred first and so run last: the store closes with the rights of its owner.
	defer func() { err = errors.Join(err, leave()) }()
	defer func() { err = errors.Join(err, st.Close()) }()
	// The volume as well, since what is asked may be about files.
	vol, err := volume.Open(st, volume.Options{Logger: log, NoAtime: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	err = handle.ShownError(fn(remote.NewLocal(st, localnode.Around(vol))))
	if errors.Is(err, store.ErrReadOnly) && unwritable != nil {
		err = unwritable // nobody has mounted it so
	}
	if a.sweepAfter && !o.ReadOnly {
		// Without a daemon nobody would do it later.
		_, serr := st.Sweep(ctx)
		err = errors.Join(err, serr)
	}
	return err
}

// full tells whether the disk of a directory has no room to speak of.
func full(dir string) bool {
	const least = 32 << 20
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Bavail)*st.Frsize < least
}

// onFlushedStore is onStore after the kernel has handed over what was written to
// a mount.
func onFlushedStore(cmd *cobra.Command, args []string, fn func(remote.Node) error) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	return a.runFlushed(cmd.Context(), fn)
}

// runFlushed is run after the kernel has handed over what was written to a mount.
func (a access) runFlushed(ctx context.Context, fn func(remote.Node) error) error {
	return a.run(ctx, func(n remote.Node) error {
		if a.url == "" { // who is let in from elsewhere may not have it do anything
			if err := n.Sync(ctx); err != nil {
				return err
			}
		}
		return fn(n)
	})
}

// onRefs runs fn on a store and what the arguments behind STORE refer to.
func onRefs(cmd *cobra.Command, args []string, fn func(n remote.Node, refs []string) error) error {
	a, err := findStoreOf(cmd, args)
	if err != nil {
		return err
	}
	return a.runFlushed(cmd.Context(), func(n remote.Node) error {
		refs := make([]string, len(args)-1)
		for i := range refs {
			if refs[i], err = a.ref(cmd.Context(), n, args[i+1]); err != nil {
				return err
			}
		}
		return fn(n, refs)
	})
}
