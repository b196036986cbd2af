// Package home is a node's part in the volumes that it writes: it makes snapshots of them and sends
// these to their vaults, and it knows when another node has taken one over.
//
// What a node has written it remembers in a file, volumes.json of its directory, by the directory
// of the store. So it goes on while the register is out of reach, and a node that was away learns
// that it writes no more.
//
//	mine (pushed) --[Learn: another home, or store, in a later epoch]--> fenced --[Forget]--> gone
//	filling       --[Learn: the register says that it has all]---------> mine
//
// Lock: Homes.mu alone, which is held over no call but the writing of the file.
package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/handle"
)

// A Record is a store of this node in which a volume was, or is, written.
type Record struct {
	Volume cluster.Volume `json:"volume"` // as it was when this store last was its home
	Fenced *Fence         `json:"fenced"` // null: it is the home
}

// A Fence says why the store is not the volume's home any more.
type Fence struct {
	Epoch  int64    `json:"epoch"` // that has begun
	Home   string   `json:"home"`
	Vaults []string `json:"vaults"`
	Saved  string   `json:"saved"` // the snapshot at a vault of what the store had; empty: none yet
}

// Homes are all of them on a node.
type Homes struct {
	Path  string // of the file
	Node  string // this node's name
	Log   *slog.Logger
	Open  func(ctx context.Context, dir string) (remote.Node, func(), error) // the store of a daemon; the default is OpenDaemon
	Vault func(node string, v cluster.Volume) (*remote.Client, error)        // a volume's snapshots at a node

	mu struct {
		sync.Mutex
		records map[string]Record // by the store's directory; replaced, never changed
		pushes  map[string]map[string]health.Push
		changed chan struct{}  // closed when records are replaced
		asked   map[string]int // how many ask a store now
	}
}

// ErrOffline: no daemon has the volume's store open.
var ErrOffline = errors.New("the volume's store is not mounted")

// Load reads the file, which need not exist. The error names what to do about one that is damaged.
func (h *Homes) Load() error {
	h.mu.records, h.mu.pushes, h.mu.changed = map[string]Record{}, map[string]map[string]health.Push{}, make(chan struct{})
	h.mu.asked = map[string]int{}
	if h.Open == nil {
		h.Open = OpenDaemon
	}
	b, err := os.ReadFile(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h.mu.records)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: move it away, and what this node writes is read from the register again", h.Path, err)
	}
	return nil
}

// OpenDaemon reaches the daemon that has the store open: ErrOffline.
func OpenDaemon(ctx context.Context, dir string) (remote.Node, func(), error) {
	d, err := handle.Open(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrOffline, err)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Join(remote.ControlSocket))
	}
	// At once, so that a store without a daemon is told from one whose daemon is slow.
	c, err := dial(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: mount it on its node: quarxfs mount %s DIRECTORY", ErrOffline, dir), d.Close())
	}
	c.Close()
	client := remote.NewControlClient(dial)
	return client, func() { client.Close(); _ = d.Close() }, nil
}

// Learn takes in what the register says of all volumes. What it says of an epoch before that of a
// record counts for nothing: then the register is the older one.
func (h *Homes) Learn(volumes []cluster.Volume) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := maps.Clone(h.mu.records)
	for _, v := range volumes {
		if v.Epoch < lastEpoch(next, v.ID) {
			continue // else a register that has gone back would make a fenced store a home again
		}
		if v.Home == h.Node {
			next[v.Store] = Record{Volume: v}
		}
		for dir, r := range next {
			if r.Volume.ID != v.ID || v.Epoch <= r.Volume.Epoch {
				continue
			}
			// Its store goes on as a copy of what the new home writes.
			if c, ok := v.Mirrored.Copy(h.Node); ok && c.Store == dir {
				delete(next, dir)
				continue
			}
			f := Fence{Epoch: v.Epoch, Home: v.Home, Vaults: v.Vaults}
			if r.Fenced != nil {
				f.Saved = r.Fenced.Saved
			}
			r.Fenced = &f
			next[dir] = r
		}
	}
	return h.replace(next)
}

// lastEpoch is the highest that is known of a volume.
func lastEpoch(records map[string]Record, id string) (last int64) {
	for _, r := range records {
		if r.Volume.ID != id {
			continue
		}
		last = max(last, r.Volume.Epoch)
		if r.Fenced != nil {
			last = max(last, r.Fenced.Epoch)
		}
	}
	return last
}

// Forget takes note that a store is of no use any more; its files stay. An error if the volume is
// written there, or it is not known.
func (h *Homes) Forget(volume string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := maps.Clone(h.mu.records)
	for dir, r := range h.mu.records {
		switch {
		case r.Volume.Name != volume:
		case r.Fenced == nil:
			return fmt.Errorf("%w: %s is written on this node, in %s", remote.ErrRequest, volume, dir)
		default:
			delete(next, dir)
		}
	}
	if len(next) == len(h.mu.records) {
		return fmt.Errorf("%q: %w: this node has no former copy of it", volume, cluster.ErrNoVolume)
	}
	return h.replace(next)
}

// Find returns the record of a volume in which this node writes, or is to, as far as it knows.
func (h *Homes) Find(id string) (Record, bool) {
	for _, r := range h.all() {
		if r.Volume.ID == id && r.Fenced == nil {
			return r, true
		}
	}
	return Record{}, false
}

// Written are the volumes that this node writes, or is to, as far as it knows.
func (h *Homes) Written() (volumes []cluster.Volume) {
	for _, r := range h.all() {
		if r.Fenced == nil {
			volumes = append(volumes, r.Volume)
		}
	}
	slices.SortFunc(volumes, func(a, b cluster.Volume) int { return strings.Compare(a.Name, b.Name) })
	return volumes
}

