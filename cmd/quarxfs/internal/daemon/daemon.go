// Package daemon is the process that has a store open: it mounts it, answers on its control socket
// and to other machines, makes snapshots, syncs and moves blocks in the background, and commits
// when it leaves. Commands reach it with Dial and Client, and wait for its end with WatchMount.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/termlog"
	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/tiering/pressure"
)

const (
	flushTime   = 30 * time.Second // for the kernel to hand over what it has not yet written
	unmountTime = 10 * time.Second
	drainTime   = 5 * time.Second  // for requests of other machines, before they are broken off
	controlTime = time.Second      // for those on the control socket
	closeTime   = 60 * time.Second // for the last commit
)

// A daemon is a store that is mounted, or only served, and its control socket.
type daemon struct {
	opts    *Options
	out     *logFile
	log     *slog.Logger
	store   *store.Store
	mirror  *carrier.Writer // nil: the store is no copy of a mirrored volume
	snaps   *snapshotMount  // in place of a store and its volume
	foreign bool            // the store is not the caller's, as whose owner this process acts
	volume  *volume.Volume
	mount   *fs.Mount
	at      mounts.Key     // the mount, wherever it is moved to
	control *serve.Service // on the control socket
	socket  string         // its path
	bound   os.FileInfo    // what listen has made there
	front   *serve.Front   // nil: no other machine is let in
	metrics *serve.Front   // nil: /metrics is on the control socket only

	watchers exitWatchers

	shown      *termlog.Handler   // what the terminal sees of the log until all is ready; may be nil
	aborter    *connAborter       // of this process's mount
	budget     *routine.Routine   // of memory
	background []*routine.Routine // snapshots, remotes, tiers
}

// Options are what a daemon is told.
type Options struct {
	Store      string // its directory; for a node, that of the cache
	Mountpoint string // empty: the store is served over the network only

	MountOptions []string // of mount(8): ro, nosuid, nodev, noexec, ...
	AllowOther   bool
	NoAtime      bool
	Snapshots    volume.SnapshotsShown
	ReadAhead    int // KiB
	Transport    fs.Transport
	Debug        bool

	Memory         int64
	CommitInterval time.Duration
	SnapshotEvery  *time.Duration // nil: as the store's settings say
	Listen         Listen

	Node      config.Remote // whose snapshots are mounted in place of a store; no URL: none
	CacheSize int64         // bytes of its blocks that are kept in Store

	ReadyFD int // where Start waits; -1: nobody does
	Version string
	Host    string                                      // which snapshots name
	Dial    func(config.Remote) (*remote.Client, error) // connects to a node
	Explain func(error) (code int, text string)         // how the process ends with an error, and what it says
}

// readOnly reports whether nothing may change what is in the store.
func (o *Options) readOnly() bool { return slices.Contains(o.MountOptions, "ro") }

// Serve opens the store, mounts it and returns when it has been unmounted or
// ctx has ended, with all committed.
func Serve(ctx context.Context, o *Options, stdout, stderr io.Writer) (err error) {
	d := &daemon{opts: o}
	if err := d.open(ctx, stderr); err != nil {
		return errors.Join(err, d.close())
	}
	if err := d.start(); err != nil {
		return errors.Join(err, d.close())
	}
	what := "mounted"
	if d.mount == nil {
		what = "serving"
	}
	d.log.Info(what, "store", o.Store, "mountpoint", o.Mountpoint, "pid", os.Getpid(), "version", o.Version)
	if err := d.ready(stdout); err != nil {
		d.log.Warn("nobody was told", "err", err)
	}
	// After the parent was told: both may start what needs the mount.
	notify(d.log, sd.SdNotifyReady)
	well, stop := context.WithCancel(context.Background())
	defer stop()
	go watchdog(well, d.log, d.alive)
	gone := make(chan struct{}) // the mount
	if d.mount != nil {
		// The mount can end without this process, by umount(8).
		go func() { d.mount.Wait(); close(gone) }()
	}
	select {
	case <-gone:
	case <-ctx.Done():
		d.log.Info("told to leave")
		notify(d.log, sd.SdNotifyStopping)
		if d.mount != nil {
			d.leave(gone)
		}
	}
	stop()
	err = d.close()
	if err != nil {
		d.log.Error("left with errors", "err", err)
	} else {
		d.log.Info("left")
	}
	// With the store closed: who waits may open it at once.
	d.watchers.notify(o.status(err))
	return err
}

// alive returns when the volume answers.
func (d *daemon) alive() error {
	if d.snaps != nil {
		return nil
	}
	_, err := d.volume.Attr(meta.Root)
	return err
}

// LockWait is how long a command waits for a store that another one holds; a
// daemon that was just killed needs a moment to let go.
const LockWait = 2 * time.Second

