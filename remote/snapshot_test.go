package remote_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// eachSnapshotNode is eachNode with snapshots "old" and "new" of a directory
// "dir" with files "a" and "b" of one block each, of which only b differs, and c,
// which is there under a second name "d" outside.
func eachSnapshotNode(t *testing.T, test func(t *testing.T, n remote.Node)) {
	dir := t.TempDir() + "/store"
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{SweepInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	block := func(text string) graph.Link {
		id, err := st.Put(store.KindData, []byte(text))
		must(err)
		return graph.Link{ID: id, Kind: store.KindData}
	}
	tree := func(form graph.Form, entries ...graph.Entry) graph.Link {
		b := graph.NewTreeBuilder(st, form)
		for i := range entries {
			must(b.Add(&entries[i]))
		}
		root, err := b.Finish()
		must(err)
		return graph.Link{ID: root.ID, Kind: store.KindTree}
	}
	const regular, directory = syscall.S_IFREG | 0o644, syscall.S_IFDIR | 0o755
	for _, name := range []string{"old", "new"} {
		table := tree(graph.LinkTable, graph.Entry{Name: graph.TableKey(7), Mode: regular, Nlink: 2, Size: 6, Data: 6, Link: block("linked")})
		inner := tree(graph.Directory,
			graph.Entry{Name: "a", Mode: regular, Size: 4, Data: 4, Link: block("same")},
			graph.Entry{Name: "b", Mode: regular, Size: 3, Data: 3, Link: block(name)},
			graph.Entry{Name: "c", Mode: syscall.S_IFREG, Ident: 7})
		outer := tree(graph.Directory,
			graph.Entry{Name: "d", Mode: syscall.S_IFREG, Ident: 7},
			graph.Entry{Name: "dir", Mode: directory, Entries: 3, Below: graph.Sums{Files: 2, Bytes: 7, Data: 7, Linked: 1}, Link: inner})
		s := graph.Snapshot{
			Root:  graph.Entry{Mode: directory, Entries: 2, Subdirs: 1, Below: graph.Sums{Files: 2, Dirs: 1, Bytes: 7, Data: 7, Linked: 2}, Link: outer},
			Table: table.ID, Totals: graph.Totals{Files: 3, Dirs: 2, Logical: 13, Data: 13},
		}
		plain, err := s.Encode()
		must(err)
		id, err := st.Put(store.KindSnapshot, plain)
		must(err)
		must(st.NameSnapshot(name, id))
	}
	local := remote.NewLocal(st, remote.Environment{})
	t.Run("local", func(t *testing.T) { test(t, local) })
	t.Run("http", func(t *testing.T) {
		srv := httptest.NewServer(remote.Handler(local, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		c := remote.NewClient(srv.URL, nil)
		t.Cleanup(c.Close)
		test(t, c)
	})
}

func TestGraphOfSnapshots(t *testing.T) {
	eachSnapshotNode(t, func(t *testing.T, n remote.Node) {
		labels := func(root string) (all []string, err error) {
			err = n.Export(t.Context(), remote.ExportRequest{Root: root, Limit: 100}, func(it remote.ExportItem) error {
				if it.Node != nil {
					all = append(all, fmt.Sprintf("%s %s %d", it.Node.Kind, it.Node.Path, it.Node.Size))
				}
				return nil
			})
			slices.Sort(all)
			return all, err
		}
		want := map[string][]string{
			"new":         {"data new:#7 6", "data new:dir/a 4", "data new:dir/b 3", "snapshot new: 13", "tree new: 0", "tree new: 7", "tree new:dir 7"},
			"new:dir":     {"data new:dir/a 4", "data new:dir/b 3", "tree new:dir 0"},
			"new:/dir/a/": {"data new:dir/a 4"},
			"old:dir/c":   {"data old:dir/c 6"},
		}
		for root, w := range want {
			if got, err := labels(root); err != nil || !slices.Equal(got, w) {
				t.Errorf("%s: %q, %v", root, got, err)
			}
		}
		if all, err := labels(""); err != nil || len(all) != 11 {
			t.Errorf("%q, %v", all, err)
		}
		for _, root := range []string{"new:nobody", "new:dir/a/x", "old:dir/d", "newer:dir"} {
			if _, err := labels(root); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", root, err)
			}
		}

		s, err := n.Similar(t.Context(), "new", 5)
		if err != nil || s.Kind != export.Snapshot || s.Blocks != 3 || len(s.Like) != 1 || s.Like[0].Name != "old" || s.Like[0].Jaccard != 0.5 || s.Like[0].Shared != 2 {
			t.Errorf("%+v, %v", s, err)
		}
		s, err = n.Similar(t.Context(), "old:dir/a", 5)
		if err != nil || len(s.Like) != 1 || s.Like[0].Name != "new:dir/a" || s.Like[0].Jaccard != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		way, err := n.Connect(t.Context(), "old", "new")
		if err != nil || way[0].Name != "old" || way[len(way)-1].Name != "new" || len(way) != 3 || way[1].Kind != export.Tree {
			t.Errorf("%+v, %v", way, err)
		}
	})
}
