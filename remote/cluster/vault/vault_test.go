package vault_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

func open(t *testing.T, dir string) *vault.Vault {
	t.Helper()
	v, err := vault.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

var domain = cluster.Domain{Name: "default", Chunker: chunk.Default()}

func volume(name, home string, epoch int64) cluster.Volume {
	return cluster.Volume{Name: name, ID: "id-" + name, Domain: "default", Home: home, Epoch: epoch}
}

func raise(t *testing.T, v *vault.Vault, vol cluster.Volume) {
	t.Helper()
	if err := v.Raise(vol, domain); err != nil {
		t.Fatal(err)
	}
}

// at is the vault over HTTP, for a node that writes the volume in an epoch.
func at(t *testing.T, v *vault.Vault, name, node string, epoch int64) *remote.Client {
	t.Helper()
	h, err := v.Handler("id-"+name, node, epoch)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := remote.NewClientOver(srv.URL, http.DefaultTransport)
	t.Cleanup(c.Close)
	return c
}

func push(t *testing.T, from remotetest.Site, to remote.Peer, refs ...transfer.SnapshotRef) error {
	t.Helper()
	_, err := transfer.Transfer{From: from.Node, To: to, Snapshots: refs, Whose: "test"}.Run(t.Context())
	return err
}

func names(t *testing.T, n interface {
	ListSnapshots(ctx context.Context, fn func(remote.Snapshot) error) error
}) (list []string) {
	t.Helper()
	if err := n.ListSnapshots(t.Context(), func(s remote.Snapshot) error { list = append(list, s.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// Volumes of a domain share a store and see their own snapshots alone; a store that is read again
// has them, and the fences.
func TestVault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vaults")
	v := open(t, dir)
	if _, err := v.Handler("id-home", "n1", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a volume that it does not know: %v", err)
	}
	raise(t, v, volume("home", "n1", 1))
	raise(t, v, volume("mail", "n2", 1))
	src := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	one, two := src.Plant(t, "cluster-1-1", 1, 2), src.Plant(t, "monday", 2, 3)
	if err := push(t, src, at(t, v, "home", "n1", 1), transfer.SnapshotRef{Name: "cluster-1-1", ID: one}, transfer.SnapshotRef{Name: "monday", ID: two}); err != nil {
		t.Fatal(err)
	}
	if err := push(t, src, at(t, v, "mail", "n2", 1), transfer.SnapshotRef{Name: "monday", ID: two}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, at(t, v, "home", "n3", 1)); !slices.Equal(got, []string{"monday", "cluster-1-1"}) {
		t.Errorf("home: %q", got)
	}
	if got := names(t, at(t, v, "mail", "n3", 1)); !slices.Equal(got, []string{"monday"}) {
		t.Errorf("mail: %q", got)
	}
	if err := at(t, v, "home", "n1", 1).UnlinkSnapshot(t.Context(), "monday", two); !errors.Is(err, remote.ErrForbidden) {
		t.Errorf("a home removes snapshots at a vault: %v", err)
	}
	if _, err := at(t, v, "home", "n1", 1).Stats(t.Context()); !errors.Is(err, remote.ErrForbidden) {
		t.Errorf("a home sees all of the vault: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, dir)
	copies := v.Copies(t.Context())
	if len(copies) != 2 || copies[0].Volume != "home" || copies[0].Newest == nil || copies[0].Newest.Name != "cluster-1-1" || copies[0].Snapshots != 2 ||
		copies[0].Writer != "n1" || copies[1].Newest != nil || copies[1].Snapshots != 1 || copies[0].Error+copies[1].Error != "" {
		t.Errorf("what it has: %+v", copies)
	}
}

// Whoever writes no more gives no names, and neither does another node in the same epoch; what a
// former home has written it keeps under the name that says so.
func TestFence(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "vaults"))
	src := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	ref := transfer.SnapshotRef{Name: "any", ID: src.Plant(t, "any", 1)}
	raise(t, v, volume("home", "n1", 2))
	for _, test := range []struct {
		what, by string
		epoch    int64
		name     string
		want     error
	}{
		{"the home", "n1", 2, "cluster-2-1", nil},
		{"an older epoch", "n1", 1, "cluster-1-9", remote.ErrFenced},
		{"an older epoch with a user's name", "n1", 1, "monday", remote.ErrFenced},
		{"an older epoch that says so", "n1", 1, "diverged-1", nil},
		{"an older epoch that lies", "n1", 1, "diverged-2", remote.ErrFenced},
		{"another node in this epoch", "n2", 2, "cluster-2-2", remote.ErrFenced},
		{"a later epoch", "n3", 5, "cluster-5-1", nil},
		{"the home of before", "n1", 2, "cluster-2-3", remote.ErrFenced},
		{"an epoch between", "n2", 4, "cluster-4-1", remote.ErrFenced},
	} {
		ref.Name = test.name
		if err := push(t, src, at(t, v, "home", test.by, test.epoch), ref); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
	}
	if err := v.Raise(volume("home", "n1", 3), domain); !errors.Is(err, remote.ErrFenced) {
		t.Errorf("a register that is older than the vault: %v", err)
	}
	want := []string{"diverged-1", "cluster-2-1", "cluster-5-1"}
	if got := names(t, at(t, v, "home", "n3", 5)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Once a fence was raised no name of before comes, however many are on their way.
func TestFenceRace(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "vaults"))
	src := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	id := src.Plant(t, "any", 1)
	raise(t, v, volume("home", "n1", 1))
	if err := push(t, src, at(t, v, "home", "n1", 1), transfer.SnapshotRef{Name: "first", ID: id}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		to := at(t, v, "home", "n1", 1)
		wg.Go(func() {
			for k := range 5 {
				if err := to.LinkSnapshot(t.Context(), fmt.Sprintf("late-%d-%d", i, k), id); err != nil && !errors.Is(err, remote.ErrFenced) {
					t.Error(err)
				}
			}
		})
	}
	raise(t, v, volume("home", "n2", 2))
	then := names(t, at(t, v, "home", "n2", 2))
	wg.Wait()
	if now := names(t, at(t, v, "home", "n2", 2)); !slices.Equal(then, now) {
		t.Errorf("%d names when the fence was up, %d later", len(then), len(now))
	}
}

// Of the agents' snapshots the newest three stay, and one of each former epoch; a user's stay all.
func TestRetention(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "vaults"))
	src := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	id := src.Plant(t, "any", 1)
	raise(t, v, volume("home", "n1", 1))
	for i := range 12 {
		epoch := int64(1 + i/6)
		for _, name := range []string{fmt.Sprintf("user-%d", i), cluster.SnapshotName(epoch, int64(8+i))} {
			if err := push(t, src, at(t, v, "home", "n1", epoch), transfer.SnapshotRef{Name: name, ID: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := names(t, at(t, v, "home", "n1", 2))
	if want := []string{"cluster-1-13", "cluster-2-17", "cluster-2-18", "cluster-2-19"}; len(got) != 16 || !slices.Equal(got[12:], want) {
		t.Errorf("%q, want %q at the end", got, want)
	}
}

// Files that are damaged are refused with what to do, and a vault that is gone is not a copy.
func TestDamagedVault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vaults")
	v := open(t, dir)
	raise(t, v, volume("home", "n1", 1))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "default")); err != nil {
		t.Fatal(err)
	}
	if c := open(t, dir).Copies(t.Context()); len(c) != 1 || c[0].Error == "" || c[0].Newest != nil {
		t.Errorf("a store that is gone: %+v", c)
	}
	path := filepath.Join(dir, "fences.json")
	for _, text := range []string{"", "{", "[]", `{"format":9,"fences":{}}`, `{"format":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Open(dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q is taken for fences", text)
		}
	}
}