// open opens the store and the volume, with the log and the limits set first.
func (d *daemon) open(ctx context.Context, stderr io.Writer) (err error) {
	o := d.opts
	// Each segment is an open file, and a store may have thousands.
	raiseFileLimit()
	// The control group's limit may be lower than --memory, and the kernel goes by the lower one.
	gauge := pressure.New()
	b := newBudget(o.Memory, gauge.Memory().Limit)
	b.apply()
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	text := &slog.HandlerOptions{Level: level}
	if o.ReadyFD < 0 {
		d.out = newLog(stderr, logMost)
		d.log = handle.Log(slog.New(slog.NewTextHandler(d.out, text)))
	} else {
		// Somebody waits who has typed a command: what goes wrong until it is mounted is shown.
		d.out, d.shown = newLog(io.Discard, logMost), termlog.New(stderr)
		d.log = handle.Log(slog.New(slog.NewMultiHandler(slog.NewTextHandler(d.out, text), d.shown)))
	}
	follow := budgeter{asked: o.Memory, now: b, look: gauge.Memory, log: d.log}
	// Snapshots of another node: there is a cache, and neither store nor volume.
	if o.Node.URL != "" {
		if err := d.openSnapshots(ctx, b.cache); err != nil {
			return err
		}
		follow.cache = d.snaps.cache.ResizeMemory
		d.budget = startBudget(follow, budgetLook)
		if o.ReadyFD < 0 {
			return nil
		}
		return d.detach()
	}
	// From here on what the caller named is opened by owner.AsCaller, and the mount made there.
	inside, _, err := owner.EnterPath(o.Store, d.log)
	if err != nil {
		return err
	}
	d.foreign = owner.Acting()
	opts := store.Options{
		CacheBytes: b.cache, MemTable: b.memTable, CommitInterval: o.CommitInterval, LockWait: LockWait, Logger: d.log,
		ReadOnly: o.readOnly(),
	}
	if err := d.openMirror(ctx, inside, &opts); err != nil {
		return err
	}
	if d.store, err = store.Open(inside, opts); err != nil {
		return err
	}
	// From here on the store is ours, and so is its log.
	if o.ReadyFD >= 0 {
		if err := d.detach(); err != nil {
			return err
		}
	}
	// With the log in its place, since opening may have to say what it recovers.
	d.volume, err = volume.Open(d.store, volume.Options{DirtyBytes: b.dirty, Nodes: b.inodes(), Names: 2 * b.inodes(), NoAtime: o.NoAtime, Snapshots: o.Snapshots, Logger: d.log})
	if err == nil && d.mirror != nil {
		d.mirror.Attach(d.store) // with the volume there: a commit that it makes has all that is dirty
	}
	if err == nil {
		follow.cache, follow.dirty = d.store.ResizeCache, d.volume.LimitDirty
		d.budget = startBudget(follow, budgetLook)
	}
	if err == nil && o.Listen.Addr != "" {
		d.front, err = o.Listen.open(ctx, d.path())
	}
	if err == nil && o.Listen.Metrics != "" {
		d.metrics, err = listenAsCaller(ctx, o.Listen.MetricsOptions())
	}
	return err
}

// path names what is in the directory of the store, or of the cache of a URL. It leads
// there although the directory is renamed, or another one has its path, meanwhile.
func (d *daemon) path(elem ...string) string {
	if d.snaps != nil {
		return d.snaps.cache.Path(elem...)
	}
	return d.store.Path(elem...)
}

// detach lets go of the terminal and the directory. Standard error leads to the
// parent until the mount is up: fusermount3 complains there.
func (d *daemon) detach() error {
	// A helper that kept it would keep the parent waiting after this process has died.
	unix.CloseOnExec(d.opts.ReadyFD)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Standard input and output; standard error follows when the mount is up.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 2 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return d.besides(func() error {
		path, err := d.ownLog()
		if err != nil {
			return err
		}
		d.watchers.log = handle.Shown(path)
		return d.out.moveTo(path)
	})
}

