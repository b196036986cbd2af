package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// A shelf is a store with files, objects and snapshots that share blocks.
type shelf struct {
	st   *store.Store
	vol  *volume.Volume
	node *remote.Local
	rnd  *rand.Rand
	pool [][]byte // of which contents are made
	dirs []meta.Ino
}

func newShelf(t *testing.T, seed uint64) *shelf {
	t.Helper()
	conf := store.DefaultConfig()
	conf.Chunker.Name, conf.Chunker.Key = "fixed", nil
	conf.Chunker.Min, conf.Chunker.Avg, conf.Chunker.Max = 4096, 4096, 4096
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, conf); err != nil {
		t.Fatal(err)
	}
	s := &shelf{rnd: rand.New(rand.NewPCG(seed, 9)), dirs: []meta.Ino{meta.Root}}
	var err error
	if s.st, err = store.Open(dir, store.Options{SweepInterval: -1}); err != nil {
		t.Fatal(err)
	}
	if s.vol, err = volume.Open(s.st, volume.Options{NoAtime: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.vol.Close(); err != nil {
			t.Error(err)
		}
		if err := s.st.Close(); err != nil {
			t.Error(err)
		}
	})
	s.node = remote.NewLocal(s.st, localnode.Around(s.vol))
	for range 12 {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = byte(s.rnd.Uint32())
		}
		s.pool = append(s.pool, b)
	}
	return s
}

// bytes makes contents of blocks that others have as well, and some zeroes.
func (s *shelf) bytes() []byte {
	var out []byte
	for range s.rnd.IntN(9) {
		if s.rnd.IntN(6) == 0 {
			out = append(out, make([]byte, 4096)...)
		}
		out = append(out, s.pool[s.rnd.IntN(len(s.pool))]...)
	}
	return out[:len(out)-min(len(out), s.rnd.IntN(2)*1000)]
}

