package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering"
)

// A liveTree is a filesystem by path; directories end in a slash, and the root
// is "".
type liveTree struct {
	paths  []string // of inode i+1
	blocks map[string][]store.ID
}

func (l *liveTree) isDir(i int) bool { return i == 0 || strings.HasSuffix(l.paths[i], "/") }

func (l *liveTree) LiveFile(_ context.Context, path string) (export.LiveFile, error) {
	for i, p := range l.paths {
		if strings.TrimSuffix(p, "/") == path {
			return export.LiveFile{Ino: uint64(i + 1), Directory: l.isDir(i)}, nil
		}
	}
	return export.LiveFile{}, fmt.Errorf("%q: %w", path, store.ErrNotFound)
}

func (l *liveTree) LiveEdges(ctx context.Context, f export.LiveFile, fn func(export.LiveEdge) error) error {
	err := l.Names(ctx, nil, func(n remote.Name) error {
		if n.Dir != f.Ino {
			return nil
		}
		return fn(export.LiveEdge{Role: graph.Content, Name: n.Name, File: &export.LiveFile{Ino: n.Ino, Directory: n.Directory}})
	})
	if err != nil {
		return err
	}
	return l.References(ctx, nil, func(r graph.Reference) error {
		if r.Ino != f.Ino {
			return nil
		}
		return fn(export.LiveEdge{Role: graph.Contains, Block: r.ID, Offset: r.Off, Bytes: r.Len})
	})
}