// start mounts and answers on the control socket and to other machines.
func (d *daemon) start() (err error) {
	o := d.opts
	var node remote.Node
	if d.snaps != nil {
		node, err = readOnlyNode{d.snaps.client}, d.startSnapshots()
	} else {
		node, err = d.startVolume()
	}
	if err != nil {
		return err
	}
	// A child that kept /dev/fuse open would keep a dead daemon's mount hanging.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		d.log.Warn("files are left to child processes", "err", err)
	}
	if d.mount != nil {
		if d.aborter, err = startConnAborter(d.at); err != nil {
			d.log.Warn("if this process is killed, its mount may hang until umount -f", "err", err)
		}
	}
	// After the mount: who finds a socket finds a daemon that serves.
	l, err := d.listen()
	if err != nil {
		if d.mount != nil {
			err = errors.Join(err, owner.AsCaller(func() error { return d.mount.Unmount(o.Mountpoint) }))
		}
		return err
	}
	mux := http.NewServeMux()
	audit := d.startAudit()
	mux.Handle("/", audit.Handler(remote.ControlHandler(node, d.log)))
	serve.ProfileRoutes(mux)
	d.watchers.mount = d.at
	mux.Handle("GET "+exitStatusPath, &d.watchers)
	d.control = serve.Serve(l, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ConnContext: serve.WithUser}, d.log)
	d.background = []*routine.Routine{routine.Start(d.keepSocket)}
	// Other machines last, when all that they can ask for is there.
	if d.front != nil {
		d.front.Serve(serve.NewMiddleware(node, o.Listen.middleware(d.store, d.alive, audit, d.log)), d.log)
	}
	if d.metrics != nil {
		d.metrics.ServeMetrics(node, d.log)
	}
	if d.snaps != nil {
		return nil
	}
	if d.store.ReadOnly() {
		return nil // there is nothing to keep up
	}
	snapshots := schedule{settings: d.store.Settings, every: o.SnapshotEvery, node: node, host: o.Host, log: d.log}
	remotes := follower{settings: d.store.Settings, node: node, dial: o.Dial, host: o.Host, log: d.log}
	d.background = append(d.background, routine.Start(remotes.run), routine.Start(snapshots.run), routine.Start(d.moveBetweenTiers))
	return nil
}

// startAudit returns the audit log of the store; nil: nothing there can be changed. It need not be
// there for the store to be used.
func (d *daemon) startAudit() *serve.Audit {
	if d.snaps != nil || d.store.ReadOnly() {
		return nil
	}
	out := newLog(io.Discard, serve.AuditMost)
	if err := out.moveTo(d.path(serve.AuditName)); err != nil {
		d.log.Error("there is no audit log", "err", err)
		return nil
	}
	return serve.NewAudit(out, d.log)
}

// moveBetweenTiers moves blocks between tiers until ctx ends; a batch under way is finished.
func (d *daemon) moveBetweenTiers(ctx context.Context) {
	d.store.ManageTiers(ctx, store.TierManagerOptions{Pins: d.volume.PinnedBlocks, Busy: pressure.New().Busy})
}

// listen makes the control socket.
func (d *daemon) listen() (l net.Listener, err error) {
	err = d.besides(func() (err error) {
		// Noted even if listening fails, as close removes it.
		if d.socket, err = d.ownSocket(); err == nil {
			l, err = listenControl(d.socket)
		}
		if err == nil {
			d.bound, err = os.Lstat(d.socket)
		}
		return err
	})
	return l, err
}

// besides runs fn, which is about what may be in a directory of the caller's and not in the store.
func (d *daemon) besides(fn func() error) error {
	if d.readsOnly() {
		return owner.AsCaller(fn)
	}
	return fn()
}

// startVolume returns the node of the store, mounted where that is wanted.
func (d *daemon) startVolume() (remote.Node, error) {
	// The node is made last: a request must find the mount that it is about.
	around := localnode.Around(d.volume)
	if d.opts.Mountpoint != "" {
		if err := owner.AsCaller(d.startMount); err != nil {
			return nil, err
		}
		around = localnode.AroundMount(d.volume, d.at.Device, d.flush)
		around.Mountpoint = d.opts.Mountpoint
		around.FUSE = func() remote.FUSE { return remote.FUSE(d.mount.Stats()) }
	}
	around.Started, around.SnapshotEvery = time.Now(), d.opts.SnapshotEvery
	return remote.NewLocal(d.store, around), nil
}

// kernelOptions are those of the mount. What is in the store of somebody else could give that one
// root's rights, as what is on a disk that a user may mount.
func (d *daemon) kernelOptions() []string {
	if !d.foreign {
		return d.opts.MountOptions
	}
	return append([]string{"nosuid", "nodev"}, d.opts.MountOptions...)
}

// serveOptions are those of any mount.
func (d *daemon) serveOptions() fs.ServeOptions {
	return fs.ServeOptions{ReadAhead: d.opts.ReadAhead, Transport: d.opts.Transport, Logger: d.log}
}

func (d *daemon) startMount() (err error) {
	o := d.opts
	d.mount, err = fs.NewMount(d.volume, o.Mountpoint, fs.MountOptions{
		Source: o.Store, AllowOther: o.AllowOther, Options: d.kernelOptions(), Debug: o.Debug, ServeOptions: d.serveOptions(),
		Sync: d.flush,
	})
	// At once, before anything can move it: by this key it is found again.
	if err == nil {
		err = d.noteMount()
	}
	return err
}

