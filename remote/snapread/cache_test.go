package snapread_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/snapread"
	"github.com/quarxtor/quarxfs/store"
)

// tallied counts what a node is asked for; broken, it does not answer.
type tallied struct {
	*remote.Local
	mu     sync.Mutex
	asked  map[store.ID]int
	broken bool
}

func (c *tallied) Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error {
	c.mu.Lock()
	broken := c.broken
	for _, id := range ids {
		c.asked[id]++
	}
	c.mu.Unlock()
	if broken {
		return remote.ErrNoAnswer
	}
	return c.Local.Records(ctx, ids, fn)
}

func openCache(t *testing.T, from snapread.Lister, o snapread.CacheOptions) *snapread.BlockCache {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := snapread.NewBlockCache(from, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// filled returns a node with some MiB, and the IDs of its data blocks.
func filled(t *testing.T) (*tallied, []store.ID) {
	node := remotetest.NewSite(t, store.Options{}, remote.Environment{}).Node
	if _, err := node.Put(t.Context(), "x", bytes.NewReader(remotetest.RandomBytes(7, 8<<20))); err != nil {
		t.Fatal(err)
	}
	var ids []store.ID
	if err := node.ListBlocks(t.Context(), remote.BlockFilter{Kinds: []string{"data"}}, func(b remote.BlockInfo) error {
		ids = append(ids, b.ID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return &tallied{Local: node, asked: make(map[store.ID]int)}, ids
}

func requireBlocks(t *testing.T, n *tallied, c *snapread.BlockCache, ids []store.ID) {
	t.Helper()
	got, err := c.GetAll(t.Context(), ids)
	if err != nil {
		t.Error(err)
		return
	}
	i := 0
	err = n.Local.Records(t.Context(), ids, func(r store.Record) error {
		plain, err := store.Unpack(&r)
		if !bytes.Equal(got[i], plain) {
			t.Errorf("block %d of %d is another", i, len(ids))
		}
		i++
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Many ask for the same blocks at once: each travels once, and lasts.
func TestCacheAsksOnce(t *testing.T) {
	n, ids := filled(t)
	o := snapread.CacheOptions{Dir: t.TempDir() + "/cache", URL: "http://a", Disk: 1 << 30, Memory: 64 << 20}
	c := openCache(t, n, o)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { requireBlocks(t, n, c, ids) })
	}
	wg.Wait()
	for id, times := range n.asked {
		if times != 1 {
			t.Errorf("block %s was asked for %d times", id.Short(), times)
		}
	}
	if _, err := c.GetAll(t.Context(), []store.ID{ids[0], {1}}); !errors.Is(err, graph.ErrGone) || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a block that is nowhere: %v", err)
	}
	if _, err := snapread.NewBlockCache(n, o); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a cache that is in use: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	n.broken = true
	c = openCache(t, n, o)
	defer c.Close()
	requireBlocks(t, n, c, ids)
}

// A small cache on disk stays small, and a small one in memory gives what is asked for.
func TestCacheIsBounded(t *testing.T) {
	n, ids := filled(t)
	dir := t.TempDir()
	const limit = 1 << 20
	c := openCache(t, n, snapread.CacheOptions{Dir: dir, URL: "http://a", Disk: limit, Memory: 256 << 10})
	defer c.Close()
	for range 2 {
		for i := 0; i < len(ids); i += 16 {
			requireBlocks(t, n, c, ids[i:min(i+16, len(ids))])
		}
	}
	size := func() (sum int64) {
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if info, err := e.Info(); err == nil {
					sum += info.Size()
				}
			}
			return nil
		})
		return sum
	}
	for deadline := time.Now().Add(10 * time.Second); size() > limit+limit/4; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes in a cache of %d", size(), limit)
		}
	}
}

// The memory of a cache can be changed, and is then bounded by that.
func TestCacheResizes(t *testing.T) {
	n, ids := filled(t)
	c := openCache(t, n, snapread.CacheOptions{Dir: t.TempDir(), URL: "http://a", Disk: 1 << 30, Memory: 64 << 20})
	defer c.Close()
	requireBlocks(t, n, c, ids)
	for _, limit := range []int64{1 << 20, 256 << 10, 8 << 20} {
		c.ResizeMemory(limit)
		requireBlocks(t, n, c, ids)
		if used, most := c.Memory(); used > limit || most != limit {
			t.Errorf("%d bytes of %d in memory, want at most %d", used, most, limit)
		}
	}
}

// Files of the cache that were damaged, cut or exchanged are never believed.
func TestCacheChecksItsFiles(t *testing.T) {
	n, ids := filled(t)
	dir := t.TempDir()
	o := snapread.CacheOptions{Dir: dir, URL: "http://a", Disk: 1 << 30, Memory: 64 << 20}
	c := openCache(t, n, o)
	requireBlocks(t, n, c, ids)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	path := func(id store.ID) string { return filepath.Join(dir, "blocks", id.String()[:2], id.String()) }
	b, err := os.ReadFile(path(ids[0]))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(b)
	flipped[len(flipped)/2] ^= 4
	for i, with := range [][]byte{flipped, b[:len(b)/2], {}, b} {
		if err := os.WriteFile(path(ids[i]), with, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c = openCache(t, n, o)
	defer c.Close()
	requireBlocks(t, n, c, ids)
	for i, id := range ids[:5] {
		want := 2
		if i > 3 {
			want = 1
		}
		if n.asked[id] != want {
			t.Errorf("block %d was asked for %d times, want %d", i, n.asked[id], want)
		}
	}
}
