package transfer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// copyOf makes a store that has another one's volume ID, as a copy of its directory has.
func copyOf(t *testing.T, s remotetest.Site) remotetest.Site {
	t.Helper()
	dir := t.TempDir() + "/copy"
	if err := store.Init(dir, s.Store.Config()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{MemTable: 8 << 20, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return remotetest.Site{Store: st, Node: remote.NewLocal(st, remote.Environment{})}
}

// A pruning is a store that sends snapshots and another one that has them.
type pruning struct {
	*testing.T
	pull             bool
	sender, receiver remotetest.Site
}

// sync brings all snapshots from the sender, by a remote of this name.
func (p *pruning) sync(name string, sender remotetest.Site, prune bool) (transfer.Report, error) {
	j := transfer.Job{Remote: config.Remote{Name: name}, Pull: p.pull, All: true, Prune: prune}
	if p.pull {
		return j.Run(p.Context(), p.receiver.Node, sender.Node)
	}
	return j.Run(p.Context(), sender.Node, p.receiver.Node)
}

func (p *pruning) mustSync(name string, sender remotetest.Site) {
	p.Helper()
	if _, err := p.sync(name, sender, false); err != nil {
		p.Fatal(err)
	}
}

func (p *pruning) remove(s remotetest.Site, name string) {
	p.Helper()
	if err := s.Store.RemoveSnapshot(name); err != nil {
		p.Fatal(err)
	}
}

// forget has the noted sync be one of before anything was remembered.
func (p *pruning) forget(name string) {
	p.Helper()
	local := p.sender
	if p.pull {
		local = p.receiver
	}
	if err := local.Store.NoteSync(store.SyncNote{Remote: name}); err != nil {
		p.Fatal(err)
	}
}

// A note of very many snapshots is a request that the owner's daemon takes, and what is remembered
// are the last ones.
func TestNoteOfManySnapshots(t *testing.T) {
	s := newSite(t, store.Options{})
	client := s.Serve(t, func(http.Handler) http.Handler { return remote.ControlHandler(s.Node, slog.Default()) })
	ids := make([]store.ID, 11_000)
	for i := range ids {
		ids[i] = store.ID{byte(i), byte(i >> 8), 0xff}
	}
	if err := client.NoteSync(t.Context(), store.SyncNote{Remote: "r", Came: map[string][]store.ID{"push": ids, "pull": ids}}); err != nil {
		t.Fatal(err)
	}
	state, err := client.SyncState(t.Context())
	if err != nil || len(state.Notes) != 1 {
		t.Fatalf("%d notes: %v", len(state.Notes), err)
	}
	for direction, got := range state.Notes[0].Came {
		if n := len(got); n == 0 || !slices.Equal(got, ids[len(ids)-n:]) {
			t.Errorf("%s: %d are remembered, and not the last", direction, n)
		}
	}
}

// TestPrune: only what syncs by this remote brought is removed when the sender has it no more.
func TestPrune(t *testing.T) {
	for name, c := range map[string]struct {
		copies bool // the receiver is a copy of the sender, and has its volume ID
		act    func(p *pruning)
		pruned []string
	}{
		"came by this remote": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.remove(p.sender, "one")
		}, []string{"one"}},
		"came by this remote, between copies": {true, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.remove(p.sender, "one")
		}, []string{"one"}},
		"came with several syncs": {true, func(p *pruning) {
			p.mustSync("r", p.sender)
			plant(p, p.sender, "three", 3)
			p.mustSync("r", p.sender)
			p.remove(p.sender, "three")
		}, []string{"three"}},
		"is held": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			if err := p.receiver.Store.HoldSnapshot("one", true); err != nil {
				p.Fatal(err)
			}
			p.remove(p.sender, "one")
		}, nil},
		"made by hand on the copy": {true, func(p *pruning) {
			p.mustSync("r", p.sender)
			plant(p, p.receiver, "hand", 7)
		}, nil},
		"made by hand on the copy, before the first sync": {true, func(p *pruning) {
			plant(p, p.receiver, "hand", 7)
		}, nil},
		"pushed by another store": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			third := copyOf(p.T, p.sender)
			plant(p, third, "theirs", 8)
			p.mustSync("other", third)
		}, nil},
		"the note has no record": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.forget("r")
			p.remove(p.sender, "one")
		}, []string{"one"}},
		"the note has no record, and it is the receiver's own": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.forget("r")
			plant(p, p.receiver, "own", 7)
		}, nil},
		"the note has no record, between copies": {true, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.forget("r")
			p.remove(p.sender, "one")
		}, nil},
		"remembered since a sync that found no record": {false, func(p *pruning) {
			p.mustSync("r", p.sender)
			p.forget("r")
			if _, err := p.sync("r", p.sender, true); err != nil {
				p.Fatal(err)
			}
			p.remove(p.sender, "two")
		}, []string{"two"}},
		"came with a sync that broke off": {true, func(p *pruning) {
			p.mustSync("r", p.sender)
			plant(p, p.sender, "three", 3)
			plant(p, p.sender, "worse", 4)
			broken := errors.New("broken")
			j := transfer.Job{Remote: config.Remote{Name: "r"}, Pull: p.pull, All: true}
			local, peer := remote.Node(p.sender.Node), remote.Node(breaking{p.receiver.Node, "worse", broken})
			if p.pull {
				local, peer = breaking{p.receiver.Node, "worse", broken}, p.sender.Node
			}
			if r, err := j.Run(p.Context(), local, peer); !errors.Is(err, broken) || !slices.Equal(r.Sent, []string{"three"}) {
				p.Fatalf("%q, %v", r.Sent, err)
			}
			p.remove(p.sender, "three")
		}, []string{"three"}},
	} {
		for way, pull := range map[string]bool{"pull": true, "push": false} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				p := &pruning{T: t, pull: pull, sender: newSite(t, store.Options{})}
				if p.receiver = newSite(t, store.Options{}); c.copies {
					p.receiver = copyOf(t, p.sender)
				}
				plant(t, p.sender, "one", 1)
				plant(t, p.sender, "two", 2)
				c.act(p)
				r, err := p.sync("r", p.sender, true)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(append([]string{}, c.pruned...), r.Pruned); diff != "" {
					t.Error(diff)
				}
				for _, gone := range r.Pruned {
					if _, err := p.receiver.Store.Snapshot(gone); !errors.Is(err, store.ErrNotFound) {
						t.Errorf("%s: %v", gone, err)
					}
				}
			})
		}
	}
}

// breaking does not let one snapshot have its name.
type breaking struct {
	remote.Node
	name string
	err  error
}

func (b breaking) LinkSnapshot(ctx context.Context, name string, id store.ID) error {
	if name == b.name {
		return b.err
	}
	return b.Node.LinkSnapshot(ctx, name, id)
}
