package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
	"github.com/quarxtor/quarxfs/store"
)

// daemonTime is how long a daemon of this machine may take to say how it is; the whole answer has
// askTime.
const daemonTime = time.Second

// fenceTime is how long vaults may take to learn of an epoch. One that is silent for longer learns
// it from the register, some seconds later.
const fenceTime = 5 * time.Second

// volumeAPI is what administrators may do with volumes.
func (a *Agent) volumeAPI(mux *http.ServeMux) {
	mux.Handle("POST "+client.PathDomains, answer(a.agreeOnDomain))
	mux.Handle("POST "+client.PathVolumes, answer(a.createVolume))
	mux.Handle("POST "+client.PathVolumes+"/{name}/takeover", answer(a.takeOver))
	mux.Handle("POST "+client.PathVolumes+"/{name}/filled", answer(a.filled))
	mux.Handle("POST "+client.PathVolumes+"/{name}/vaults", answer(a.setVaults))
	mux.Handle("DELETE "+client.PathHomes+"/{name}", answer(func(r *http.Request) (struct{}, error) {
		return struct{}{}, a.homes.Forget(r.PathValue("name"))
	}))
	mux.HandleFunc(client.PathVaults+"/{node}/{id}/{epoch}/", a.viaNode)
}

// vaultPath is where a node's agent answers for a volume in its vault.
func (a *Agent) vaultPath(id string, epoch int64) string {
	return client.PathVaults + "/" + a.settings.Cluster.Generation + "/" + id + "/" + strconv.FormatInt(epoch, 10)
}

// inVault answers the home of a volume, and who takes it over.
func (a *Agent) inVault(w http.ResponseWriter, r *http.Request) {
	h, err := a.vaultHandler(r, r.TLS.PeerCertificates[0].Subject.CommonName)
	if err != nil {
		remote.Fail(w, r, a.log, err)
		return
	}
	unbounded(w)
	h.ServeHTTP(w, r)
}

func (a *Agent) vaultHandler(r *http.Request, by string) (http.Handler, error) {
	epoch, err := strconv.ParseInt(r.PathValue("epoch"), 10, 64)
	if err != nil || epoch < 1 {
		return nil, fmt.Errorf("%w: epoch %q", remote.ErrRequest, r.PathValue("epoch"))
	}
	if g := r.PathValue("generation"); g != a.settings.Cluster.Generation {
		return nil, fmt.Errorf("%w: the cluster was restored, and that node is of before", remote.ErrFenced)
	}
	h, err := a.vault.Handler(r.PathValue("id"), by, epoch)
	if err != nil {
		return nil, err
	}
	return http.StripPrefix(a.vaultPath(r.PathValue("id"), epoch), h), nil
}

// unbounded takes the time limits of a whole request away: a stream has limits of its own.
func unbounded(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
}

// viaNode leads administrators to a volume at a node, who have no certificate of their own.
func (a *Agent) viaNode(w http.ResponseWriter, r *http.Request) {
	epoch, _ := strconv.ParseInt(r.PathValue("epoch"), 10, 64)
	n, err := a.knownNode(r.Context(), r.PathValue("node"))
	if err != nil {
		remote.Fail(w, r, a.log, fmt.Errorf("%w: %w", store.ErrNotFound, err))
		return
	}
	t := a.transport()
	defer t.CloseIdleConnections()
	to := &httputil.ReverseProxy{
		Transport: t,
		Rewrite: func(p *httputil.ProxyRequest) {
			rest := strings.TrimPrefix(p.In.URL.EscapedPath(), client.VaultPath(n.Name, r.PathValue("id"), epoch))
			p.Out.URL, p.Out.Host = &url.URL{Scheme: "https", Host: n.Address, RawQuery: p.In.URL.RawQuery}, n.Address
			p.Out.URL.RawPath = a.vaultPath(r.PathValue("id"), epoch) + rest
			p.Out.URL.Path, _ = url.PathUnescape(p.Out.URL.RawPath) // it has come in such a form
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			remote.Fail(w, r, a.log, fmt.Errorf("%w: %s: %w", remote.ErrBusy, n.Name, err))
		},
		FlushInterval: -1,
	}
	unbounded(w)
	to.ServeHTTP(w, r)
}

func (a *Agent) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: a.identity.Client(), DisableCompression: true, MaxIdleConnsPerHost: remote.MaxStreams + 4,
		TLSHandshakeTimeout: headerTime, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}
}

