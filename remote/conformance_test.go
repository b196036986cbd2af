package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// files is a volume of a few files.
type files []remote.File

func (all files) ListFiles(ctx context.Context, f remote.FileFilter, fn func(remote.File) error) error {
	if err := f.Check(); err != nil {
		return err
	}
	if f.Path == "missing" {
		return store.ErrNotFound
	}
	for _, file := range all {
		if !f.Match(file.Path, file.Type) {
			continue
		}
		if err := fn(file); err != nil {
			return err
		}
	}
	if f.Path == "broken" {
		return store.ErrCorrupt
	}
	return nil
}

var someFiles = files{
	{Path: "dir", Type: remote.Directory, Mode: 0o755, Mtime: time.Unix(1, 2).UTC()},
	{Path: "dir/a.go", Type: remote.Regular, Size: 12, Mode: 0o4755},
	{Path: "dir/\xff<&>\n", Type: remote.Regular},
	{Path: "link", Type: remote.Symlink, Target: "dir/a.go"},
}

// eachNode runs a test on every implementation of Node, each with a new store: in this
// process, over HTTP, and as other machines come in, over TLS and with a token.
func eachNode(t *testing.T, test func(t *testing.T, n remote.Node)) {
	eachNodeBehind(t, remote.Handler, test)
	t.Run("tls", func(t *testing.T) {
		s := newSite(t, store.Options{})
		pem, err := serve.SelfSigned(s.Store.Dir())
		if err != nil {
			t.Fatal(err)
		}
		f := s.Front(t, serve.ListenOptions{Cert: pem, Key: pem}, serve.MiddlewareOptions{})
		c, err := remote.DialRemote(config.Remote{Name: "n", URL: f.URL, Fingerprint: f.Fingerprint}, s.Token(t, "all", config.ScopeAdmin))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		test(t, c)
	})
}

// eachNodeBehind does so with a handler of the caller's choice.
func eachNodeBehind(t *testing.T, handler func(remote.Node, *slog.Logger) http.Handler, test func(t *testing.T, n remote.Node)) {
	t.Run("local", func(t *testing.T) { test(t, newSite(t, store.Options{}).Node) })
	t.Run("http", func(t *testing.T) {
		srv := httptest.NewServer(handler(newSite(t, store.Options{}).Node, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		c := remote.NewClient(srv.URL, nil)
		t.Cleanup(c.Close)
		test(t, c)
	})
}

func TestObjects(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		data := remotetest.RandomBytes(1, 1<<20)
		obj, err := n.Put(ctx, "a/b ../%2F?#ü", bytes.NewReader(data))
		if err != nil || obj.Size != int64(len(data)) || obj.Name != "a/b ../%2F?#ü" {
			t.Fatalf("put: %+v, %v", obj, err)
		}
		again, err := n.Put(ctx, "", bytes.NewReader(data))
		if err != nil || again.ID != obj.ID {
			t.Fatalf("put again: %+v, %v", again, err)
		}
		for i, c := range []struct {
			flags []store.IngestFlag
			want  error
		}{{nil, nil}, {nil, store.ErrNameTaken}, {[]store.IngestFlag{store.Replace}, nil}} {
			if _, err := n.Put(ctx, "taken", bytes.NewReader(data[min(i, 1):9]), c.flags...); !errors.Is(err, c.want) {
				t.Errorf("put %d under one name: %v, want %v", i, err, c.want)
			}
		}
		if err := n.Remove(ctx, "taken"); err != nil {
			t.Error(err)
		}
		for _, c := range []struct{ off, length int64 }{
			{0, -1}, {0, 0}, {0, 1}, {5, 100_000}, {int64(len(data)) - 1, 1}, {int64(len(data)), -1}, {7, 1 << 40}, {500_000, -1},
		} {
			for _, ref := range []string{obj.Name, obj.ID.String(), obj.ID.String()[:16]} {
				var got bytes.Buffer
				if err := n.Get(ctx, ref, c.off, c.length, &got); err != nil {
					t.Fatalf("get %q from %d, %d bytes: %v", ref, c.off, c.length, err)
				}
				want := data[c.off:]
				if c.length >= 0 {
					want = want[:min(c.length, int64(len(want)))]
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("get %q from %d, %d bytes: got %d bytes, not those of the object", ref, c.off, c.length, got.Len())
				}
			}
		}
		var names []string
		err = n.ListObjects(ctx, remote.Page{}, func(o remote.Object) error { names = append(names, o.Name); return nil })
		slices.Sort(names)
		if want := []string{obj.ID.String(), obj.Name}; err != nil || len(names) != 2 || !slices.Contains(names, want[0]) || !slices.Contains(names, want[1]) {
			t.Errorf("objects: %q, %v", names, err)
		}
		if err := n.Remove(ctx, obj.Name); err != nil {
			t.Error(err)
		}
		if err := n.Get(ctx, obj.Name, 0, -1, io.Discard); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get after rm: %v", err)
		}
	})
}

func TestEmptyObject(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		if _, err := n.Put(t.Context(), "..", strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := n.Get(t.Context(), "..", 0, -1, &got); err != nil || got.Len() != 0 {
			t.Errorf("got %d bytes, %v", got.Len(), err)
		}
	})
}

