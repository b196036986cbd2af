package serve_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// bring sends a snapshot with all below it, and names it.
func bring(t *testing.T, from site, c *remote.Client, id store.ID, name string) error {
	t.Helper()
	lease, err := c.NewLease(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	// All blocks first, then vertices: the deepest are the last that a walk finds.
	var ids []store.ID
	for id := range from.Below(t, id) {
		ids = append(ids, id)
	}
	for len(ids) > 0 {
		var left []store.ID
		for _, id := range ids {
			err := c.PutRecords(t.Context(), lease, func(put func(store.Record) error) error {
				return from.Node.Records(t.Context(), []store.ID{id}, put)
			})
			if errors.Is(err, store.ErrNotFound) {
				left = append(left, id) // what it links to comes first
			} else if err != nil {
				t.Fatal(err)
			}
		}
		ids = left
	}
	if err := c.LinkSnapshot(t.Context(), name, id); err != nil {
		return err
	}
	return c.EndLease(t.Context(), lease)
}

// TestWhoMayRemove has tokens of each scope bring snapshots and remove those of each other, those
// that were made here, and those of which nobody knows who brought them. A name is whose token gave
// it, also when two bring the same snapshot, until its owner renames it.
func TestWhoMayRemove(t *testing.T) {
	s, other := newSite(t, store.Options{}), newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Anonymous: []config.Scope{config.ScopeSync}})
	clients := map[string]*remote.Client{"owner": s.Serve(t, nil)}
	for name, token := range map[string]string{
		"one": s.Token(t, "one", config.ScopeSync), "two": s.Token(t, "two", config.ScopeSync), "nobody": "",
		"adds": s.Token(t, "adds", config.ScopeAppend), "all": s.Token(t, "all", config.ScopeAdmin),
	} {
		c, err := remote.DialRemote(config.Remote{Name: "x", URL: f.URL}, token)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		clients[name] = c
	}
	ids := make(map[string]store.ID)
	for i, brought := range []struct{ who, name, what string }{
		{"owner", "before", "a"}, {"one", "one", "b"}, {"two", "two", "c"}, {"adds", "adds", "d"}, {"nobody", "nobody", "e"},
		{"one", "shared", "f"}, {"two", "shared", "f"}, {"two", "shared-2", "f"}, {"one", "kept", "g"}, {"one", "gone", "h"},
		{"owner", "here", "i"}, {"two", "of-here", "i"},
	} {
		id, ok := ids[brought.what]
		if !ok {
			id = other.Plant(t, brought.what, uint64(i+1))
		}
		ids[brought.what], ids[brought.name] = id, id
		if err := bring(t, other, clients[brought.who], id, brought.name); err != nil {
			t.Errorf("%s brings %s: %v", brought.who, brought.name, err)
		}
	}
	if err := s.Store.RenameSnapshot("kept", "mine"); err != nil {
		t.Fatal(err)
	}
	ids["mine"] = ids["kept"]
	// Of the same name once more, by another one.
	if err := clients["one"].UnlinkSnapshot(t.Context(), "gone", ids["gone"]); err != nil {
		t.Fatal(err)
	}
	if err := bring(t, other, clients["two"], ids["gone"], "gone"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, name string
		may       bool
	}{
		{"one", "here", false}, {"one", "two", false}, {"one", "adds", false}, {"one", "before", false}, {"one", "nobody", false},
		{"adds", "adds", false}, {"adds", "here", false}, {"adds", "before", false}, {"nobody", "one", false}, {"nobody", "before", false},
		{"two", "shared", false}, {"one", "shared-2", false}, {"one", "mine", false}, {"one", "gone", false}, {"two", "here", false},
		{"two", "shared-2", true}, {"one", "shared", true}, {"two", "gone", true}, {"two", "two", true}, {"one", "one", true},
		{"nobody", "nobody", true}, {"two", "of-here", true}, {"all", "mine", true}, {"all", "adds", true}, {"all", "here", true}, {"owner", "before", true},
	} {
		err := clients[c.who].UnlinkSnapshot(t.Context(), c.name, ids[c.name])
		if (err == nil) != c.may || err != nil && !errors.Is(err, remote.ErrForbidden) {
			t.Errorf("%s removes %s: %v", c.who, c.name, err)
		}
	}
}

// TestAppendOnly does its worst with a token that may append.
func TestAppendOnly(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{})
	if _, err := s.Node.Put(t.Context(), "kept", strings.NewReader("first")); err != nil {
		t.Fatal(err)
	}
	token := s.Token(t, "adds", config.ScopeAppend)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", "/v1/objects/new", "new", 200}, {"POST", "/v1/objects", "nameless", 200}, {"PUT", "/v1/objects/kept", "first", 200},
		{"PUT", "/v1/objects/kept", "second", 409}, {"PUT", "/v1/objects/kept?replace=true", "second", 403},
		{"POST", "/v1/objects?replace=true", "second", 403}, {"DELETE", "/v1/objects/kept", "", 403}, {"DELETE", "/v1/objects/new", "", 403},
		{"GET", "/v1/objects/kept", "", 403}, {"GET", "/v1/objects", "", 403}, {"GET", "/v1/snapshots", "", 200}, {"POST", "/v1/sync/records", "", 403},
		{"DELETE", "/v1/sync/snapshots/x?id=" + store.ID{}.String(), "", 403}, {"GET", "/v1/stats", "", 403}, {"POST", "/v1/commit", "", 403},
		{"DELETE", "/v1/snapshots/x", "", 404}, {"PATCH", "/v1/snapshots/x", "{}", 404}, {"POST", "/v1/prune", "{}", 404}, {"POST", "/v1/rollback", "{}", 404},
	} {
		got, _ := ask(t, c.method, f.URL+c.path, token, strings.NewReader(c.body))
		// A path that is there for other methods says so.
		if got != c.want && !(c.want == 404 && (got == 405 || got == 403)) {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.want)
		}
	}
	var b strings.Builder
	if err := s.Node.Get(t.Context(), "kept", 0, -1, &b); err != nil || b.String() != "first" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// TestLeasesOfAToken has one token take all leases that it gets: another one still gets its own.
func TestLeasesOfAToken(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{})
	lease := func(token string) int {
		got, _ := ask(t, "POST", f.URL+"/v1/sync/leases", token, strings.NewReader(`{"for":"x"}`))
		return got
	}
	greedy, other := s.Token(t, "greedy", config.ScopeSync), s.Token(t, "other", config.ScopeAppend)
	for i := range 20 {
		if got := lease(greedy); (got == 200) != (i < 16) || got != 200 && got != 409 {
			t.Errorf("lease %d: %d", i, got)
		}
	}
	if got := lease(other); got != 200 {
		t.Errorf("of another token: %d", got)
	}
}
