package home_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/home"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// A daemon has a store open, as one of a volume would; each of its snapshots has other files.
type daemon struct {
	remote.Node
	t    *testing.T
	site remotetest.Site
	made atomic.Uint64
}

func (d *daemon) CreateSnapshot(_ context.Context, n remote.NewSnapshot) (remote.Snapshot, error) {
	if _, err := d.site.Store.Snapshot(n.Name); err == nil {
		return remote.Snapshot{}, store.ErrNameTaken
	}
	return remote.Snapshot{Name: n.Name, ID: d.site.Plant(d.t, n.Name, d.made.Add(1))}, nil
}

func (d *daemon) RemoveSnapshot(_ context.Context, name string) error {
	return d.site.Store.RemoveSnapshot(name)
}

// A rig is a node with a volume, and a vault of it.
type rig struct {
	*home.Homes
	daemon *daemon
	vault  *vault.Vault
	server *httptest.Server
	up     atomic.Bool  // a daemon has the store open
	broken atomic.Value // func(w http.ResponseWriter) bool: answers in the vault's place
}

var domain = cluster.Domain{Name: "default", Chunker: chunk.Default()}

func (r *rig) volume(node string, epoch int64) cluster.Volume {
	return cluster.Volume{
		Name: "home", ID: "id", Domain: "default", Home: node, Store: "/srv/" + node, Vaults: []string{"n2"}, Copies: 2, RPO: 2, Epoch: epoch,
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	v, err := vault.Open(filepath.Join(t.TempDir(), "vaults"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	r := &rig{vault: v}
	r.broken.Store(func(http.ResponseWriter) bool { return false })
	if err := v.Raise(r.volume("n1", 1), domain); err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if r.broken.Load().(func(http.ResponseWriter) bool)(w) {
			return
		}
		var epoch int64
		var rest string
		if _, err := fmt.Sscanf(q.URL.Path, "/%d/%s", &epoch, &rest); err != nil {
			t.Error(err)
		}
		h, err := v.Handler("id", "n1", epoch)
		if err != nil {
			remote.Fail(w, q, log, err)
			return
		}
		http.StripPrefix(fmt.Sprintf("/%d", epoch), h).ServeHTTP(w, q)
	}))
	t.Cleanup(r.server.Close)
	site := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	r.daemon = &daemon{Node: site.Node, t: t, site: site}
	r.up.Store(true)
	r.Homes = r.restart(t, filepath.Join(t.TempDir(), "volumes.json"))
	return r
}

// restart is the node's part as an agent that was started again has it.
func (r *rig) restart(t *testing.T, path string) *home.Homes {
	t.Helper()
	h := &home.Homes{Path: path, Node: "n1", Log: slog.New(slog.DiscardHandler)}
	h.Open = func(context.Context, string) (remote.Node, func(), error) {
		if !r.up.Load() {
			return nil, nil, home.ErrOffline
		}
		return r.daemon, func() {}, nil
	}
	h.Vault = func(_ string, v cluster.Volume) (*remote.Client, error) {
		return remote.NewClientOver(fmt.Sprintf("%s/%d", r.server.URL, v.Epoch), http.DefaultTransport), nil
	}
	if err := h.Load(); err != nil {
		t.Fatal(err)
	}
	return h
}

func run(t *testing.T, h *home.Homes) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

func (r *rig) learn(t *testing.T, v cluster.Volume) {
	t.Helper()
	if err := r.Learn([]cluster.Volume{v}); err != nil {
		t.Fatal(err)
	}
}

// until waits until the node and the vault say what is wanted.
func (r *rig) until(t *testing.T, what string, good func(health.Home, health.Copy) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		answers := r.Answers(t.Context())
		c, err := r.vault.Copy(t.Context(), "id")
		if err == nil && len(answers) == 1 && good(answers[0], c) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v, %+v, %v", what, answers, c, err)
		}
	}
}

// Snapshots are made and reach the vault, the newest again and again, and few stay on either side.
func TestPush(t *testing.T) {
	r := newRig(t)
	filling := r.volume("n1", 1)
	filling.From = &cluster.Origin{Vault: "n2"}
	r.learn(t, filling)
	run(t, r.Homes)
	r.learn(t, r.volume("n1", 1))
	r.until(t, "pushed three times", func(h health.Home, c health.Copy) bool {
		return h.Online && len(h.Pushes) == 1 && h.Pushes[0].Error == "" && c.Newest != nil && cluster.NewerSnapshot(c.Newest.Name, "cluster-1-3") > 0
	})
	r.up.Store(false)
	r.until(t, "offline", func(h health.Home, c health.Copy) bool {
		return !h.Online && strings.Contains(h.Error, home.ErrOffline.Error()) && c.Snapshots <= 3
	})
}