func (s *shelf) step(t *testing.T, i int) {
	t.Helper()
	dir := s.dirs[s.rnd.IntN(len(s.dirs))]
	name := fmt.Sprint("f", s.rnd.IntN(10))
	old, err := s.vol.Lookup(dir, name)
	there := err == nil
	switch k := s.rnd.IntN(10); {
	case k == 0 && len(s.dirs) < 6:
		a, err := s.vol.Create(dir, fmt.Sprint("d", i), volume.CreateOptions{Mode: syscall.S_IFDIR | 0o755})
		if err != nil {
			t.Fatal(err)
		}
		s.dirs = append(s.dirs, a.Ino)
	case k == 1:
		if _, err := s.node.Put(t.Context(), fmt.Sprint("object", s.rnd.IntN(4)), bytes.NewReader(s.bytes()), store.Replace); err != nil {
			t.Fatal(err)
		}
	case there && k == 2:
		if err := s.vol.Unlink(dir, name); err != nil {
			t.Fatal(err)
		}
	case there && k == 3:
		if _, err := s.vol.Link(old.Ino, s.dirs[s.rnd.IntN(len(s.dirs))], fmt.Sprint("link", i)); err != nil {
			t.Fatal(err)
		}
	case there:
		if err := s.vol.Write(old.Ino, 4096*s.rnd.Int64N(4), s.bytes(), volume.WriteMode{}); err != nil {
			t.Fatal(err)
		}
	default:
		a, err := s.vol.Create(dir, name, volume.CreateOptions{Mode: syscall.S_IFREG | 0o644})
		if err == nil {
			err = s.vol.Write(a.Ino, 0, s.bytes(), volume.WriteMode{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// holders lists, for each block, by brute force every place that has it.
func (s *shelf) holders(t *testing.T) map[store.ID][]string {
	t.Helper()
	ctx := t.Context()
	found := make(map[store.ID][]string)
	note := func(where string, id store.ID, off, n, skip int64) {
		line := fmt.Sprintf("%s %d+%d-%d", where, off, n, skip)
		if !slices.Contains(found[id], line) {
			found[id] = append(found[id], line)
		}
	}
	file := func(where string, l graph.Link, size int64) {
		if err := graph.FileSpans(ctx, s.st, l, size, func(x graph.Span) error {
			if !x.Hole {
				note(where, x.ID, x.Off, x.Len, int64(x.Skip))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	uses := make(map[uint64][]remote.Use)
	if err := localnode.Around(s.vol).Namespace.Uses(ctx, func(store.ID) bool { return true }, func(u remote.Use) error {
		uses[u.Ino] = append(uses[u.Ino], u)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.node.ListFiles(ctx, remote.FileFilter{Types: []remote.FileType{remote.Regular}}, func(f remote.File) error {
		for _, u := range uses[f.Ino] {
			note("live "+f.Path, u.Block, u.Offset, u.Bytes, -1)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.node.ListObjects(ctx, remote.Page{}, func(o remote.Object) error {
		if e, err := s.st.Lookup(o.ID); err == nil {
			file("object "+o.Name, graph.Link{ID: o.ID, Kind: e.Kind}, o.Size)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	snapshots, err := s.vol.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, snap := range snapshots {
		if err := graph.WalkTree(ctx, s.st, &snap.Root, "", func(p string, e *graph.Entry) error {
			if e.Ident != 0 {
				row, err := graph.OpenTree(s.st, snap.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
				if err != nil {
					return err
				}
				e = &row
			}
			if e.IsFile() {
				file("snapshot "+snap.Name+" "+p, e.Link, e.Size)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func whyLines(why remote.Why) []string {
	var lines []string
	for _, o := range why.Where {
		if o.Live {
			lines = append(lines, fmt.Sprintf("live %s %d+%d-%d", o.Path, o.Offset, o.Bytes, -1))
		}
		if o.Object {
			lines = append(lines, fmt.Sprintf("object %s %d+%d-%d", o.Path, o.Offset, o.Bytes, o.Skip))
		}
		for _, s := range o.Snapshots {
			lines = append(lines, fmt.Sprintf("snapshot %s %s %d+%d-%d", s, o.Path, o.Offset, o.Bytes, o.Skip))
		}
	}
	sort.Strings(lines)
	return lines
}

// On a store of random files, objects and snapshots `graph why` says of every
// block what brute force finds, the matrix has as many references as the index,
// and every way to divide the store adds up.
func TestWhyAgreesWithBruteForce(t *testing.T) {
	for seed := range uint64(6) {
		s := newShelf(t, seed)
		for i := range 120 {
			s.step(t, i)
			if i%40 == 39 {
				if _, err := s.vol.CreateSnapshot(t.Context(), volume.SnapshotOptions{Name: fmt.Sprint("snap", i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.vol.AwaitReaped() // what was unlinked counts until then
		if err := s.st.Commit(); err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(remote.Handler(s.node, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		client := remote.NewClient(srv.URL, nil)
		t.Cleanup(client.Close)
		nodes := []remote.Node{s.node, client}
		holders := s.holders(t)
		blocks, stored := 0, int64(0)
		if err := s.st.Blocks(t.Context(), store.BlockFilter{}, func(b store.BlockInfo) error {
			stored += b.Stored
			why, err := nodes[blocks%2].Why(t.Context(), b.ID.String())
			if err != nil {
				return err
			}
			if why.References != int(b.Refs) || why.Stored != b.Stored || why.Kind != b.Kind {
				t.Errorf("seed %d: the matrix says %+v, the index %+v", seed, why, b)
			}
			if b.Kind != "data" {
				return nil
			}
			blocks++
			want := holders[b.ID]
			sort.Strings(want)
			if got := whyLines(why); !slices.Equal(got, want) {
				t.Errorf("seed %d: block %s is in\n%s\nwant\n%s", seed, b.ID.Short(), strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if blocks < 12 {
			t.Errorf("seed %d: only %d blocks", seed, blocks)
		}
		requests := []remote.UsageRequest{{}, {By: "type"}, {By: "snapshot"}}
		if err := s.node.ListFiles(t.Context(), remote.FileFilter{}, func(f remote.File) error {
			requests = append(requests, remote.UsageRequest{Path: "/" + f.Path, By: []string{"dir", "type"}[len(requests)%2]})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i, r := range requests {
			checkUsage(t, nodes[i%2], r, stored)
		}
		checkMatrix(t, client, holders)
	}
}

func checkUsage(t *testing.T, n remote.Node, r remote.UsageRequest, stored int64) {
	t.Helper()
	u, err := n.Usage(t.Context(), r)
	if err != nil {
		t.Errorf("%+v: %v", r, err)
		return
	}
	sum := u.Elsewhere + u.Shared + u.SharedVertices + u.Unused
	for _, g := range u.Groups {
		sum += g.Freed
		if g.Freed != g.Unique+g.SharedInside+g.Vertices {
			t.Errorf("%+v: %+v", r, g)
		}
	}
	if sum != stored || u.Total != stored {
		t.Errorf("%+v: the parts are %d, the total %d, stored %d", r, sum, u.Total, stored)
	}
	if r.Path == "" && u.Elsewhere != 0 {
		t.Errorf("%+v: %d are in no part", r, u.Elsewhere)
	}
}

// checkMatrix compares the rows with what brute force found.
func checkMatrix(t *testing.T, n remote.Node, holders map[store.ID][]string) {
	t.Helper()
	has := make(map[string]map[store.ID]bool)
	for id, lines := range holders {
		for _, line := range lines {
			f := strings.Fields(line)
			key := f[0] + " " + f[1]
			if has[key] == nil {
				has[key] = make(map[store.ID]bool)
			}
			has[key][id] = true
		}
	}
	got := make(map[string]map[store.ID]bool)
	var size remote.MatrixSize
	err := n.Matrix(t.Context(), func(it remote.MatrixItem) error {
		if it.Size != nil {
			size = *it.Size
			return nil
		}
		key := map[string]string{"file": "live", "object": "object", "snapshot": "snapshot"}[it.Row.Kind] + " " + it.Row.Name
		if got[key] == nil {
			got[key] = make(map[store.ID]bool)
		}
		for _, b := range it.Row.Blocks {
			got[key][b.ID] = true
			size.Entries--
		}
		return nil
	})
	if err != nil || size.Entries != 0 {
		t.Errorf("%d entries too few: %v", size.Entries, err)
	}
	for key, blocks := range got {
		if len(blocks) != len(has[key]) {
			t.Errorf("row %q has %d blocks, want %d", key, len(blocks), len(has[key]))
		}
	}
}

// countedRows counts how often all references of the live filesystem are read: once for each
// matrix.
type countedRows struct {
	remote.Rows
	matrices int
}

func (r *countedRows) References(ctx context.Context, rows *store.View, fn func(graph.Reference) error) error {
	r.matrices++
	return r.Rows.References(ctx, rows, fn)
}

// Whatever changes meanwhile, the blocks of one file are all looked up in one matrix, and each has
// the holders that it has alone.
func TestWhyAllTakesOneMatrix(t *testing.T) {
	s := newShelf(t, 3)
	for i := range 60 {
		s.step(t, i)
	}
	a, err := s.vol.Create(meta.Root, "several", volume.CreateOptions{Mode: syscall.S_IFREG | 0o644})
	if err == nil {
		err = s.vol.Write(a.Ino, 0, bytes.Join(s.pool, nil), volume.WriteMode{})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.vol.AwaitReaped()
	around := localnode.Around(s.vol)
	rows := &countedRows{Rows: around.Rows}
	around.Rows = rows
	node := remote.NewLocal(s.st, around)
	srv := httptest.NewServer(remote.Handler(node, slog.New(slog.DiscardHandler)))
	t.Cleanup(srv.Close)
	client := remote.NewClient(srv.URL, nil)
	t.Cleanup(client.Close)
	for _, n := range []remote.Node{node, client} {
		for _, limit := range []int64{0, 1, 5, 1000} {
			rows.matrices = 0
			var got []remote.Why
			blocks := int64(-1)
			err := n.WhyAll(t.Context(), "/several", limit, func(it remote.WhyItem) error {
				if it.Blocks != nil {
					blocks = *it.Blocks
					return nil
				}
				got = append(got, *it.Why)
				_, err := s.node.Put(t.Context(), "new", strings.NewReader(fmt.Sprint(s.rnd.Uint64())), store.Replace)
				return err
			})
			want := int64(len(s.pool))
			if limit > 0 {
				want = min(limit, want)
			}
			if err != nil || blocks != int64(len(s.pool)) || int64(len(got)) != want || rows.matrices > 1 {
				t.Fatalf("limit %d: %d of %d blocks from %d matrices, %v", limit, len(got), blocks, rows.matrices, err)
			}
			for _, why := range got {
				alone, err := n.Why(t.Context(), why.ID.String())
				if err != nil || !slices.Equal(whyLines(alone), whyLines(why)) {
					t.Errorf("block %s among others has\n%v\nalone\n%v\n%v", why.ID.Short(), whyLines(why), whyLines(alone), err)
				}
			}
		}
		if err := n.WhyAll(t.Context(), "/nothing", 0, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("nothing: %v", err)
		}
	}
}
