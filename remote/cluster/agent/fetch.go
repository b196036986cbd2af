package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
)

const (
	fetchersMost = 2  // fetches at a time
	fetchesMost  = 16 // that wait; who finds no room asks again in the controller's next round
)

// A fetch has this node's vault take what another vault has of a volume: where the home cannot send
// it, or does not have it any more.
type fetch struct {
	volume cluster.Volume
	from   string
}

// A fetchQueue has the fetches that wait, each volume's once.
//
// Lock: mu alone; under it is sent to the queue, which never waits.
type fetchQueue struct {
	waiting chan fetch

	mu struct {
		sync.Mutex
		volumes map[string]bool // by ID: a fetch of it is under way, or waits
	}
}

func newFetchQueue() *fetchQueue {
	q := &fetchQueue{waiting: make(chan fetch, fetchesMost)}
	q.mu.volumes = make(map[string]bool)
	return q
}

// add tells whether there is room; a volume that is there already needs none.
func (q *fetchQueue) add(f fetch) bool {
	// Held over the send: else two could both find the volume idle.
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.volumes[f.volume.ID] {
		return true
	}
	select {
	case q.waiting <- f:
		q.mu.volumes[f.volume.ID] = true
		return true
	default:
		return false
	}
}

// done lets the volume be asked for again.
func (q *fetchQueue) done(f fetch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.volumes, f.volume.ID)
}

// run does what is asked for until ctx ends.
func (q *fetchQueue) run(ctx context.Context, log *slog.Logger, do func(context.Context, fetch) error) error {
	for {
		select {
		case f := <-q.waiting:
			if err := do(ctx, f); err != nil && ctx.Err() == nil {
				log.Warn("a vault does not get what another one has", "volume", f.volume.Name, "from", f.from, "err", err)
			}
			q.done(f)
		case <-ctx.Done():
			return nil
		}
	}
}

// beginFetch answers at once; a fetch of the volume that is under way is not begun again.
func (a *Agent) beginFetch(r *http.Request) (struct{}, error) {
	var q client.FetchRequest
	if err := read(r, &q); err != nil {
		return struct{}{}, err
	}
	v, err := a.vaultOf(r.Context(), q.Volume)
	if err != nil {
		return struct{}{}, err
	}
	if !a.fetches.add(fetch{v, q.From}) {
		return struct{}{}, fmt.Errorf("%w: %d fetches wait on %s", client.ErrHolds, fetchesMost, a.settings.Node.Name)
	}
	return struct{}{}, nil
}

// vaultOf returns the volume, of which this node is a vault by what the register says now.
func (a *Agent) vaultOf(ctx context.Context, name string) (cluster.Volume, error) {
	v, err := a.cluster.Volume(ctx, name)
	if err == nil && !slices.Contains(v.Vaults, a.settings.Node.Name) {
		err = fmt.Errorf("%w: %s is no vault of %s", client.ErrRequest, a.settings.Node.Name, name)
	}
	return v, err
}

