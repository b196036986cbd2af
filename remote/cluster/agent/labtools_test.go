package agent

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/transfer"
)

// barrier answers nobody before all are there, or ctx ends.
func barrier(h http.Handler, inside *sync.WaitGroup, ctx context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == client.PathFence {
			inside.Done()
			all := make(chan struct{})
			go func() { inside.Wait(); close(all) }()
			select {
			case <-all:
			case <-ctx.Done():
			case <-r.Context().Done():
			}
		}
		h.ServeHTTP(w, r)
	})
}

func (l *lab) read(path string) string {
	l.t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	l.must(err)
	return string(b)
}

func mkdir(path string) error  { return os.MkdirAll(path, 0o700) }
func remove(path string) error { return os.Remove(path) }

// request is one of an administrator, for a volume or a node of that name.
func request(t *testing.T, name, body string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
	r.SetPathValue("name", name)
	return r
}

// push brings a snapshot of the volume to a vault, as its home does.
func (l *lab) push(volume, snapshot, node string) {
	l.t.Helper()
	v := l.is(volume)
	l.mu.Lock()
	site := l.sites[v.Store]
	l.mu.Unlock()
	has, err := site.Store.Snapshot(snapshot)
	id := has.ID
	if err != nil {
		seed := uint64(0)
		for _, b := range []byte(snapshot) {
			seed = seed*31 + uint64(b)
		}
		id = site.Plant(l.t, snapshot, seed)
	}
	to, err := l.agents[v.Home].vaultClient(node, v)
	l.must(err)
	defer to.Close()
	ref := transfer.SnapshotRef{Name: snapshot, ID: id}
	_, err = transfer.Transfer{From: site.Node, To: to, Snapshots: []transfer.SnapshotRef{ref}, Whose: "test"}.Run(l.t.Context())
	l.must(err)
}