// Of returns the record of a store's directory.
func (h *Homes) Of(dir string) (Record, bool) {
	r, ok := h.all()[dir]
	return r, ok
}

func (h *Homes) all() map[string]Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.records
}

func (h *Homes) saved(dir, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.mu.records[dir]
	if !ok || r.Fenced == nil {
		return nil
	}
	f := *r.Fenced
	f.Saved = name
	r.Fenced = &f
	next := maps.Clone(h.mu.records)
	next[dir] = r
	return h.replace(next)
}

// replace is with mu held: the file first, so that nothing is acted upon that a restart forgets.
func (h *Homes) replace(next map[string]Record) error {
	if reflect.DeepEqual(h.mu.records, next) {
		return nil
	}
	b, err := json.MarshalIndent(next, "", "\t")
	if err != nil {
		return err
	}
	if err := durable.Write(h.Path, b); err != nil {
		return err
	}
	h.mu.records = next
	close(h.mu.changed)
	h.mu.changed = make(chan struct{})
	return nil
}

// Run pushes each volume until ctx ends.
func (h *Homes) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	type pushing struct {
		of   Record
		stop context.CancelFunc
	}
	running := make(map[string]pushing) // by the store's directory
	for {
		h.mu.Lock()
		records, changed := h.mu.records, h.mu.changed
		h.mu.Unlock()
		for dir, one := range running {
			if r, ok := records[dir]; !ok || !reflect.DeepEqual(r, one.of) { // what has changed is begun anew
				one.stop()
				delete(running, dir)
			}
		}
		for dir, r := range records {
			if _, ok := running[dir]; ok || r.Volume.From != nil || r.Fenced != nil && r.Fenced.Saved != "" {
				continue
			}
			one, stop := context.WithCancel(ctx)
			running[dir] = pushing{r, stop}
			group.Go(func() { h.follow(one, r) })
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for _, one := range running {
				one.stop()
			}
			return nil
		}
	}
}

var errHangs = errors.New("the disk or the daemon of the store does not answer")

// Answers says how it is with each volume, by name. It asks the daemons, and returns when ctx ends
// whoever hangs.
func (h *Homes) Answers(ctx context.Context) []health.Home {
	records := h.all()
	answers := make(chan health.Home, len(records)) // room for all: nobody may read the late ones
	waits := make(map[string]Record)
	for dir, r := range records {
		waits[dir] = r
		if !h.begin(dir) {
			continue // many hang there already, and so would this one
		}
		go func() {
			defer h.end(dir)
			answers <- h.answer(ctx, dir, r)
		}()
	}
	found := []health.Home{}
	for len(waits) > 0 && ctx.Err() == nil {
		select {
		case a := <-answers:
			found = append(found, a)
			delete(waits, a.Store)
		case <-ctx.Done():
		}
	}
	for dir, r := range waits {
		a := answerOf(dir, r)
		a.Hangs, a.Error = true, errHangs.Error()
		found = append(found, a)
	}
	slices.SortFunc(found, func(a, b health.Home) int { return strings.Compare(a.Volume+" "+a.Store, b.Volume+" "+b.Store) })
	return found
}

// mostAsk bounds those who wait for a store that hangs.
const mostAsk = 16

// begin notes that somebody asks for a store, and returns false if too many do.
func (h *Homes) begin(dir string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.asked[dir] >= mostAsk {
		return false
	}
	h.mu.asked[dir]++
	return true
}

func (h *Homes) end(dir string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.asked[dir]--
}

// answerOf is what is known of a store without looking at it.
func answerOf(dir string, r Record) health.Home {
	a := health.Home{Volume: r.Volume.Name, ID: r.Volume.ID, Epoch: r.Volume.Epoch, Store: dir, Pushes: []health.Push{}}
	if f := r.Fenced; f != nil {
		a.FencedBy, a.Saved = f.Home, f.Saved
	}
	return a
}

func (h *Homes) answer(ctx context.Context, dir string, r Record) health.Home {
	a := answerOf(dir, r)
	n, leave, err := h.Open(ctx, dir)
	if err == nil {
		defer leave()
		var st remote.Stats
		if st, err = n.Stats(ctx); err == nil {
			a.Online, a.Mountpoint, a.Bytes = true, st.Mountpoint, st.Stored
		}
	}
	if err != nil {
		a.Hangs, a.Error = !errors.Is(err, ErrOffline), err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, vault := range slices.Sorted(maps.Keys(h.mu.pushes[dir])) {
		a.Pushes = append(a.Pushes, h.mu.pushes[dir][vault])
	}
	return a
}

// note remembers how a push went.
func (h *Homes) note(dir, vault, snapshot string, err error) {
	h.ofPush(dir, vault, func(p *health.Push) {
		p.Tried, p.Error = time.Now().UTC(), ""
		if err != nil {
			p.Error = err.Error()
		} else {
			tried := p.Tried
			p.Done, p.Snapshot = &tried, snapshot
		}
	})
}

// sent remembers how far a push is: one that takes hours is told by that from one that hangs.
func (h *Homes) sent(dir, vault string, bytes int64) {
	h.ofPush(dir, vault, func(p *health.Push) {
		if bytes == p.Sent {
			return
		}
		now := time.Now().UTC()
		p.Sent, p.Moved = bytes, &now
	})
}

// ofPush changes what is known of the pushes to one vault.
func (h *Homes) ofPush(dir, vault string, change func(*health.Push)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.pushes[dir] == nil {
		h.mu.pushes[dir] = make(map[string]health.Push)
	}
	p := h.mu.pushes[dir][vault]
	p.Vault = vault
	change(&p)
	h.mu.pushes[dir][vault] = p
}
