package remote

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/query"
)

// What is asked of a graph, and what it answers, is query's.
type (
	Live     = query.Live
	Rows     = query.Rows
	LiveTree = query.LiveTree
	Name     = query.Name
	Content  = query.Content

	ExportRequest = query.ExportRequest
	ExportItem    = query.ExportItem
	Similar       = query.Similar
	Step          = query.Step
	Crossed       = query.Crossed
	Why           = query.Why
	WhyItem       = query.WhyItem
	ShowItem      = query.ShowItem
	Subject       = query.Subject
	ShowPart      = query.ShowPart
	MatrixItem    = query.MatrixItem
	MatrixSize    = query.MatrixSize
	UsageRequest  = query.UsageRequest
	Usage         = query.Usage
	DiffRequest   = query.DiffRequest
	DiffItem      = query.DiffItem
)

var exportParams = []param{
	{"root", "", "what to begin at, as ref elsewhere; without it, at all snapshots and objects"},
	{"kind", "", "only these kinds, separated by commas"},
	{"depth", 0, "so many steps from the roots at most"},
	{"limit", 0, "so many nodes at most"},
}

// Export implements Graph.
func (c *Client) Export(ctx context.Context, r ExportRequest, fn func(ExportItem) error) error {
	return receiveStream(ctx, c, withQuery("/v1/graph/export", exportQuery(r)), fn)
}

func (s *server) export(w http.ResponseWriter, r *http.Request) {
	req, err := parseExportRequest(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(ExportItem) error) error { return s.node.Export(r.Context(), req, fn) })
}

// Similar implements Graph.
func (c *Client) Similar(ctx context.Context, ref string, top int) (Similar, error) {
	q := make(url.Values)
	setText(q, "ref", ref)
	setNumber(q, "top", int64(top))
	var s Similar
	err := c.call(ctx, http.MethodGet, withQuery("/v1/graph/similar", q), nil, &s)
	return s, err
}

func (s *server) similar(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	top, err := number(q, "top")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	found, err := s.node.Similar(r.Context(), q.Get("ref"), int(min(top, query.MaxSimilar+1)))
	s.answer(w, r, found, err)
}

// Connect implements Graph.
func (c *Client) Connect(ctx context.Context, a, b string) ([]Step, error) {
	q := make(url.Values)
	setText(q, "from", a)
	setText(q, "to", b)
	var steps []Step
	err := c.call(ctx, http.MethodGet, withQuery("/v1/graph/path", q), nil, &steps)
	return steps, err
}

func (s *server) connect(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	steps, err := s.node.Connect(r.Context(), q.Get("from"), q.Get("to"))
	s.answer(w, r, steps, err)
}

// Show implements Graph.
func (c *Client) Show(ctx context.Context, ref string, fn func(ShowItem) error) error {
	q := make(url.Values)
	setText(q, "ref", ref)
	return receiveStream(ctx, c, withQuery("/v1/graph/show", q), fn)
}

func (s *server) show(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("ref")
	sendStream(s, w, r, func(fn func(ShowItem) error) error { return s.node.Show(r.Context(), ref, fn) })
}

// Why implements Graph.
func (c *Client) Why(ctx context.Context, block string) (Why, error) {
	q := make(url.Values)
	setText(q, "block", block)
	var w Why
	err := c.call(ctx, http.MethodGet, withQuery("/v1/graph/why", q), nil, &w)
	return w, err
}

// WhyAll implements Graph.
func (c *Client) WhyAll(ctx context.Context, ref string, limit int64, fn func(WhyItem) error) error {
	q := make(url.Values)
	setText(q, "ref", ref)
	setNumber(q, "limit", limit)
	return receiveStream(ctx, c, withQuery("/v1/graph/why/blocks", q), fn)
}

// Matrix implements Graph.
func (c *Client) Matrix(ctx context.Context, fn func(MatrixItem) error) error {
	return receiveStream(ctx, c, "/v1/graph/matrix", fn)
}

func (s *server) why(w http.ResponseWriter, r *http.Request) {
	why, err := s.node.Why(r.Context(), r.URL.Query().Get("block"))
	s.answer(w, r, why, err)
}

func (s *server) whyAll(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := number(q, "limit")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(WhyItem) error) error { return s.node.WhyAll(r.Context(), q.Get("ref"), limit, fn) })
}

func (s *server) matrix(w http.ResponseWriter, r *http.Request) {
	sendStream(s, w, r, func(fn func(MatrixItem) error) error { return s.node.Matrix(r.Context(), fn) })
}

// Usage implements Graph.
func (c *Client) Usage(ctx context.Context, r UsageRequest) (Usage, error) {
	q := make(url.Values)
	setText(q, "path", r.Path)
	setText(q, "by", r.By)
	var u Usage
	err := c.call(ctx, http.MethodGet, withQuery("/v1/usage", q), nil, &u)
	return u, err
}

// History implements Graph.
func (c *Client) History(ctx context.Context, fn func(graph.HistoryPoint) error) error {
	return receiveStream(ctx, c, "/v1/history", fn)
}

func (s *server) usage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	u, err := s.node.Usage(r.Context(), UsageRequest{Path: q.Get("path"), By: q.Get("by")})
	s.answer(w, r, u, err)
}

func (s *server) history(w http.ResponseWriter, r *http.Request) {
	sendStream(s, w, r, func(fn func(graph.HistoryPoint) error) error { return s.node.History(r.Context(), fn) })
}

// Diff implements Graph.
func (c *Client) Diff(ctx context.Context, r DiffRequest, fn func(DiffItem) error) error {
	q := make(url.Values)
	setText(q, "a", r.A)
	setText(q, "b", r.B)
	if r.Exact {
		q.Set("exact", "true")
	}
	return receiveStream(ctx, c, withQuery("/v1/diff", q), fn)
}

func (s *server) diff(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	req := DiffRequest{A: q.Get("a"), B: q.Get("b"), Exact: q.Get("exact") == "true"}
	sendStream(s, w, r, func(fn func(DiffItem) error) error { return s.node.Diff(r.Context(), req, fn) })
}
func exportQuery(r ExportRequest) url.Values {
	q := make(url.Values)
	setText(q, "root", r.Root)
	setText(q, "kind", strings.Join(r.Kinds, ","))
	setNumber(q, "depth", int64(r.Depth))
	setNumber(q, "limit", int64(r.Limit))
	return q
}

func parseExportRequest(q url.Values) (r ExportRequest, err error) {
	r.Root = q.Get("root")
	if k := q.Get("kind"); k != "" {
		r.Kinds = strings.Split(k, ",")
	}
	for key, n := range map[string]*int{"depth": &r.Depth, "limit": &r.Limit} {
		v, err := number(q, key)
		if err != nil {
			return r, err
		}
		*n = int(v)
	}
	return r, r.Check()
}
