package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/remote/cluster/mirrored"
	"github.com/quarxtor/quarxfs/store"
)

// socket has a node's agent answer daemons of its machine.
func (l *lab) socket(name string) {
	l.t.Helper()
	a := l.agents[name]
	s, err := a.listenSocket(l.t.Context())
	l.must(err)
	server := &http.Server{Handler: a.adminAPI()}
	go func() { _ = server.Serve(s) }()
	l.t.Cleanup(func() { _ = server.Close(); _ = a.mirrors.close() })
}

// written opens a node's copy of a volume as its daemon does.
func (l *lab) written(dir string) (*carrier.Writer, *store.Store) {
	l.t.Helper()
	w, err := mirrored.Open(l.t.Context(), dir, mirrored.Options{MemTable: 8 << 20, LockWait: time.Second})
	l.must(err)
	s, err := store.Open(dir, store.Options{Disk: w, Follower: w, MemTable: 8 << 20, Ballast: -1, CommitInterval: time.Hour})
	if err != nil {
		w.Close()
		l.t.Fatal(err)
	}
	w.Attach(s)
	return w, s
}

// What a mirrored volume has acknowledged is at its mirror, which takes it over when the home is
// gone, and not before the vow that it gave it is over; the former home becomes a mirror.
func TestMirroredTakeover(t *testing.T) {
	t.Parallel() // mostly it waits: for copies, and for the home that is gone
	l := newLab(t, "n1", "n2", "n3")
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	for _, name := range []string{"n1", "n2"} {
		l.agents[name].mirrors.clock = func() time.Duration { return time.Duration(clock.Load()) }
		l.socket(name)
	}
	dir := filepath.Join(t.TempDir(), "store")
	conf := store.DefaultConfig()
	conf.Mirrored = true
	l.must(store.Init(dir, conf))
	made := client.Local(string(l.agents["n1"].dir))
	v, err := made.CreateVolume(t.Context(), cluster.Volume{
		Name: "home", Domain: "d", Store: dir, Copies: 1, RPO: 60, Vaults: []string{},
		Mirrored: &cluster.Mirrored{Copies: []cluster.MirrorCopy{{Node: "n2"}}},
	})
	l.must(err)
	l.learn()
	w, s := l.written(dir)
	put := func(s *store.Store, name string) error {
		_, err := s.Ingest(t.Context(), strings.NewReader(strings.Repeat(name, 1000)), name)
		return errors.Join(err, s.Commit())
	}
	has := func(s *store.Store, name string) {
		t.Helper()
		var b bytes.Buffer
		if err := s.Fetch(t.Context(), name, 0, -1, &b); err != nil || b.String() != strings.Repeat(name, 1000) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	inSync := func(node string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !l.is("home").Mirrored.HasSync(node); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not in sync: %+v", node, l.is("home").Mirrored)
			}
		}
	}
	l.must(put(s, "before")) // before it may be in sync
	inSync("n2")
	l.must(put(s, "acknowledged"))
	two := client.Local(string(l.agents["n2"].dir))
	// The home is gone, and its disk is, too.
	w.Close()
	_ = s.Close() // it cannot commit any more
	l.kill("n1")
	l.must(os.RemoveAll(dir))
	// The vow is not over: who asks for less time than it lasts is refused, and nothing is changed.
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err = l.agents["n2"].takeMirror(soon, client.Takeover{Volume: l.is("home")}, false)
	cancel()
	if !errors.Is(err, mirror.Vowed) || l.is("home").Home != "n1" {
		t.Fatalf("it takes over in spite of its vow: %v", err)
	}
	// That closed the copy, so the next one vows anew from when it opens it.
	go func() {
		for range 200 {
			clock.Add(int64(mirror.Grant))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	taken, err := two.TakeOver(t.Context(), "home", client.TakeoverRequest{Store: "/unused"})
	l.must(err)
	if !taken.Done || taken.Volume.Home != "n2" || taken.Volume.Epoch != v.Epoch+1 || taken.Volume.Mirrored.Nodes()[0] != "n1" {
		b, _ := json.Marshal(taken)
		t.Fatalf("%s", b)
	}
	// A copy whose node is not the home is opened by nobody, and promises nothing.
	former := filepath.Join(t.TempDir(), "former")
	r, err := carrier.OpenReplica(former, carrier.ReplicaOptions{Node: "n1", Volume: v.ID, Agent: string(l.agents["n2"].dir)})
	l.must(err)
	l.must(r.Close())
	if _, err := mirrored.Open(t.Context(), former, mirrored.Options{}); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a former home: %v", err)
	}
	w, s = l.written(taken.Volume.Store)
	defer w.Close()
	has(s, "before")
	has(s, "acknowledged")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// keepFiles writes what daemons read of a node's directory.
func (a *Agent) keepFiles(cert, key, authority []byte) error {
	return errors.Join(
		os.WriteFile(a.dir.path(certName), slices.Concat(cert, authority), 0o600),
		os.WriteFile(a.dir.path(keyName), key, 0o600), os.WriteFile(a.dir.path(authorityName), authority, 0o600),
	)
}
