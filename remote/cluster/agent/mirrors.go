package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/routine"
)

// A node keeps its copies of mirrored volumes that others write open from the first connection of a
// writer until the register says that it has none, or writes the volume itself.
type mirrors struct {
	mu     sync.Mutex                  // held while a copy is opened or closed
	open   map[string]*carrier.Replica // by the volume's ID
	taking map[string]bool             // volumes that this node takes over: no writer is let in
	closed bool
	clock  func() time.Duration // of vows; nil: CLOCK_BOOTTIME
}

func newMirrors() *mirrors {
	return &mirrors{open: map[string]*carrier.Replica{}, taking: map[string]bool{}}
}

const (
	mirrorMemTable = 16 << 20
	vowPoll        = 200 * time.Millisecond
	// takeTime bounds a takeover: a vow lasts 10 seconds, and the caller waits for 30.
	takeTime = 20 * time.Second
)

// close ends all copies, and with them the connections that they serve.
func (m *mirrors) close() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, r := range m.open {
		err = errors.Join(err, r.Close())
	}
	clear(m.open)
	return err
}

// get opens the node's copy of a volume. While a takeover has it nobody else gets it: another
// takeover would close it beneath the first.
func (m *mirrors) get(v cluster.Volume, takes bool, dir string, o carrier.ReplicaOptions) (*carrier.Replica, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, fmt.Errorf("%w: the node is leaving", client.ErrNoMirror)
	case m.taking[v.ID]:
		return nil, fmt.Errorf("%w: this node takes %s over", cluster.ErrFenced, v.Name)
	}
	r := m.open[v.ID]
	if r == nil {
		var err error
		r, err = carrier.OpenReplica(dir, o)
		if errors.Is(err, db.ErrLocked) {
			err = fmt.Errorf("%w: a daemon has %s open: unmount it", client.ErrNoMirror, dir)
		}
		if err != nil {
			return nil, err
		}
		m.open[v.ID] = r
	}
	if takes {
		m.taking[v.ID] = true
	}
	return r, nil
}

// keepOnly closes the copies that the node is not to have any more, or writes now.
func (m *mirrors) keepOnly(node string, volumes []cluster.Volume) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.open {
		kept := slices.ContainsFunc(volumes, func(v cluster.Volume) bool {
			_, mine := v.Mirrored.Copy(node)
			return v.ID == id && mine
		})
		if !kept && !m.taking[id] {
			err = errors.Join(err, r.Close())
			delete(m.open, id)
		}
	}
	return err
}

// taken ends a takeover. The copy is closed: who writes opens it as a store.
func (m *mirrors) taken(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.taking, id)
	r := m.open[id]
	if r == nil {
		return nil
	}
	delete(m.open, id)
	return r.Close()
}

// mirrorAPI is what the daemons of this machine may ask.
func (a *Agent) mirrorAPI(mux *http.ServeMux) {
	mux.Handle("GET "+client.PathMirrors+"/{id}", answer(func(r *http.Request) (client.MirrorView, error) {
		v, err := a.volumeOf(r.Context(), r.PathValue("id"))
		if err != nil {
			return client.MirrorView{}, err
		}
		v, record, err := a.cluster.MirrorRecord(r.Context(), v.Name)
		return a.mirrorView(v, record), err
	}))
	mux.Handle("POST "+client.PathMirrors+"/{id}", answer(func(r *http.Request) (client.MirrorView, error) {
		var next mirror.Record
		if err := read(r, &next); err != nil {
			return client.MirrorView{}, err
		}
		v, err := a.volumeOf(r.Context(), r.PathValue("id"))
		if err != nil {
			return client.MirrorView{}, err
		}
		v, record, err := a.cluster.SwapMirrored(r.Context(), v.Name, a.settings.Node.Name, "", next)
		view := a.mirrorView(v, record)
		if errors.Is(err, cluster.ErrStale) {
			view.Stale, err = true, nil
		}
		return view, err
	}))
}

