package remote_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// requests are one of each way in which a client reads an answer.
var requests = map[string]func(ctx context.Context, c *remote.Client) error{
	"a value": func(ctx context.Context, c *remote.Client) error { _, err := c.Stats(ctx); return err },
	"a list": func(ctx context.Context, c *remote.Client) error {
		return c.ListSnapshots(ctx, func(remote.Snapshot) error { return nil })
	},
	"a header": func(ctx context.Context, c *remote.Client) error { _, err := c.StatObject(ctx, "x"); return err },
	"bits": func(ctx context.Context, c *remote.Client) error {
		_, err := c.Keep(ctx, store.LeaseID{}, []store.ID{{}})
		return err
	},
	"records": func(ctx context.Context, c *remote.Client) error {
		return c.Records(ctx, []store.ID{{}}, func(store.Record) error { return nil })
	},
	"an object": func(ctx context.Context, c *remote.Client) error { return c.Get(ctx, "x", 0, -1, io.Discard) },
	"put":       func(ctx context.Context, c *remote.Client) error { return c.LinkSnapshot(ctx, "x", store.ID{}) },
}

// TestRedirects has a server send clients on to another host: nothing goes there, and no token.
func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came to another host, with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, status)
		}))
		c, err := remote.DialRemote(config.Remote{Name: "x", URL: first.URL}, "quarxfs_secret")
		if err != nil {
			t.Fatal(err)
		}
		for name, ask := range requests {
			if err := ask(t.Context(), c); err == nil {
				t.Errorf("%s, status %d: no error", name, status)
			}
		}
		c.Close()
		first.Close()
	}
}

// TestEndlessAnswers has a server answer without an end where the client wants all of it.
func TestEndlessAnswers(t *testing.T) {
	spaces := make([]byte, 1<<20)
	for i := range spaces {
		spaces[i] = ' '
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(spaces); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	c := remote.NewClient(srv.URL, nil)
	defer c.Close()
	for _, name := range []string{"a value", "a list", "put", "records"} {
		if err := requests[name](t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