// vaultClient is for the pushes of this node's volumes.
func (a *Agent) vaultClient(node string, v cluster.Volume) (*remote.Client, error) {
	// From memory: pushes go on while the register is out of reach.
	n, ok := a.memory.lastNode(node)
	if !ok {
		return nil, fmt.Errorf("%w: where %s is reached is not known yet", remote.ErrNoAnswer, node)
	}
	return remote.NewClientOver("https://"+n.Address+a.vaultPath(v.ID, v.Epoch), a.transport()), nil
}

// learnVolumes takes in what the register says: what this node writes, and what it is a vault of.
func (a *Agent) learnVolumes(ctx context.Context) error {
	volumes, revision, err := a.cluster.VolumesAt(ctx)
	if err != nil {
		return err
	}
	domains, err := a.cluster.Domains(ctx)
	if err != nil {
		return err
	}
	a.memory.keepVolumes(volumes, domains, revision)
	err = errors.Join(a.mirrors.keepOnly(a.settings.Node.Name, volumes), a.homes.Learn(volumes))
	for _, v := range volumes {
		if slices.Contains(v.Vaults, a.settings.Node.Name) {
			// A fence that is higher than the register's is no failure here: the status tells.
			if rerr := a.vault.Raise(v, domains[v.Domain]); rerr != nil && !errors.Is(rerr, remote.ErrFenced) {
				err = errors.Join(err, rerr)
			}
		}
	}
	return err
}

// volumeFacts fills in what the register says of volumes, or what was known last if it cannot be
// asked.
func (a *Agent) volumeFacts(ctx context.Context, f *health.Facts) error {
	err := f.NoVote
	if err == nil {
		ask, cancel := context.WithTimeout(ctx, registerTime)
		defer cancel()
		// The repairs first: one that is over by the time that the volumes are read is no harm.
		if f.Repairs, err = a.cluster.Repairs(ask); err == nil {
			f.Cluster, err = a.cluster.Config(ask)
		}
		var revision int64
		if err == nil {
			f.Volumes, revision, err = a.cluster.VolumesAt(ask)
			f.GoneBack = err == nil && a.memory.goneBack(f.Cluster, revision)
		}
	}
	if err != nil {
		f.Volumes, f.Repairs = a.memory.lastVolumes(), nil
	}
	return err
}

func (a *Agent) agreeOnDomain(r *http.Request) (cluster.Domain, error) {
	var q client.DomainRequest
	if err := read(r, &q); err != nil {
		return cluster.Domain{}, err
	}
	return a.cluster.AgreeOnDomain(r.Context(), q.Name, q.Chunker, time.Now())
}