func (a *Agent) mirrorView(v cluster.Volume, record mirror.Record) client.MirrorView {
	view := client.MirrorView{Volume: v, Record: record, Addresses: map[string]string{}, Generation: a.settings.Cluster.Generation}
	for _, name := range v.Mirrored.Nodes() {
		if n, ok := a.memory.lastNode(name); ok {
			view.Addresses[name] = n.Address
		}
	}
	return view
}

// volumeOf returns a volume by its ID, as it was last known: cluster.ErrNoVolume.
func (a *Agent) volumeOf(ctx context.Context, id string) (cluster.Volume, error) {
	find := func(volumes []cluster.Volume) (cluster.Volume, bool) {
		i := slices.IndexFunc(volumes, func(v cluster.Volume) bool { return v.ID == id })
		if i < 0 {
			return cluster.Volume{}, false
		}
		return volumes[i], true
	}
	if v, ok := find(a.memory.lastVolumes()); ok {
		return v, nil
	}
	volumes, err := a.cluster.Volumes(ctx)
	if err != nil {
		return cluster.Volume{}, err
	}
	v, ok := find(volumes)
	if !ok {
		err = fmt.Errorf("volume %.40q: %w", id, cluster.ErrNoVolume)
	}
	return v, err
}

// mirrorOptions are those of this node's copy, and where that is.
func (a *Agent) mirrorOptions(v cluster.Volume) (string, carrier.ReplicaOptions, error) {
	c, ok := v.Mirrored.Copy(a.settings.Node.Name)
	if !ok {
		return "", carrier.ReplicaOptions{}, fmt.Errorf("%w: %s is no mirror of %s", client.ErrNoMirror, a.settings.Node.Name, v.Name)
	}
	dir := c.Store
	if dir == "" {
		dir = a.dir.path(mirrorsName + "/" + v.ID)
	}
	return dir, carrier.ReplicaOptions{
		Node: a.settings.Node.Name, Volume: v.ID, Agent: string(a.dir), MemTable: mirrorMemTable, Log: a.log, Clock: a.mirrors.clock,
	}, nil
}

// inMirror takes the stream of a volume's writer, which its home's daemon sends. Whether that one
// may write is not judged here: by its epoch the copy takes it or not.
func (a *Agent) inMirror(w http.ResponseWriter, r *http.Request) {
	replica, err := a.mirrorFor(r)
	if err != nil {
		fail(w, err)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	_, err = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + client.MirrorProtocol + "\r\n\r\n")
	// The limits of a request are none of a stream, which has its own.
	if err = errors.Join(err, rw.Flush(), conn.SetDeadline(time.Time{})); err == nil {
		err = replica.Serve(r.Context(), &buffered{conn, rw.Reader})
	}
	a.log.Info("a mirror's writer has gone", "volume", r.PathValue("id"), "err", err)
}

// A buffered connection begins with what was read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (a *Agent) mirrorFor(r *http.Request) (*carrier.Replica, error) {
	if r.Header.Get("Upgrade") != client.MirrorProtocol {
		return nil, fmt.Errorf("%w: %q, and this node has %s", client.ErrVersion, r.Header.Get("Upgrade"), client.MirrorProtocol)
	}
	if g := r.PathValue("generation"); g != a.settings.Cluster.Generation {
		return nil, fmt.Errorf("%w: the cluster was restored, and that node is of before", cluster.ErrFenced)
	}
	v, err := a.volumeOf(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if by := r.TLS.PeerCertificates[0].Subject.CommonName; by != v.Home {
		return nil, fmt.Errorf("%s: %w: %s is its home", v.Name, cluster.ErrFenced, v.Home)
	}
	dir, o, err := a.mirrorOptions(v)
	if err != nil {
		return nil, err
	}
	return a.mirrors.get(v, false, dir, o)
}