func (l *liveTree) Names(_ context.Context, _ *store.View, fn func(remote.Name) error) error {
	ino := make(map[string]uint64)
	for i, p := range l.paths {
		ino[p] = uint64(i + 1)
	}
	for i, p := range l.paths[1:] {
		name := strings.TrimSuffix(p, "/")
		dir := name[:strings.LastIndexByte(name, '/')+1]
		if err := fn(remote.Name{Dir: ino[dir], Ino: uint64(i + 2), Directory: l.isDir(i + 1), Name: name[len(dir):]}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liveTree) References(_ context.Context, _ *store.View, fn func(graph.Reference) error) error {
	for i, p := range l.paths {
		for n, id := range l.blocks[p] {
			if err := fn(graph.Reference{Ino: uint64(i + 1), Off: int64(n) * 10, Len: 10, ID: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *liveTree) Contents(_ context.Context, _ *store.View, fn func(remote.Content) error) error {
	for i, p := range l.paths {
		if l.isDir(i) {
			continue
		}
		if err := fn(remote.Content{Ino: uint64(i + 1), Files: 1, Data: 10 * int64(len(l.blocks[p]))}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liveTree) AllPaths(_ context.Context, _ *store.View, inodes map[uint64]bool) (map[uint64][]string, error) {
	paths := make(map[uint64][]string)
	for i := range inodes {
		if i > 1 {
			paths[i] = []string{strings.TrimSuffix(l.paths[i-1], "/")}
		}
	}
	return paths, nil
}

// below returns the blocks of a file, or of all files in a directory.
func (l *liveTree) below(path string) map[store.ID]bool {
	set := make(map[store.ID]bool)
	for p, ids := range l.blocks {
		if p == path || path == "" || strings.HasSuffix(path, "/") && strings.HasPrefix(p, path) {
			for _, id := range ids {
				set[id] = true
			}
		}
	}
	return set
}

func jaccard(a, b map[store.ID]bool) float64 {
	both := 0
	for id := range a {
		if b[id] {
			both++
		}
	}
	return float64(both) / float64(len(a)+len(b)-both)
}

// eachLiveNode is eachNode with a filesystem whose files share blocks at random.
func eachLiveNode(t *testing.T, test func(t *testing.T, n remote.Node, tree *liveTree)) {
	dir := t.TempDir() + "/store"
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	tree := &liveTree{paths: []string{""}, blocks: make(map[string][]store.ID)}
	var ids []store.ID
	for i := range 60 {
		id, err := st.Put(tiering.Data, fmt.Appendf(nil, "block %04d", i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for d := range 6 {
		dir := fmt.Sprintf("d%d/", d)
		if d > 2 {
			dir = fmt.Sprintf("d%d/%s", d-3, dir)
		}
		tree.paths = append(tree.paths, dir)
		for f := range 3 {
			file := fmt.Sprintf("%sf%d", dir, f)
			tree.paths = append(tree.paths, file)
			for range rng.IntN(12) {
				tree.blocks[file] = append(tree.blocks[file], ids[rng.IntN(len(ids))])
			}
		}
	}
	local := remote.NewLocal(st, remote.Environment{Live: tree, Rows: tree})
	t.Run("local", func(t *testing.T) { test(t, local, tree) })
	t.Run("http", func(t *testing.T) {
		srv := httptest.NewServer(remote.Handler(local, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		c := remote.NewClient(srv.URL, nil)
		t.Cleanup(c.Close)
		test(t, c, tree)
	})
}

// TestSimilar compares with brute force: with so few blocks nothing is left to
// estimates.
func TestSimilar(t *testing.T) {
	eachLiveNode(t, func(t *testing.T, n remote.Node, tree *liveTree) {
		for i, subject := range tree.paths {
			own := tree.below(subject)
			s, err := n.Similar(t.Context(), "/"+strings.TrimSuffix(subject, "/"), 1000)
			if err != nil {
				t.Fatal(err)
			}
			if s.Blocks != int64(len(own)) {
				t.Errorf("%q has %d blocks, not %d", subject, len(own), s.Blocks)
			}
			want := make(map[string]float64)
			for j, other := range tree.paths {
				inside := strings.HasPrefix(subject, other) && (other == "" || strings.HasSuffix(other, "/"))
				if tree.isDir(i) != tree.isDir(j) || i == j || tree.isDir(i) && inside {
					continue
				}
				if v := jaccard(own, tree.below(other)); v > 0 {
					want[strings.TrimSuffix(other, "/")] = v
				}
			}
			for k, l := range s.Like {
				if l.Jaccard != want[l.Name] || l.Estimate != l.Jaccard {
					t.Errorf("%q and %q: %v, estimated %v, it is %v", subject, l.Name, l.Jaccard, l.Estimate, want[l.Name])
				}
				if k > 0 && l.Jaccard > s.Like[k-1].Jaccard {
					t.Errorf("%q: not in order", subject)
				}
				delete(want, l.Name)
			}
			if len(want) > 0 {
				t.Errorf("%q: not found: %v", subject, want)
			}
			if top, err := n.Similar(t.Context(), "/"+strings.TrimSuffix(subject, "/"), 1); err != nil || len(s.Like) > 0 && (len(top.Like) != 1 || top.Like[0] != s.Like[0]) {
				t.Errorf("the top of %q is %+v, %v", subject, top, err)
			}
		}
	})
}

// TestConnect walks every way that it finds.
func TestConnect(t *testing.T) {
	eachLiveNode(t, func(t *testing.T, n remote.Node, tree *liveTree) {
		obj, err := n.Put(t.Context(), "", io.MultiReader(bytes.NewReader(remotetest.RandomBytes(3, 400_000)), strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range tree.paths {
			for _, b := range tree.paths {
				steps, err := n.Connect(t.Context(), "/"+strings.TrimSuffix(a, "/"), "/"+strings.TrimSuffix(b, "/"))
				if err != nil {
					t.Fatalf("%q to %q: %v", a, b, err)
				}
				first, last := steps[0], steps[len(steps)-1]
				if strings.Trim(first.Name, "/") != strings.TrimSuffix(a, "/") || strings.Trim(last.Name, "/") != strings.TrimSuffix(b, "/") || first.Edge != nil {
					t.Fatalf("%q to %q: %+v", a, b, steps)
				}
				if jaccard(tree.below(a), tree.below(b)) > 0 && !strings.HasSuffix(a, "/") && !strings.HasSuffix(b, "/") && a != b && a != "" && b != "" {
					if len(steps) != 3 || steps[1].Kind != export.Data || steps[1].Edge.Against || !steps[2].Edge.Against {
						t.Errorf("%q and %q share a block: %+v", a, b, steps)
					}
				}
			}
		}
		blocks, err := n.Connect(t.Context(), obj.ID.String(), obj.ID.String())
		if err != nil || len(blocks) != 1 || blocks[0].Kind != export.File {
			t.Errorf("%+v, %v", blocks, err)
		}
		if _, err := n.Connect(t.Context(), obj.ID.String(), "/"); err == nil {
			t.Error("a way from an object that shares nothing")
		}
	})
}
