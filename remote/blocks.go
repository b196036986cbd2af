package remote

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// A BlockInfo is what the index says about a block.
type BlockInfo = store.BlockInfo

// blockKinds are the kinds of blocks, in the order of segment.Kind less one.
var blockKinds = []string{"data", "file", "tree", "snapshot"}

// A BlockFilter says which blocks to list; zero values let all pass.
type BlockFilter struct {
	Kinds   []string // any of data, file, tree, snapshot
	Prefix  string   // hex digits that the ID starts with
	MinRefs int64
	MaxRefs int64
	MinSize int64  // plain bytes
	Limit   int64  // at most so many
	After   string // begin behind the block with this ID; empty: at the first

	Unreferenced bool // only those that nothing refers to
}

// Check reports a filter that makes no sense. ErrRequest.
func (f BlockFilter) Check() error {
	for _, k := range f.Kinds {
		if !slices.Contains(blockKinds, k) {
			return fmt.Errorf("%w: block kind %q: choose of data, file, tree, snapshot", ErrRequest, k)
		}
	}
	if len(f.Prefix) > 64 || strings.Trim(f.Prefix, "0123456789abcdefABCDEF") != "" {
		return fmt.Errorf("%w: ID prefix %q: give up to 64 hex digits", ErrRequest, f.Prefix)
	}
	if f.After != "" && new(store.ID).UnmarshalText([]byte(f.After)) != nil {
		return fmt.Errorf("%w: after %q: give the %d hex digits of an ID", ErrRequest, f.After, 2*len(store.ID{}))
	}
	if f.MinRefs < 0 || f.MaxRefs < 0 || f.MinSize < 0 || f.Limit < 0 {
		return fmt.Errorf("%w: a filter's number is negative", ErrRequest)
	}
	return nil
}

// ListBlocks implements Node.
func (l *Local) ListBlocks(ctx context.Context, f BlockFilter, fn func(BlockInfo) error) error {
	if err := f.Check(); err != nil {
		return err
	}
	list := atMost(f.Limit, fn)
	chosen := store.BlockFilter{MinRefs: uint64(f.MinRefs), MaxRefs: uint64(f.MaxRefs), Unused: f.Unreferenced, Prefix: f.Prefix}
	if f.After != "" {
		if err := chosen.After.UnmarshalText([]byte(f.After)); err != nil {
			return err
		}
	}
	return l.store.Blocks(ctx, chosen, func(b BlockInfo) error {
		// What the index cannot filter by; only blocks that pass count for the limit.
		if b.Raw < f.MinSize || len(f.Kinds) > 0 && !slices.Contains(f.Kinds, b.Kind) {
			return nil
		}
		return list(b)
	})
}

var blockParams = []param{
	{"kind", "", "only of these kinds, separated by commas: data, file, tree, snapshot"},
	{"prefix", "", "only those whose IDs begin so"},
	{"min_refs", 0, "only with so many references at least"},
	{"max_refs", 0, "only with so many references at most"},
	{"min_size", 0, "only of so many plain bytes at least"},
	{"unreferenced", false, "only those that nothing refers to"},
}

func (f BlockFilter) query() url.Values {
	q := make(url.Values)
	setText(q, "kind", strings.Join(f.Kinds, ","))
	setText(q, "prefix", f.Prefix)
	setNumber(q, "min_refs", f.MinRefs)
	setNumber(q, "max_refs", f.MaxRefs)
	setNumber(q, "min_size", f.MinSize)
	setNumber(q, "limit", f.Limit)
	if f.Unreferenced {
		q.Set("unreferenced", "true")
	}
	setText(q, "after", f.After)
	return q
}

func parseBlockFilter(q url.Values) (f BlockFilter, err error) {
	if k := q.Get("kind"); k != "" {
		f.Kinds = strings.Split(k, ",")
	}
	f.Prefix, f.After = q.Get("prefix"), q.Get("after")
	f.Unreferenced = q.Get("unreferenced") == "true"
	for key, n := range map[string]*int64{"min_refs": &f.MinRefs, "max_refs": &f.MaxRefs, "min_size": &f.MinSize, "limit": &f.Limit} {
		if *n, err = number(q, key); err != nil {
			return f, err
		}
	}
	return f, f.Check()
}

// ListBlocks implements Node.
func (c *Client) ListBlocks(ctx context.Context, filter BlockFilter, fn func(BlockInfo) error) error {
	return receiveStream(ctx, c, withQuery("/v1/blocks", filter.query()), fn)
}

func (s *server) blocks(w http.ResponseWriter, r *http.Request) {
	filter, err := parseBlockFilter(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(BlockInfo) error) error { return s.node.ListBlocks(r.Context(), filter, fn) })
}

// block answers to GET and HEAD of a block's plain bytes.
func (s *server) block(w http.ResponseWriter, r *http.Request) {
	var id store.ID
	if err := id.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		s.fail(w, r, fmt.Errorf("%w: block %q: %v", ErrRequest, r.PathValue("id"), err))
		return
	}
	var kind, plain = "", []byte(nil)
	// By way of the record, so that this works on every Node; the bytes are checked once more on
	// the way.
	err := s.node.Records(r.Context(), []store.ID{id}, func(rec store.Record) error {
		b, err := store.Unpack(&rec)
		kind, plain = rec.Kind.String(), bytes.Clone(b)
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	// Bytes never change under an ID, so whoever has them need not ask again.
	h.Set("ETag", `"`+id.String()+`"`)
	h.Set("Cache-Control", immutable)
	h.Set("Content-Type", contentBytes)
	h.Set("Quarxfs-Kind", kind)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(plain))
}