// beginMirrored makes the store of a new volume the first of its copies, which is in sync.
func beginMirrored(v *cluster.Volume, agent Dir, log *slog.Logger) error {
	if origin, err := carrier.OriginOf(v.Store); err == nil {
		v.ID = origin.Volume // of a command that was broken off: it is the copy of that ID
	}
	r, err := carrier.OpenReplica(v.Store, carrier.ReplicaOptions{
		Node: v.Home, Volume: v.ID, Agent: string(agent), MemTable: mirrorMemTable, Log: log,
	})
	if errors.Is(err, db.ErrLocked) {
		err = fmt.Errorf("%s: %w", v.Store, store.ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	v.Mirrored = &cluster.Mirrored{Copies: v.Mirrored.Copies}
	v.Mirrored.InSync = []mirror.Member{r.Self()}
	return r.Close()
}

// A takeRegister has the record of one volume for a takeover by this node.
type takeRegister struct {
	*Agent
	volume string
	store  string
	is     *cluster.Volume
}

func (t takeRegister) Read(ctx context.Context) (mirror.Record, error) {
	v, r, err := t.cluster.MirrorRecord(ctx, t.volume)
	*t.is = v
	return r, err
}

func (t takeRegister) Swap(ctx context.Context, next mirror.Record) (mirror.Record, error) {
	v, r, err := t.cluster.SwapMirrored(ctx, t.volume, t.settings.Node.Name, t.store, next)
	*t.is = v
	return r, err
}

// takeMirror makes this node the home of a volume that it has a copy of, which is in sync: nothing
// that was acknowledged is lost. By the rules of mirrors it needs no answer of the home. That one
// was vowed to for 10 seconds, and nobody is let in meanwhile.
func (a *Agent) takeMirror(ctx context.Context, t client.Takeover, force bool) (client.Takeover, error) {
	v := t.Volume
	if err := a.homeIsAway(ctx, v); err != nil && !force {
		return t, err
	}
	dir, o, err := a.mirrorOptions(v)
	if err != nil {
		return t, err
	}
	if !v.Mirrored.HasSync(a.settings.Node.Name) {
		return t, fmt.Errorf("%w: the copy of %s on %s was left behind, and lacks what was acknowledged since: start %s",
			client.ErrNoMirror, v.Name, a.settings.Node.Name, v.Home)
	}
	replica, err := a.mirrors.get(v, true, dir, o)
	if err != nil {
		return t, err
	}
	// Only of what this takeover has.
	defer func() {
		if err := a.mirrors.taken(v.ID); err != nil {
			a.log.Warn("a copy that is taken over", "volume", v.Name, "err", err)
		}
	}()
	replica.EndSession()
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	reg := takeRegister{a, v.Name, dir, &t.Volume}
	for {
		w, err := replica.Promote(ctx, carrier.WriterOptions{Register: reg, Log: a.log})
		if err == nil {
			w.Close() // its daemon begins an epoch of its own
			break
		}
		if errors.Is(err, carrier.ErrMayNot) && !errors.Is(err, mirror.Vowed) {
			err = fmt.Errorf("%s: %w: %w", v.Name, client.ErrNoMirror, err)
		}
		if !errors.Is(err, mirror.Vowed) && !errors.Is(err, cluster.ErrStale) {
			return t, err
		}
		if routine.Sleep(ctx, vowPoll) != nil {
			return t, fmt.Errorf("%s: %w: %w", v.Name, client.ErrNoMirror, err)
		}
	}
	t.Done = true
	a.log.Info("a volume is taken over by its mirror", "volume", v.Name, "from", v.Home, "epoch", t.Volume.Epoch)
	return t, a.tellVaults(context.WithoutCancel(ctx), t.Volume, t.Volume.Vaults)
}

// homeIsAway reports a home whose daemon says that it has the volume open: client.ErrHomeUp. The
// rules do not need it; it keeps an administrator from stopping what works.
func (a *Agent) homeIsAway(ctx context.Context, v cluster.Volume) error {
	n, err := a.knownNode(ctx, v.Home)
	if err != nil || !connects(ctx, n.Address, downTime) {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	said := a.ask(ask, n)
	if said == nil || !slices.ContainsFunc(said.Homes, func(h health.Home) bool { return h.ID == v.ID && (h.Online || h.Hangs) }) {
		return nil
	}
	return fmt.Errorf("%w: %s has %s open: unmount it there, or give --force", client.ErrHomeUp, v.Home, v.Name)
}
