package remote_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
)

func TestExport(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		data := remotetest.RandomBytes(9, 300_000)
		obj, err := n.Put(t.Context(), "one", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(t.Context(), "two", bytes.NewReader(append(data, "more"...))); err != nil {
			t.Fatal(err)
		}
		collect := func(r remote.ExportRequest) (g export.Graph, err error) {
			err = n.Export(t.Context(), r, func(it remote.ExportItem) error {
				switch {
				case it.Node != nil:
					g.Nodes = append(g.Nodes, *it.Node)
				case it.Edge != nil:
					g.Edges = append(g.Edges, *it.Edge)
				}
				g.Cut += it.Cut
				return nil
			})
			return g, err
		}
		all, err := collect(remote.ExportRequest{Limit: 1000})
		if err != nil || all.Cut != "" {
			t.Fatal(err, all.Cut)
		}
		into := make(map[string]int)
		for _, e := range all.Edges {
			into[e.To]++
		}
		shared := 0
		for _, node := range all.Nodes {
			if node.Kind == export.Data && into[node.ID] == 2 {
				shared++
			}
		}
		if all.Nodes[0].Label != "one" || all.Nodes[0].Kind != export.Object || shared < 3 {
			t.Errorf("%d blocks are shared; %+v", shared, all.Nodes)
		}
		for _, root := range []string{"one", obj.ID.String(), obj.ID.String()[:10]} {
			if g, err := collect(remote.ExportRequest{Root: root, Limit: 1000}); err != nil || len(g.Edges) == 0 || len(g.Nodes) >= len(all.Nodes) {
				t.Errorf("root %q: %d nodes, %v", root, len(g.Nodes), err)
			}
		}
		if g, err := collect(remote.ExportRequest{Kinds: []string{"object", "data"}, Limit: 2}); err != nil || g.Cut == "" || len(g.Nodes) != 2 {
			t.Errorf("%+v, %v", g, err)
		}
		for _, r := range []remote.ExportRequest{{}, {Limit: export.MaxNodes + 1}, {Limit: 1, Depth: -1}, {Limit: 1, Kinds: []string{"soup"}}} {
			if _, err := collect(r); !errors.Is(err, remote.ErrRequest) {
				t.Errorf("%+v: %v", r, err)
			}
		}
		if _, err := collect(remote.ExportRequest{Limit: 9, Root: "nobody:at/home"}); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
		stop := errors.New("enough")
		if err := n.Export(t.Context(), remote.ExportRequest{Limit: 9}, func(remote.ExportItem) error { return stop }); !errors.Is(err, stop) {
			t.Error(err)
		}
	})
}