// noteMount notes which mount is this daemon's.
func (d *daemon) noteMount() (err error) {
	if d.at, err = mounts.KeyOf(d.opts.Mountpoint); err != nil {
		err = errors.Join(err, d.mount.Unmount(d.opts.Mountpoint))
	}
	return err
}

// ready tells who has started this process that it answers, and where.
func (d *daemon) ready(stdout io.Writer) error {
	if d.front != nil {
		d.log.Info("listening", "url", d.front.URL, "fingerprint", d.front.Fingerprint)
		// A server that refuses everybody looks like a broken one.
		if list, _ := d.store.Tokens(); len(list)+len(d.opts.Listen.Anonymous) == 0 {
			d.log.Warn("no client can connect: there is no token yet; see quarxfs token create")
		}
	}
	says := d.opts.Listen.announce(d.front, d.metrics)
	if d.opts.ReadyFD < 0 {
		_, err := io.WriteString(stdout, says)
		return err
	}
	d.shown.Stop() // from here on standard error is the log
	err := d.out.follow(int(os.Stderr.Fd()))
	return errors.Join(err, d.opts.ready(says))
}

// leave unmounts, open files or not. A child asks the kernel for what it has
// not yet written; this process could wait for itself.
func (d *daemon) leave(gone <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := d.flush(ctx); err != nil {
		d.log.Error("the kernel did not hand over all that was written", "err", err)
	}
	// Not by the path: the mount may have been moved, and another one be there.
	m, ok := d.at.Find()
	if !ok {
		d.log.Warn("the mount is not seen any more; other mounts of it answer nobody from now on")
		return
	}
	done := make(chan error, 1)
	// Unmount may hang where the kernel waits for a request of its own; the process leaves all the
	// same.
	go func() { done <- owner.AsCaller(func() error { return d.mount.Unmount(m.Dir) }) }()
	select {
	case err := <-done:
		if err != nil {
			d.log.Error("unmount failed", "err", err)
		}
	case <-gone:
	case <-time.After(unmountTime):
		d.log.Error("unmount takes too long; leaving all the same")
	}
}

// close commits and closes what is open, in reverse order, and gives up after
// a while: a daemon that hangs on a broken disk helps nobody.
func (d *daemon) close() error {
	done := make(chan error, 1)
	go func() { done <- d.closeAll() }()
	select {
	case err := <-done:
		return err
	case <-time.After(closeTime):
		return fmt.Errorf("the last commit takes longer than %v: given up", closeTime)
	}
}

func (d *daemon) closeAll() error {
	var errs []error
	// Last of all: until the store is closed, this process may still be killed in a wait for its
	// own mount.
	defer d.aborter.dismiss()
	// Those first that begin new work by themselves.
	for _, r := range append(d.background, d.budget) {
		r.End()
	}
	// Nobody may be at work with the store when it closes.
	drain := func(s interface{ Close(context.Context) error }, within time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		errs = append(errs, s.Close(ctx))
	}
	// Then those who ask: other machines get longer than commands, which can see why.
	for _, f := range []*serve.Front{d.front, d.metrics} {
		if f != nil {
			drain(f, drainTime)
		}
	}
	if d.control != nil {
		drain(d.control, controlTime)
		// Nothing is lost by one that stays: the next daemon takes its place.
		if err := d.besides(func() error { return removeControl(d.socket) }); err != nil {
			d.log.Warn("the control socket stays", "err", handle.ShownError(err))
		}
	}
	if d.snaps != nil {
		errs = append(errs, d.snaps.close())
	}
	return errors.Join(append(errs, d.closeStore())...)
}

// closeStore makes the last commit and says what is lost if it fails, and what was lost before.
func (d *daemon) closeStore() error {
	var failed, unkept error
	var lost volume.Uncommitted
	if d.volume != nil {
		if failed = d.volume.Close(); failed != nil {
			lost = d.volume.Uncommitted() // the store tries once more, and forgets them
		}
		unkept = handle.ShownError(d.volume.Unkept()) // names and paths are found only while the store is open
	}
	// Behind the last commit, which the mirrors are to have.
	defer func() {
		if d.mirror != nil {
			d.mirror.Close()
		}
	}()
	if d.store == nil {
		return failed
	}
	err := d.store.Close()
	if err != nil && len(lost.Names) > 0 {
		err = fmt.Errorf("not kept: %v; the store is as of the commit before: %w", lost, err)
	}
	return errors.Join(err, unkept)
}

func raiseFileLimit() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		lim.Cur = lim.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim) // the old limit does, with fewer segments open
	}
}