// createVolume makes a volume whose home is this node; vaults are chosen where none are named.
func (a *Agent) createVolume(r *http.Request) (cluster.Volume, error) {
	var v cluster.Volume
	if err := read(r, &v); err != nil {
		return v, err
	}
	v.ID, v.Home, v.Created = cluster.NewID(), a.settings.Node.Name, time.Now().UTC()
	// The store is looked at, and not what was said of it: one that is split in another way would
	// share nothing with the others, and nobody would know.
	conf, err := store.ReadConfig(v.Store)
	if err != nil {
		return v, fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	if _, err := a.cluster.AgreeOnDomain(r.Context(), v.Domain, &conf.Chunker, v.Created); err != nil {
		return v, err
	}
	for _, h := range a.homes.Answers(r.Context()) {
		if h.Store == v.Store {
			return v, fmt.Errorf("%w: %s is the store of volume %s", client.ErrRequest, v.Store, h.Volume)
		}
	}
	if v.Vaults == nil {
		if err := a.chooseVaults(r.Context(), &v); err != nil {
			return v, err
		}
	}
	if conf.Mirrored != (v.Mirrored != nil) {
		return v, fmt.Errorf("%w: %s was made with mirrors, or without, and that stays", client.ErrRequest, v.Store)
	}
	if v.Mirrored != nil {
		if err := beginMirrored(&v, a.dir, a.log); err != nil {
			return v, err
		}
	}
	v, err = a.cluster.CreateVolume(r.Context(), v)
	if err != nil {
		return v, err
	}
	a.log.Info("a volume was made", "volume", v.Name, "store", v.Store, "vaults", v.Vaults)
	return v, a.tellVaults(r.Context(), v, v.Vaults)
}

// chooseVaults completes the volume's vaults as far as there are nodes for them.
func (a *Agent) chooseVaults(ctx context.Context, v *cluster.Volume) error {
	if len(v.Vaults) >= v.Copies-1 {
		return nil
	}
	_, p, err := a.placement(ctx)
	if err != nil {
		return err
	}
	want := place.Volume{ID: v.Name, Bytes: a.memory.sizes()[v.ID], Vaults: v.Copies - 1, Copies: []place.Copy{{Node: v.Home, Kind: place.Writer, State: place.Made}}}
	for _, name := range v.Vaults {
		want.Copies = append(want.Copies, place.Copy{Node: name, Kind: place.Vault, State: place.Made})
	}
	for len(v.Vaults) < v.Copies-1 {
		name, _, why := place.Choose(p, want)
		if why != "" {
			break // COPIES_MISSING says so until there is one
		}
		v.Vaults = append(v.Vaults, name)
		want.Copies = append(want.Copies, place.Copy{Node: name, Kind: place.Vault, State: place.Made})
	}
	return nil
}

func (a *Agent) setVaults(r *http.Request) (cluster.Volume, error) {
	var q client.VaultsRequest
	if err := read(r, &q); err != nil {
		return cluster.Volume{}, err
	}
	v, err := a.cluster.SetVaults(r.Context(), r.PathValue("name"), q.Add, q.Remove, q.Copies)
	if err != nil {
		return v, err
	}
	return v, a.tellVaults(r.Context(), v, v.Vaults)
}

func (a *Agent) filled(r *http.Request) (struct{}, error) {
	v, err := a.cluster.Volume(r.Context(), r.PathValue("name"))
	if err == nil && v.Home != a.settings.Node.Name {
		err = fmt.Errorf("%s: %w: %s", v.Name, cluster.ErrFenced, v.Home)
	}
	if err == nil {
		err = a.cluster.SetOrigin(r.Context(), v.Name, v.Epoch, nil)
	}
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, a.learnVolumes(r.Context())
}

// takeOver makes this node the volume's home, in a later epoch; or, without a snapshot that the
// administrator has confirmed, only says what would be lost. The order is what keeps it safe: the
// register decides, then the vaults let nobody of before in, and only then it is looked which
// snapshot is the newest.
func (a *Agent) takeOver(r *http.Request) (client.Takeover, error) {
	ctx := r.Context()
	var q client.TakeoverRequest
	if err := read(r, &q); err != nil {
		return client.Takeover{}, err
	}
	v, err := a.cluster.Volume(ctx, r.PathValue("name"))
	if err != nil {
		return client.Takeover{}, err
	}
	t := client.Takeover{Volume: v}
	if t.Domain, err = a.cluster.AgreeOnDomain(ctx, v.Domain, nil, time.Now()); err != nil {
		return t, err
	}
	self := a.settings.Node.Name
	if mine, ok := a.homes.Find(v.ID); ok && mine.Volume.From == nil && mine.Volume.Epoch > v.Epoch {
		return a.reclaim(ctx, t, mine.Volume)
	}
	if v.Home == self {
		if v.From == nil {
			return t, fmt.Errorf("%w: %s is the home of %s already", client.ErrRequest, self, v.Name)
		}
	}
	if v.Mirrored != nil {
		return a.takeMirror(ctx, t, q.Force)
	}
	nodes, err := a.facts(ctx)
	if err != nil {
		return t, err
	}
	if v.Home == self { // begun before, and broken off
		found, silent := a.lookAtVaults(ctx, v, nodes)
		return a.completeTakeover(ctx, t, nodes, found, silent)
	}
	if i := slices.IndexFunc(nodes, func(n health.NodeFacts) bool { return n.Name == v.Home }); i >= 0 && nodes[i].Up && !q.Force {
		return t, fmt.Errorf("%w: %s is up: unmount %s there and take it over with --force, or leave it there", client.ErrHomeUp, v.Home, v.Name)
	}
	found, silent := a.lookAtVaults(ctx, v, nodes)
	if len(silent) > 0 && !q.Force {
		return t, fmt.Errorf("%w: %s: a newer snapshot may be there: start it, or give --force", client.ErrNoVault, strings.Join(silent, ", "))
	}
	epoch := v.Epoch
	for _, c := range found {
		epoch = max(epoch, c.copy.Epoch)
	}
	newest := newestOf(nil, found)
	if newest == nil {
		return t, fmt.Errorf("%w: none of the vaults of %s (%s) that answers has a snapshot", client.ErrNoVault, v.Name, strings.Join(v.Vaults, ", "))
	}
	t.From = *newest
	if q.Snapshot != newest.Snapshot {
		return t, nil // what is confirmed must be what is there
	}
	if err := a.mayFill(q.Store, v); err != nil {
		return t, err
	}
	next := v
	next.Epoch, next.Home, next.Store, next.From = epoch+1, self, q.Store, newest
	next.Vaults = slices.DeleteFunc(slices.Clone(v.Vaults), func(name string) bool { return name == self })
	if err := a.chooseVaults(ctx, &next); err != nil {
		return t, err
	}
	if err := a.cluster.TakeOver(ctx, v.Epoch, next); err != nil {
		return t, err
	}
	a.log.Info("a volume is taken over", "volume", v.Name, "from", v.Home, "epoch", next.Epoch, "snapshot", newest.Snapshot)
	t.Volume = next
	return a.completeTakeover(ctx, t, nodes, found, silent)
}

// completeTakeover completes a takeover that the register has decided: the vaults let the former
// home in no more, and then it is looked again what the volume begins with. It may be done again,
// as after a takeover that was broken off. found are the vaults that have answered before, silent
// those that have not: an administrator has decided to go on without them.
func (a *Agent) completeTakeover(
	ctx context.Context, t client.Takeover, nodes []health.NodeFacts, found []vaultFact, silent []string,
) (client.Takeover, error) {
	tell := slices.Clone(t.Volume.Vaults)
	for _, f := range found { // also those that are none any more: they let the former home in, too
		if !slices.Contains(tell, f.node.Name) {
			tell = append(tell, f.node.Name)
		}
	}
	if err := a.tellVaults(ctx, t.Volume, tell); err != nil {
		return t, err
	}
	t.Done, t.From = true, *t.Volume.From
	// What has come to a vault before the fence was up is newer than what was confirmed, and whole.
	again, _ := a.lookAtVaults(ctx, t.Volume, nodes, silent...)
	from := beginWith(t.Volume.From, again)
	if *from == t.From {
		return t, nil
	}
	if err := a.cluster.SetOrigin(ctx, t.Volume.Name, t.Volume.Epoch, from); err != nil {
		return t, err
	}
	t.From, t.Volume.From = *from, from
	return t, a.learnVolumes(ctx)
}

// beginWith is what a new home begins with: the newest snapshot of those that are there now, and
// the confirmed one from another vault if its own says nothing any more.
func beginWith(confirmed *cluster.Origin, found []vaultFact) *cluster.Origin {
	has := func(f vaultFact) bool { return f.copy.Newest != nil && f.copy.Newest.Name == confirmed.Snapshot }
	best := newestOf(confirmed, found)
	if best != confirmed || slices.ContainsFunc(found, func(f vaultFact) bool { return f.node.Name == confirmed.Vault && has(f) }) {
		return best
	}
	// A name has epoch and number, so snapshots of one name are one snapshot.
	if i := slices.IndexFunc(found, has); i >= 0 {
		return &cluster.Origin{Vault: found[i].node.Name, Snapshot: confirmed.Snapshot, Created: confirmed.Created}
	}
	return confirmed // none of them has it: its vault must come back
}

// mayFill reports a directory that a volume cannot be put into, before anything is decided: it must
// be missing, empty, or the volume's own of before.
func (a *Agent) mayFill(dir string, v cluster.Volume) error {
	if r, ok := a.homes.Of(dir); ok && r.Volume.ID == v.ID {
		return nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w: give --store and another directory", client.ErrRequest, err)
	case len(entries) > 0:
		return fmt.Errorf("%w: %s is not empty, and no former home of %s: give --store and a new directory", client.ErrRequest, dir, v.Name)
	}
	return nil
}

// reclaim has the register say again what this node knows: that it writes the volume, in an epoch
// which a register that was restored has never seen.
func (a *Agent) reclaim(ctx context.Context, t client.Takeover, mine cluster.Volume) (client.Takeover, error) {
	next := mine
	next.Epoch++ // another node may have been told the old one by the register as it was
	if err := a.cluster.TakeOver(ctx, t.Volume.Epoch, next); err != nil {
		return t, err
	}
	t.Volume, t.Done = next, true
	return t, a.tellVaults(ctx, next, next.Vaults)
}

// A vaultFact is what one vault says.
type vaultFact struct {
	node health.NodeFacts
	copy health.Copy
}

// lookAtVaults asks the nodes that are vaults of the volume, also those that the register does not
// name, and returns which of those that it names do not answer. Whoever cannot even be connected to
// keeps nobody waiting, such as the home that is taken over: by the register it is up for some
// seconds after its death. That is not said of a vault, unless it was silent before: the newest
// snapshot may be there.
func (a *Agent) lookAtVaults(
	ctx context.Context, v cluster.Volume, nodes []health.NodeFacts, silentBefore ...string,
) (found []vaultFact, silent []string) {
	// What they have said before is not taken for an answer to this.
	nodes = slices.Clone(nodes)
	for i := range nodes {
		nodes[i].Said = nil
	}
	a.askAll(ctx, nodes, func(n health.NodeFacts) time.Duration {
		waits := slices.Contains(v.Vaults, n.Name) && !slices.Contains(silentBefore, n.Name)
		if waits || n.Name == a.settings.Node.Name || connects(ctx, n.Address, downTime) {
			return askTime
		}
		return 0
	})
	for _, name := range v.Vaults {
		i := slices.IndexFunc(nodes, func(n health.NodeFacts) bool { return n.Name == name && n.Said != nil })
		if i < 0 || slices.ContainsFunc(nodes[i].Said.Copies, func(c health.Copy) bool { return c.ID == v.ID && c.Error != "" }) {
			silent = append(silent, name)
		}
	}
	for _, n := range nodes {
		if n.Said == nil {
			continue
		}
		for _, c := range n.Said.Copies {
			if c.ID == v.ID && c.Error == "" {
				found = append(found, vaultFact{n, c})
			}
		}
	}
	return found, silent
}

// newestOf returns the newest snapshot that vaults have, or best if none is newer: the vault that
// has it may not answer any more.
func newestOf(best *cluster.Origin, found []vaultFact) *cluster.Origin {
	for _, f := range found {
		if s := f.copy.Newest; s != nil && (best == nil || cluster.NewerSnapshot(s.Name, best.Snapshot) > 0) {
			best = &cluster.Origin{Vault: f.node.Name, Snapshot: s.Name, Created: s.Created}
		}
	}
	return best
}

// tellVaults has nodes let nobody of an epoch before the volume's in, and this one know what it
// writes. A vault that cannot be reached by now learns it from the register, some seconds later.
func (a *Agent) tellVaults(ctx context.Context, v cluster.Volume, names []string) error {
	d, err := a.cluster.AgreeOnDomain(ctx, v.Domain, nil, time.Now())
	if err != nil {
		return err
	}
	// All at once, and with a bound of their own: one that hangs must not keep the fence of another
	// down, nor use up the time of whoever has asked.
	ask, cancel := context.WithTimeout(ctx, fenceTime)
	defer cancel()
	var asked sync.WaitGroup
	for _, name := range names {
		asked.Go(func() {
			n, err := a.knownNode(ask, name)
			if err == nil && !connects(ask, n.Address, askTime) {
				err = remote.ErrNoAnswer // it would use up all of the time, and so would the next one
			}
			if err == nil {
				at := client.Remote(n.Address, a.identity.Client())
				err = at.Fence(ask, client.FenceRequest{Volume: v, Domain: d})
				at.Close()
			}
			if err != nil {
				a.log.Warn("a vault learns of a volume later", "vault", name, "volume", v.Name, "err", err)
			}
		})
	}
	asked.Wait()
	return a.learnVolumes(ctx)
}

// connects reports whether a node takes connections: one that is off answers nothing at all, and is
// known by that sooner than one that is slow.
func connects(ctx context.Context, address string, within time.Duration) bool {
	conn, err := (&net.Dialer{Timeout: within}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent
	return true
}

func (a *Agent) fence(r *http.Request) (struct{}, error) {
	var q client.FenceRequest
	err := read(r, &q)
	if err == nil {
		err = a.vault.Raise(q.Volume, q.Domain)
	}
	if errors.Is(err, remote.ErrFenced) {
		err = fmt.Errorf("%w: %w", cluster.ErrFenced, err)
	}
	if errors.Is(err, store.ErrConfig) || errors.Is(err, remote.ErrRequest) {
		err = fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	return struct{}{}, err
}
