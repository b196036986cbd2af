package remote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
)

// TestObjectsOverHTTP asks as other programs than ours do.
func TestObjectsOverHTTP(t *testing.T) {
	node := newSite(t, store.Options{}).Node
	data := remotetest.RandomBytes(1, 300_000)
	o, err := node.Put(t.Context(), "a b", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Put(t.Context(), "none", strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(remote.Handler(node, slog.New(slog.DiscardHandler)))
	defer srv.Close()
	id := o.ID.String()
	etag := `"` + id + `"`
	type header = map[string]string
	for _, c := range []struct {
		what, method, path string
		send               header
		status             int
		want               header
		body               []byte // nil: not looked at
	}{
		{"all by name", "GET", "/v1/objects/a%20b", nil, 200, header{"ETag": etag, "Content-Length": "300000",
			"Cache-Control": "private, no-cache", "Accept-Ranges": "bytes", "Quarxfs-Name": "a%20b"}, data},
		{"all by ID", "GET", "/v1/objects/" + id, nil, 200, header{"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}, data},
		{"the header alone", "HEAD", "/v1/objects/" + id, nil, 200, header{"ETag": etag, "Content-Length": "300000"}, []byte{}},
		{"a range", "GET", "/v1/objects/" + id, header{"Range": "bytes=70000-139999"}, 206,
			header{"Content-Range": "bytes 70000-139999/300000", "Content-Length": "70000"}, data[70000:140000]},
		{"the end", "GET", "/v1/objects/" + id, header{"Range": "bytes=-10"}, 206, header{"Content-Range": "bytes 299990-299999/300000"}, data[299990:]},
		{"a range of what it was", "GET", "/v1/objects/a%20b", header{"Range": "bytes=5-9", "If-Range": `"other"`}, 200, header{"ETag": etag}, data},
		{"known already", "GET", "/v1/objects/a%20b", header{"If-None-Match": etag}, 304, header{"ETag": etag}, []byte{}},
		{"only if it is the same", "GET", "/v1/objects/a%20b", header{"If-Match": etag}, 200, nil, data},
		{"only if it is another", "GET", "/v1/objects/a%20b", header{"If-Match": `"other"`}, 412, header{"Content-Type": "application/json", "ETag": ""}, nil},
		{"a range behind it", "GET", "/v1/objects/a%20b", header{"Range": "bytes=300000-"}, 416,
			header{"Content-Range": "bytes */300000", "Content-Type": "application/json", "ETag": ""}, nil},
		{"a range that is none", "GET", "/v1/objects/a%20b", header{"Range": "bytes=x"}, 416, header{"Content-Type": "application/json"}, nil},
		{"what is not there", "GET", "/v1/objects/nobody", nil, 404, header{"Content-Type": "application/json"}, nil},
		{"the header of what is not there", "HEAD", "/v1/objects/nobody", nil, 404, nil, []byte{}},
		{"an empty one", "GET", "/v1/objects/none", nil, 200, header{"Content-Length": "0"}, []byte{}},
		{"the header of an empty one", "HEAD", "/v1/objects/none", nil, 200, header{"Content-Length": "0"}, []byte{}},
		{"an unknown parameter", "GET", "/v1/objects?limt=3", nil, 400, header{"Content-Type": "application/json"}, nil},
		{"a bad limit", "GET", "/v1/objects?limit=-3", nil, 400, nil, nil},
		{"no block", "GET", "/v1/blocks/xyz", nil, 400, nil, nil},
		{"a block that is not there", "GET", "/v1/blocks/" + strings.Repeat("ab", 32), nil, 404, nil, nil},
		{"the description", "GET", "/v1/openapi.json", nil, 200, header{"Content-Type": "application/json"}, nil},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range c.send {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || c.body != nil && !bytes.Equal(body, c.body) {
			t.Errorf("%s: %s, %d bytes, %v", c.what, resp.Status, len(body), err)
		}
		for k, v := range c.want {
			if got := resp.Header.Get(k); got != v {
				t.Errorf("%s: %s is %q, want %q", c.what, k, got, v)
			}
		}
		if c.status >= 400 && c.method != "HEAD" && !bytes.HasPrefix(body, []byte(`{"error":{"kind":`)) {
			t.Errorf("%s: the body is %q", c.what, body)
		}
	}
	t.Run("two ranges", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/objects/"+id, nil)
		req.Header.Set("Range", "bytes=0-9,200000-299998")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		parts := multipart.NewReader(resp.Body, params["boundary"])
		for _, want := range [][]byte{data[:10], data[200000:299999]} {
			p, err := parts.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
	t.Run("put", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", srv.URL+"/v1/objects/new", bytes.NewReader(data))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Location"); resp.StatusCode != 200 || resp.Header.Get("ETag") != etag || got != "/v1/objects/"+id {
			t.Errorf("%s, ETag %s, Location %s", resp.Status, resp.Header.Get("ETag"), got)
		}
	})
}

func TestBlockOverHTTP(t *testing.T) {
	node := newSite(t, store.Options{}).Node
	data := remotetest.RandomBytes(2, 500_000)
	if _, err := node.Put(t.Context(), "x", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(remote.Handler(node, slog.New(slog.DiscardHandler)))
	defer srv.Close()
	n := 0
	err := node.ListBlocks(t.Context(), remote.BlockFilter{Kinds: []string{"data"}}, func(b remote.BlockInfo) error {
		n++
		resp, err := http.Get(srv.URL + "/v1/blocks/" + b.ID.String())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || int64(len(got)) != b.Raw || !bytes.Contains(data, got) || resp.Header.Get("ETag") != `"`+b.ID.String()+`"` || resp.Header.Get("Quarxfs-Kind") != "data" {
			t.Errorf("block %s: %s, %d bytes of %d, %v, %v", b.ID.Short(), resp.Status, len(got), b.Raw, err, resp.Header)
		}
		return nil
	})
	if err != nil || n < 5 {
		t.Errorf("%d blocks, %v", n, err)
	}
}

func TestPages(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		var want []string
		for i := range 10 {
			name := fmt.Sprintf("o%d", i)
			want = append(want, name)
			if _, err := n.Put(ctx, name, bytes.NewReader(remotetest.RandomBytes(uint64(i), 40_000))); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for p := (remote.Page{Limit: 3}); ; {
			before := len(got)
			if err := n.ListObjects(ctx, p, func(o remote.Object) error { got = append(got, o.Name); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(got) == before {
				break
			}
			if len(got)-before > 3 {
				t.Fatalf("a page has %d objects", len(got)-before)
			}
			p.After = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("objects by pages: %q", got)
		}
		var all, paged []remote.BlockInfo
		if err := n.ListBlocks(ctx, remote.BlockFilter{}, func(b remote.BlockInfo) error { all = append(all, b); return nil }); err != nil {
			t.Fatal(err)
		}
		for f := (remote.BlockFilter{Limit: 7}); ; {
			before := len(paged)
			if err := n.ListBlocks(ctx, f, func(b remote.BlockInfo) error { paged = append(paged, b); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(paged) == before {
				break
			}
			f.After = paged[len(paged)-1].ID.String()
		}
		if !slices.Equal(all, paged) {
			t.Errorf("%d blocks by pages, %d at once", len(paged), len(all))
		}
		if err := n.ListObjects(ctx, remote.Page{Limit: -1}, nil); !errors.Is(err, remote.ErrRequest) {
			t.Errorf("a negative limit: %v", err)
		}
		if err := n.ListBlocks(ctx, remote.BlockFilter{After: "xyz"}, nil); !errors.Is(err, remote.ErrRequest) {
			t.Errorf("after what is no ID: %v", err)
		}
	})
}

func TestStatObject(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		o, err := n.Put(t.Context(), "a/ü %2F\"", bytes.NewReader(append(make([]byte, 1<<20), 'x')))
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{o.Name, o.ID.String()[:10]} {
			got, err := n.StatObject(t.Context(), ref)
			if err != nil || got.ID != o.ID || got.Size != o.Size || got.Data != o.Data || ref == o.Name && (got.Name != o.Name || got.Created.Unix() != o.Created.Unix()) {
				t.Errorf("%q: %+v, %v; put said %+v", ref, got, err, o)
			}
		}
		if _, err := n.StatObject(t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("of what is not there: %v", err)
		}
	})
}

// cutting breaks off connections after so many bytes of an answer.
type cutting struct {
	net.Listener
	after int
}

func (l cutting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{c, l.after}, nil
}

type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		c.Close()
	}
	return c.Conn.Write(b)
}

// TestDownloadGoesOn breaks each connection after some bytes: the object comes all
// the same.
func TestDownloadGoesOn(t *testing.T) {
	node := newSite(t, store.Options{}).Node
	data := remotetest.RandomBytes(3, 4<<20)
	if _, err := node.Put(t.Context(), "big", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(remote.Handler(node, slog.New(slog.DiscardHandler)))
	srv.Listener = cutting{srv.Listener, 300_000}
	srv.Start()
	defer srv.Close()
	c := remote.NewClient(srv.URL, nil)
	defer c.Close()
	var got bytes.Buffer
	if err := c.Get(t.Context(), "big", 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d of %d bytes, %v", got.Len(), len(data), err)
	}
}

// TestDamagedObject has a damaged block amid an object: what is before it comes, and
// then an error that says why.
func TestDamagedObject(t *testing.T) {
	site := newSite(t, store.Options{SweepInterval: -1})
	node, dir := site.Node, site.Store.Dir()
	data := remotetest.RandomBytes(4, 4<<20)
	if _, err := node.Put(t.Context(), "big", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	var victim remote.BlockInfo
	if err := node.ListBlocks(t.Context(), remote.BlockFilter{Kinds: []string{"data"}}, func(b remote.BlockInfo) error {
		if b.Offset > victim.Offset && b.Offset < 2<<20 {
			victim = b
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	segment, err := filepath.Glob(filepath.Join(dir, "hot", fmt.Sprintf("%016x.*", victim.Segment)))
	if err != nil || len(segment) != 1 {
		t.Fatal(segment, err)
	}
	f, err := os.OpenFile(segment[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	at := victim.Offset + victim.Stored/2
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(remote.Handler(node, slog.New(slog.DiscardHandler)))
	defer srv.Close()
	c := remote.NewClient(srv.URL, nil)
	defer c.Close()
	var got bytes.Buffer
	err = c.Get(t.Context(), "big", 0, -1, &got)
	if !errors.Is(err, store.ErrCorrupt) || got.Len() == 0 || !bytes.HasPrefix(data, got.Bytes()) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

// FuzzAPI sends requests of any kind to all routes that read or change objects: none
// may fail for reasons of the server's own, and each failure says what it is.
func FuzzAPI(f *testing.F) {
	for _, seed := range []struct{ method, path, query, header string }{
		{"GET", "/v1/objects/x", "", "bytes=0-5"}, {"GET", "/v1/objects", "limit=3&after=a", ""}, {"HEAD", "/v1/objects/x", "", "bytes=-1,5-"},
		{"PUT", "/v1/objects/y", "", ""}, {"GET", "/v1/blocks/00", "", ""}, {"GET", "/v1/blocks", "kind=data&min_refs=1", ""},
		{"GET", "/v1/graph/why", "block=abcd", ""}, {"GET", "/v1/graph/why/blocks", "ref=x&limit=2", ""}, {"GET",
			"/v1/graph/show", "ref=x", ""}, {"GET", "/v1/graph/export", "root=x&depth=2", ""},
		{"GET", "/v1/graph/similar", "ref=x&top=3", ""}, {"GET", "/v1/graph/path", "from=x&to=x", ""}, {"GET", "/v1/usage", "path=/&by=dir", ""},
		{"GET", "/v1/files", "type=f&name=*", ""}, {"GET", "/v1/diff", "a=x&exact=true", ""}, {"POST", "/v1/objects", "", ""}, {"DELETE", "/v1/objects/y", "", ""},
		{"GET", "/v1/snapshots/x", "", ""}, {"POST", "/v1/commit", "", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.header, []byte("body"))
	}
	s := newSite(f, store.Options{})
	if _, err := s.Node.Put(f.Context(), "x", bytes.NewReader(remotetest.RandomBytes(1, 200_000))); err != nil {
		f.Fatal(err)
	}
	h := remote.Handler(s.Node, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, method, path, query, header string, body []byte) {
		if !slices.Contains([]string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"}, method) {
			return
		}
		r := &http.Request{
			Method: method, URL: &url.URL{Path: path, RawQuery: query}, Body: io.NopCloser(bytes.NewReader(body)),
			Header: http.Header{"Range": {header}, "If-None-Match": {header}}, Host: "h",
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		if _, known := h.(router).Handler(r); known == "" || w.Code < 400 || method == "HEAD" {
			return
		}
		var answer struct{ Error *remote.Failure }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Error == nil || answer.Error.Message == "" ||
			w.Code == http.StatusInternalServerError && !strings.Contains(answer.Error.Message, "no filesystem") {
			t.Errorf("%s %q ? %q: %d %s", method, path, query, w.Code, w.Body)
		}
	})
}

// A router is what remote.Handler returns: it tells the pattern of a request.
type router interface {
	Handler(r *http.Request) (h http.Handler, pattern string)
}