// fetchNow brings the snapshots that the vault lacks: of the agents' own the newest alone, as it
// replaces the others.
func (a *Agent) fetchNow(ctx context.Context, f fetch) error {
	from, err := a.vaultClient(f.from, f.volume)
	if err != nil {
		return err
	}
	defer from.Close()
	// In the name of the home, whose epoch it is: one that has begun meanwhile is refused as its
	// push would be.
	to, err := a.vault.Peer(f.volume.ID, f.volume.Home, f.volume.Epoch)
	if err != nil {
		return err
	}
	there, err1 := transfer.Snapshots(ctx, from)
	has, err2 := transfer.Snapshots(ctx, to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	t := transfer.Transfer{From: from, To: to, Whose: "fetch of " + f.volume.Name + " by " + a.settings.Node.Name}
	newest, wanted := newestName(has), newestName(there)
	taken := make(map[string]bool, len(has))
	for _, s := range has {
		taken[s.Name] = true
	}
	for _, s := range there {
		_, _, own := cluster.ParseSnapshotName(s.Name)
		if own && (s.Name != wanted || cluster.NewerSnapshot(newest, s.Name) >= 0) {
			continue
		}
		if !taken[s.Name] {
			t.Snapshots = append(t.Snapshots, transfer.SnapshotRef{Name: s.Name, ID: s.ID})
		}
	}
	if len(t.Snapshots) == 0 {
		return nil
	}
	_, err = t.Run(ctx)
	return err
}

// newestName is that of the newest of the agents' own snapshots; empty: there is none.
func newestName(list []remote.Snapshot) (newest string) {
	for _, s := range list {
		if cluster.NewerSnapshot(s.Name, newest) > 0 {
			newest = s.Name
		}
	}
	return newest
}

// discard removes what this node has of a volume that it is no vault of any more. Who asks has seen
// each of these snapshots at another vault.
func (a *Agent) discard(r *http.Request) (struct{}, error) {
	var q client.DiscardRequest
	if err := read(r, &q); err != nil {
		return struct{}{}, err
	}
	// The register is asked, and not the memory: an administrator may have made it a vault again.
	v, err := a.cluster.Volume(r.Context(), q.Volume)
	if err != nil {
		return struct{}{}, err
	}
	switch {
	case v.ID != q.ID:
		return struct{}{}, fmt.Errorf("%w: %s is another volume by now", client.ErrHolds, q.Volume)
	case slices.Contains(v.Vaults, a.settings.Node.Name):
		return struct{}{}, fmt.Errorf("%w: %s is a vault of %s", client.ErrHolds, a.settings.Node.Name, q.Volume)
	}
	removed, err := a.vault.Discard(r.Context(), v, q.Snapshots)
	if removed > 0 {
		a.log.Info("what other vaults have is removed here", "volume", v.Name, "snapshots", removed)
	}
	return struct{}{}, err
}

// vaultLists are the snapshots of a volume at nodes. An error, if one of them does not say.
func (a *Agent) vaultLists(ctx context.Context, v cluster.Volume, nodes []string) (map[string][]remote.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, fenceTime)
	defer cancel()
	lists := make(map[string][]remote.Snapshot)
	for _, name := range nodes {
		at, err := a.vaultClient(name, v)
		if err != nil {
			return nil, err
		}
		lists[name], err = transfer.Snapshots(ctx, at)
		at.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return lists, nil
}

// onlyThere are the snapshots of a vault that none of the others has. One of the agents' own is had
// by whoever has a newer one.
func onlyThere(at string, lists map[string][]remote.Snapshot) (alone []remote.Snapshot) {
	newest := "" // at the others
	elsewhere := make(map[transfer.SnapshotRef]bool)
	for name, list := range lists {
		if name == at {
			continue
		}
		if n := newestName(list); cluster.NewerSnapshot(n, newest) > 0 {
			newest = n
		}
		for _, s := range list {
			elsewhere[transfer.SnapshotRef{Name: s.Name, ID: s.ID}] = true
		}
	}
	for _, s := range lists[at] {
		_, _, own := cluster.ParseSnapshotName(s.Name)
		newer := own && cluster.NewerSnapshot(newest, s.Name) >= 0
		if !newer && !elsewhere[transfer.SnapshotRef{Name: s.Name, ID: s.ID}] {
			alone = append(alone, s)
		}
	}
	return alone
}

// keepAll returns nil when others have all that a vault has which is to go: users' snapshots that
// the home has no more are there alone. Until then one of the others fetches them.
func (a *Agent) keepAll(ctx context.Context, f health.Facts, v cluster.Volume, going string) error {
	if f.NodeOf(going) == nil {
		return nil // it was removed, and with it what it had
	}
	stay := stayWhole(f, v, going)
	if len(stay) == 0 {
		return fmt.Errorf("%w: no other vault of %s is whole", client.ErrNoVault, v.Name)
	}
	lists, err := a.vaultLists(ctx, v, append([]string{going}, stay...))
	if err != nil {
		return err
	}
	// How new the agents' own are was judged before, within the RPO: they come all the time.
	alone := slices.DeleteFunc(onlyThere(going, lists), func(s remote.Snapshot) bool {
		_, _, own := cluster.ParseSnapshotName(s.Name)
		return own
	})
	if len(alone) == 0 {
		return nil
	}
	if err := a.askFetch(ctx, stay[0], client.FetchRequest{Volume: v.Name, From: going}); err != nil {
		return err
	}
	return fmt.Errorf("%w: snapshot %s and %d more are fetched from %s first", errWaits, alone[0].Name, len(alone)-1, going)
}

var errWaits = errors.New("not yet")

// stayWhole are the vaults that have said that they are whole and that are to stay, but for one.
func stayWhole(f health.Facts, v cluster.Volume, but string) (stay []string) {
	for _, name := range v.Vaults {
		n := f.NodeOf(name)
		if has, _ := f.CopyOf(v, name); name != but && n != nil && n.State != cluster.StateDraining && has != nil && has.Error == "" && has.Newest != nil {
			stay = append(stay, name)
		}
	}
	return stay
}

func (a *Agent) askFetch(ctx context.Context, node string, q client.FetchRequest) error {
	n, err := a.knownNode(ctx, node)
	if err != nil {
		return err
	}
	at := client.Remote(n.Address, a.identity.Client())
	defer at.Close()
	return at.Fetch(ctx, q)
}

// fillAndFree has vaults fetch what the home cannot send, and nodes remove what is no copy any
// more.
func (a *Agent) fillAndFree(ctx context.Context, f health.Facts, p place.Facts) error {
	var failed error
	there := make(map[string][]cluster.Node) // who says to have snapshots of a volume, by its ID
	for _, n := range f.Nodes {
		if n.Said == nil {
			continue
		}
		for _, c := range n.Said.Copies {
			if c.Snapshots > 0 {
				there[c.ID] = append(there[c.ID], n.Node)
			}
		}
	}
	for i, v := range f.Volumes {
		if home := f.HomeOf(v); home == nil || !home.Online {
			for _, fill := range control.Fills(p, p.Volumes[i]) {
				failed = errors.Join(failed, a.askFetch(ctx, fill.To, client.FetchRequest{Volume: v.Name, From: fill.From}))
			}
		}
		if !control.Whole(p, p.Volumes[i]) {
			continue // until then it may be of use
		}
		for _, n := range there[v.ID] {
			if n.Name != v.Home && !slices.Contains(v.Vaults, n.Name) {
				failed = errors.Join(failed, a.free(ctx, f, v, n))
			}
		}
	}
	return failed
}

// free has a node remove what all is at others. What is there alone stays: an administrator has
// taken out the only vault that had it.
func (a *Agent) free(ctx context.Context, f health.Facts, v cluster.Volume, n cluster.Node) error {
	stay := stayWhole(f, v, n.Name)
	if len(stay) == 0 {
		return nil
	}
	lists, err := a.vaultLists(ctx, v, append([]string{n.Name}, stay...))
	if err != nil {
		return err
	}
	// With the IDs that were seen, so that a snapshot that gets the name meanwhile stays.
	q := client.DiscardRequest{Volume: v.Name, ID: v.ID, Snapshots: make(map[string]store.ID)}
	for _, s := range lists[n.Name] {
		q.Snapshots[s.Name] = s.ID
	}
	for _, s := range onlyThere(n.Name, lists) {
		delete(q.Snapshots, s.Name)
	}
	if len(q.Snapshots) == 0 {
		return nil
	}
	at := client.Remote(n.Address, a.identity.Client())
	defer at.Close()
	return at.Discard(ctx, q)
}