// failing gives some bytes and then fails.
type failing struct{ left int }

var errInput = errors.New("the input broke")

func (f *failing) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, errInput
	}
	n := min(len(b), f.left)
	f.left -= n
	return n, nil
}

func TestErrorsKeepTheirKind(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		nothing := func(remote.File) error { return nil }
		_, configErr := n.Put(ctx, "bad\nname", strings.NewReader("x"))
		_, inputErr := n.Put(ctx, "half", &failing{1 << 20})
		if _, err := n.Put(ctx, "short", strings.NewReader("abc")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what string
			err  error
			want error
		}{
			{"get", n.Get(ctx, "nobody", 0, -1, io.Discard), store.ErrNotFound},
			{"get behind the end", n.Get(ctx, "short", 4, -1, io.Discard), store.ErrRange},
			{"get none behind the end", n.Get(ctx, "short", 4, 0, io.Discard), store.ErrRange},
			{"rm", n.Remove(ctx, "nobody"), store.ErrNotFound},
			{"rm what a half put left", n.Remove(ctx, "half"), store.ErrNotFound},
			{"put", configErr, store.ErrConfig},
			{"put", inputErr, errInput},
			{"list-blocks", n.ListBlocks(ctx, remote.BlockFilter{Kinds: []string{"soup"}}, nil), remote.ErrRequest},
			{"list-blocks", n.ListBlocks(ctx, remote.BlockFilter{Prefix: "xyz"}, nil), remote.ErrRequest},
			{"list-files", n.ListFiles(ctx, remote.FileFilter{Name: "[", Path: "x"}, nothing), remote.ErrRequest},
			{"list-files", n.ListFiles(ctx, remote.FileFilter{Path: "missing"}, nothing), store.ErrNotFound},
			{"list-files, in its middle", n.ListFiles(ctx, remote.FileFilter{Path: "broken"}, nothing), store.ErrCorrupt},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: got %v, want %v", c.what, c.err, c.want)
			}
		}
	})
}

func TestListFiles(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		list := func(f remote.FileFilter) (got files) {
			if err := n.ListFiles(t.Context(), f, func(f remote.File) error { got = append(got, f); return nil }); err != nil {
				t.Fatal(err)
			}
			return got
		}
		if diff := cmp.Diff(someFiles, list(remote.FileFilter{})); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(someFiles[1:2], list(remote.FileFilter{Name: "*.go", Types: []remote.FileType{remote.Regular, remote.Directory}})); diff != "" {
			t.Error(diff)
		}
		stop := errors.New("enough")
		if err := n.ListFiles(t.Context(), remote.FileFilter{}, func(remote.File) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v, want what the function returned", err)
		}
	})
}

func TestBlocksAndStats(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		data := remotetest.RandomBytes(2, 1<<20)
		if _, err := n.Put(ctx, "one", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(ctx, "two", bytes.NewReader(append(slices.Clone(data), 'x'))); err != nil {
			t.Fatal(err)
		}
		if err := n.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		st, err := n.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		list := func(f remote.BlockFilter) (got []remote.BlockInfo) {
			if err := n.ListBlocks(ctx, f, func(b remote.BlockInfo) error { got = append(got, b); return nil }); err != nil {
				t.Fatal(err)
			}
			return got
		}
		all := list(remote.BlockFilter{Kinds: []string{"data"}})
		if int64(len(all)) != st.Blocks["data"].Count || st.Objects != 2 || st.DedupRatio < 1.5 || st.Logical != 2<<20+1 {
			t.Errorf("%d blocks listed, stats say %d; %d objects, ratio %v, %d bytes", len(all), st.Blocks["data"].Count, st.Objects, st.DedupRatio, st.Logical)
		}
		raw := int64(0)
		for _, b := range all {
			raw += b.Raw
		}
		if raw != st.Unique {
			t.Errorf("blocks add up to %d bytes, stats say %d", raw, st.Unique)
		}
		if got := list(remote.BlockFilter{Prefix: all[3].ID.String()[:12]}); len(got) != 1 || got[0] != all[3] {
			t.Errorf("by prefix: %+v", got)
		}
		if got := list(remote.BlockFilter{Limit: 2, Kinds: []string{"file", "data"}}); len(got) != 2 {
			t.Errorf("with a limit of 2: %d", len(got))
		}
		if got := list(remote.BlockFilter{MinRefs: 3}); len(got) != 0 {
			t.Errorf("with 3 references: %+v", got)
		}
		if st.Store.Chunker.Key != nil {
			t.Error("stats show the chunker's key")
		}
	})
}

func TestClientsAtOnce(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				name, data := string(rune('a'+i)), remotetest.RandomBytes(uint64(i), 200_000)
				if _, err := n.Put(t.Context(), name, bytes.NewReader(data)); err != nil {
					t.Error(err)
					return
				}
				var got bytes.Buffer
				if err := n.Get(t.Context(), name, 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
					t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
				}
			})
		}
		wg.Wait()
	})
}

func TestCanceled(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.Put(ctx, "x", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
			t.Errorf("put: %v", err)
		}
		if err := n.ListFiles(ctx, remote.FileFilter{}, func(remote.File) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
			t.Errorf("list-files: %v", err)
		}
	})
}