// What keeps snapshots from a vault is said in one line, whatever it is, and what was there stays.
func TestPushFails(t *testing.T) {
	for _, test := range []struct {
		what string
		err  error
		want string
	}{
		{"a full disk", store.ErrFull, store.ErrFull.Error()},
		{"a later epoch", remote.ErrFenced, remote.ErrFenced.Error()},
		{"a vault that is damaged", store.ErrDamaged, store.ErrDamaged.Error()},
		{"a node that was told nothing", store.ErrNotFound, store.ErrNotFound.Error()},
		{"something else than a node", nil, "the server answers 404"},
	} {
		t.Run(test.what, func(t *testing.T) {
			r := newRig(t)
			r.broken.Store(func(w http.ResponseWriter) bool {
				if test.err == nil {
					http.Error(w, "no", http.StatusNotFound)
					return true
				}
				q := httptest.NewRequest(http.MethodGet, "/", nil)
				remote.Fail(w, q, slog.New(slog.DiscardHandler), test.err)
				return true
			})
			r.learn(t, r.volume("n1", 1))
			run(t, r.Homes)
			r.until(t, "told", func(h health.Home, c health.Copy) bool {
				return len(h.Pushes) == 1 && strings.Contains(h.Pushes[0].Error, test.want) && !strings.Contains(h.Pushes[0].Error, "\n") &&
					h.Pushes[0].Done == nil && c.Newest == nil
			})
		})
	}
}

// A former home pushes nothing any more; what it had goes to the vault under a name that says so,
// and it knows after a restart, with the register out of reach, until it is told to forget.
func TestFencedHome(t *testing.T) {
	r := newRig(t)
	r.learn(t, r.volume("n1", 1))
	if err := r.Forget("home"); !errors.Is(err, remote.ErrRequest) {
		t.Errorf("a home forgets its volume: %v", err)
	}
	if _, ok := r.Find("id"); !ok {
		t.Error("the volume is not written here")
	}
	if err := r.vault.Raise(r.volume("n3", 2), domain); err != nil {
		t.Fatal(err)
	}
	r.learn(t, r.volume("n3", 2))
	r.learn(t, r.volume("n3", 2)) // nothing new
	if _, ok := r.Find("id"); ok {
		t.Error("the volume is written here")
	}
	r.Homes = r.restart(t, r.Path)
	run(t, r.Homes)
	r.until(t, "saved", func(h health.Home, c health.Copy) bool {
		return h.FencedBy == "n3" && h.Saved == cluster.DivergedName(1) && h.Epoch == 1 && c.Snapshots == 1 && c.Writer == "n3" && c.Newest == nil
	})
	if err := r.Forget("home"); err != nil {
		t.Error(err)
	}
	if err := r.Forget("home"); !errors.Is(err, cluster.ErrNoVolume) {
		t.Errorf("forgotten twice: %v", err)
	}
}

// A register that was restored from before does not make a node forget what it writes.
func TestOldRegister(t *testing.T) {
	r := newRig(t)
	r.learn(t, r.volume("n1", 5))
	r.learn(t, r.volume("n3", 4))
	if rec, ok := r.Find("id"); !ok || rec.Volume.Epoch != 5 {
		t.Errorf("%+v, %t", rec, ok)
	}
	old := r.volume("n1", 4)
	old.Store = "/srv/old"
	r.learn(t, old)
	for range 20 { // the order of a map must not matter
		if rec, ok := r.Find("id"); !ok || rec.Volume.Epoch != 5 {
			t.Fatalf("%+v, %t", rec, ok)
		}
	}
}

// A store whose disk hangs holds up nobody who asks how it is, however often.
func TestHangingStore(t *testing.T) {
	r := newRig(t)
	r.learn(t, r.volume("n1", 1))
	hangs := make(chan struct{})
	defer close(hangs)
	var asked atomic.Int32
	r.Open = func(context.Context, string) (remote.Node, func(), error) {
		asked.Add(1)
		<-hangs
		return nil, nil, home.ErrOffline
	}
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		a := r.Answers(ctx)
		cancel()
		if len(a) != 1 || a[0].Online || !a[0].Hangs || a[0].Error == "" || a[0].Volume != "home" {
			t.Fatalf("%+v", a)
		}
	}
	if n := asked.Load(); n > 16 {
		t.Errorf("%d wait for it", n)
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volumes.json")
	for _, text := range []string{"", "{", "[1]", `{"/srv":7}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h := &home.Homes{Path: path}
		if err := h.Load(); err == nil || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
