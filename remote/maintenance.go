package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// Maintenance keeps a store small and sound. What takes long calls its function now and
// then with how far it is, and last with the result; an error of the
// function ends the work.
type Maintenance interface {
	// GC gives space back that nothing uses, as far as there is room to move blocks.
	// store.ErrConfig: the options make no sense.
	GC(ctx context.Context, o GCOptions, fn func(GC) error) error
	// Optimize compresses blocks well that were compressed quickly. store.ErrConfig: the store does
	// not compress. store.ErrLocked: another one is under way.
	Optimize(ctx context.Context, o OptimizeOptions, fn func(Optimized) error) error
	// Scrub reads and checks every block. store.ErrLocked: another scrub is
	// under way.
	Scrub(ctx context.Context, o ScrubOptions, fn func(Scrub) error) error
	// Fsck compares all that the store keeps twice. Nobody can write meanwhile.
	Fsck(ctx context.Context) (Fsck, error)
}

// GCOptions are the settings of a GC.
type GCOptions struct {
	MinLive float64 // a segment with a lesser share in use is emptied; 0: the store's choice
	Rate    int64   // most bytes copied a second; 0: no limit
}

// GC is what a GC did, or has done so far.
type GC struct {
	Swept     store.Swept     `json:"swept"`
	Compacted store.Compacted `json:"compacted"`
	Done      bool            `json:"done"`
}

// Freed returns the bytes given back.
func (g GC) Freed() int64 {
	return g.Swept.SegmentBytes + g.Compacted.SegmentBytes - g.Compacted.Copied + g.Compacted.Database
}

// OptimizeOptions are the settings of an optimization.
type OptimizeOptions struct {
	Rate   int64 // most bytes read a second; 0: no limit
	DryRun bool  // only estimate, from a sample
}

// Optimized is what an optimization did, has done so far, or would do.
type Optimized struct {
	store.Optimized
	Done bool `json:"done"`
}

// ScrubOptions are the settings of a scrub.
type ScrubOptions struct {
	Rate    int64 // most bytes read a second; 0: no limit
	Restart bool  // do not go on where an interrupted one stopped
}

// Scrub is what a scrub found, or has found so far. Before the result come all bad
// blocks that are known and what is in them, a part of one in each call.
type Scrub struct {
	store.Scrubbed
	Damaged *BadBlock `json:"damaged,omitempty"`
	Done    bool      `json:"done"`
}

// A BadBlock is a block that cannot be read, and what is in it.
type BadBlock struct {
	store.BadBlock
	Objects []string `json:"objects,omitempty"`
	Files   []Use    `json:"files,omitempty"`
}

// A Use is a span of a file that is in a block.
type Use struct {
	Snapshot string   `json:"snapshot,omitempty"` // that has it; "": the live filesystem
	Path     string   `json:"path"`               // "" when no name leads to the file, or for a snapshot's root
	Ino      uint64   `json:"ino,omitempty"`
	Offset   int64    `json:"offset"`
	Bytes    int64    `json:"bytes"`
	Block    store.ID `json:"-"`
}

// Name returns the path, behind the snapshot and a colon when it is in one, or the inode.
func (u Use) Name() string {
	switch {
	case u.Snapshot != "" && u.Path == "":
		return "snapshot " + u.Snapshot
	case u.Snapshot != "":
		return u.Snapshot + ":" + u.Path
	case u.Path == "":
		return fmt.Sprintf("inode %d", u.Ino)
	}
	return u.Path
}

// A Finding is something that a check found wrong.
type Finding struct {
	Rule    string   `json:"rule"`    // the invariant that is broken, such as I4
	Subject string   `json:"subject"` // a block, an inode, a segment
	Text    string   `json:"text"`
	Paths   []string `json:"paths,omitempty"`   // of the files hit
	Objects []string `json:"objects,omitempty"` // hit
}

// Fsck is what a check found.
type Fsck struct {
	Blocks   int64     `json:"blocks"`
	Vertices int64     `json:"vertices"`
	Objects  int64     `json:"objects"`
	Segments int64     `json:"segments"`
	Hidden   int64     `json:"unreachable_blocks,omitempty"` // in a cold tier that could not be reached
	Count    int64     `json:"finding_count"`
	Findings []Finding `json:"findings"` // the first 1,000
}

// A Namespace is the live filesystem's rows, as maintenance sees them. The volume's
// owner provides it. Its methods must work while the store is at a standstill.
type Namespace interface {
	// Uses calls fn for every span of a file whose block is chosen.
	Uses(ctx context.Context, chosen func(store.ID) bool, fn func(Use) error) error
	// Inspect calls ref for every reference to a block, and report for all that
	// is wrong.
	Inspect(ctx context.Context, ref func(store.ID), report func(Finding)) error
}

// GC implements Maintenance.
func (l *Local) GC(ctx context.Context, o GCOptions, fn func(GC) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g GC
	if l.env.Reaped != nil {
		// Files that were just removed hold their blocks until the reaper has been at them.
		l.env.Reaped()
	}
	err := l.store.Commit() // the sweep sees what is committed
	if err != nil {
		return err
	}
	if g.Swept, err = l.store.Sweep(ctx); err != nil {
		return err
	}
	g.Compacted, err = l.store.Compact(ctx, store.CompactOptions{MinLive: o.MinLive, Rate: o.Rate, All: true, Progress: func(c store.Compacted) {
		g.Compacted = c
		if err := fn(g); err != nil {
			cancel(err)
		}
	}})
	if err != nil {
		return ended(ctx, err)
	}
	g.Done = true
	return fn(g)
}

// Optimize implements Maintenance.
func (l *Local) Optimize(ctx context.Context, o OptimizeOptions, fn func(Optimized) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sum, err := l.store.Optimize(ctx, store.OptimizeOptions{Rate: o.Rate, DryRun: o.DryRun, Progress: func(s store.Optimized) {
		if err := fn(Optimized{Optimized: s}); err != nil {
			cancel(err)
		}
	}})
	if err != nil {
		return ended(ctx, err)
	}
	return fn(Optimized{Optimized: sum, Done: true})
}

// ended returns why work ended: the error of a function that had ctx cancelled, if
// that is it.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// Scrub implements Maintenance.
func (l *Local) Scrub(ctx context.Context, o ScrubOptions, fn func(Scrub) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var s Scrub
	var err error
	s.Scrubbed, err = l.store.Scrub(ctx, store.ScrubOptions{Rate: o.Rate, Restart: o.Restart, Progress: func(p store.Scrubbed) {
		if err := fn(Scrub{Scrubbed: p}); err != nil {
			cancel(err)
		}
	}})
	if err != nil {
		return ended(ctx, err)
	}
	// All that is known, not only what this scrub met: an interrupted one has found some as well.
	bad, err := l.damaged(ctx)
	if err != nil {
		return err
	}
	for _, b := range bad {
		for _, part := range b.parts() {
			if err := fn(Scrub{Scrubbed: s.Scrubbed, Damaged: &part}); err != nil {
				return err
			}
		}
	}
	s.Done = true
	return fn(s)
}

// maxPart is how much of what is in a block is sent at a time.
const maxPart = 100

// parts splits what is in a block: it may be in very many files.
func (b BadBlock) parts() []BadBlock {
	parts := []BadBlock{{BadBlock: b.BadBlock}}
	for files := range slices.Chunk(b.Files, maxPart) {
		parts = append(parts, BadBlock{BadBlock: b.BadBlock, Files: files})
	}
	for objects := range slices.Chunk(b.Objects, maxPart) {
		parts = append(parts, BadBlock{BadBlock: b.BadBlock, Objects: objects})
	}
	return parts
}

// damaged lists the bad blocks with what is in them.
func (l *Local) damaged(ctx context.Context) ([]BadBlock, error) {
	list := l.store.BadBlocks()
	if len(list) == 0 {
		return nil, nil
	}
	at := make(map[store.ID]int, len(list))
	bad := make([]BadBlock, len(list))
	for i, b := range list {
		at[b.ID], bad[i].BadBlock = i, b
	}
	// One pass over files, snapshots and objects for all bad blocks together: each pass reads the
	// whole tree.
	chosen := func(id store.ID) bool { _, ok := at[id]; return ok }
	err := l.holders(ctx, chosen, func(u Use) error {
		bad[at[u.Block]].Files = append(bad[at[u.Block]].Files, u)
		return nil
	}, func(name string, id store.ID) error {
		bad[at[id]].Objects = append(bad[at[id]].Objects, name)
		return nil
	})
	return bad, err
}

// holders names the files and objects that have chosen blocks in them.
func (l *Local) holders(ctx context.Context, chosen func(store.ID) bool, file func(Use) error, object func(string, store.ID) error) error {
	if l.env.Namespace != nil {
		if err := l.env.Namespace.Uses(ctx, chosen, file); err != nil {
			return err
		}
	}
	if err := l.inSnapshots(ctx, chosen, file); err != nil {
		return err
	}
	return l.store.ObjectsHolding(ctx, chosen, object)
}

// MaxSnapshotUses is how many places in snapshots are named for a block.
const MaxSnapshotUses = 20

// inSnapshots names files and directories of snapshots that have chosen blocks in
// them, the first for each block in the order of the snapshots' names.
func (l *Local) inSnapshots(ctx context.Context, chosen func(store.ID) bool, file func(Use) error) error {
	// A block of an old file is in every snapshot since: a few places tell enough.
	listing := make(map[store.ID]int)
	h := graph.Holding{Source: l.store, Chosen: func(id store.ID) bool { return listing[id] < MaxSnapshotUses && chosen(id) }}
	return l.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		return h.Snapshot(ctx, r.ID, func(at graph.Held) error {
			listing[at.Block]++
			return file(Use{Snapshot: r.Name, Path: at.Path, Offset: at.Offset, Bytes: at.Bytes, Block: at.Block})
		})
	})
}

// Fsck implements Maintenance.
func (l *Local) Fsck(ctx context.Context) (Fsck, error) {
	f := Fsck{Findings: []Finding{}} // none is an empty list in JSON
	inspected := false
	holder := func(ctx context.Context, ref func(store.ID)) error {
		report := f.add
		if inspected { // the store counts references in several rounds
			report = func(Finding) {}
		}
		// Only the first round reports, or each finding would come once a round.
		inspected = true
		return l.env.Namespace.Inspect(ctx, ref, report)
	}
	var o store.CheckOptions
	if l.env.Namespace != nil {
		o.Holders = append(o.Holders, holder)
	}
	r, err := l.store.Check(ctx, o)
	if err != nil {
		return f, err
	}
	// The namespace's findings are in f already: they are of files, and come first.
	f.Blocks, f.Vertices, f.Objects, f.Segments, f.Hidden = r.Blocks, r.Vertices, r.Objects, r.Segments, r.Hidden
	for _, p := range r.Problems {
		f.add(Finding{Rule: p.Invariant, Subject: p.Subject, Text: p.Text})
	}
	// add has counted those that are listed.
	f.Count += r.Count - int64(len(r.Problems))
	return f, l.explain(ctx, &f)
}

// maxFindings is how many findings a Fsck lists; the rest is counted.
const maxFindings = 1000

func (f *Fsck) add(x Finding) {
	if f.Count++; f.Count <= maxFindings {
		f.Findings = append(f.Findings, x)
	}
}

// maxHit is how many paths and objects a finding names.
const maxHit = 20

// explain adds to findings about blocks what is in these.
func (l *Local) explain(ctx context.Context, f *Fsck) error {
	at := make(map[store.ID][]int)
	for i, x := range f.Findings {
		var id store.ID
		// Only findings about blocks have an ID for their subject.
		if id.UnmarshalText([]byte(x.Subject)) == nil {
			at[id] = append(at[id], i)
		}
	}
	if len(at) == 0 {
		return nil
	}
	// Names of one block come together, so comparing with the last one drops repeats.
	hit := func(id store.ID, namesOf func(*Finding) *[]string, name string) {
		for _, i := range at[id] {
			if l := namesOf(&f.Findings[i]); len(*l) < maxHit && (len(*l) == 0 || (*l)[len(*l)-1] != name) {
				*l = append(*l, name)
			}
		}
	}
	return l.holders(ctx, func(id store.ID) bool { return at[id] != nil }, func(u Use) error {
		hit(u.Block, func(x *Finding) *[]string { return &x.Paths }, u.Name())
		return nil
	}, func(name string, id store.ID) error {
		hit(id, func(x *Finding) *[]string { return &x.Objects }, name)
		return nil
	})
}

// GC implements Maintenance.
func (c *Client) GC(ctx context.Context, o GCOptions, fn func(GC) error) error {
	q := make(url.Values)
	setNumber(q, "rate", o.Rate)
	if o.MinLive != 0 {
		q.Set("min_live", strconv.FormatFloat(o.MinLive, 'g', -1, 64))
	}
	return receiveMaintenance(ctx, c, withQuery("/v1/gc", q), fn)
}

// Optimize implements Maintenance.
func (c *Client) Optimize(ctx context.Context, o OptimizeOptions, fn func(Optimized) error) error {
	q := make(url.Values)
	setNumber(q, "rate", o.Rate)
	if o.DryRun {
		q.Set("dry_run", "true")
	}
	return receiveMaintenance(ctx, c, withQuery("/v1/optimize", q), fn)
}

// Scrub implements Maintenance.
func (c *Client) Scrub(ctx context.Context, o ScrubOptions, fn func(Scrub) error) error {
	q := make(url.Values)
	setNumber(q, "rate", o.Rate)
	if o.Restart {
		q.Set("restart", "true")
	}
	return receiveMaintenance(ctx, c, withQuery("/v1/scrub", q), fn)
}

// Fsck implements Maintenance.
func (c *Client) Fsck(ctx context.Context) (Fsck, error) {
	var f Fsck
	err := c.call(ctx, http.MethodPost, "/v1/fsck", nil, &f)
	return f, err
}

func receiveMaintenance[T any](ctx context.Context, c *Client, path string, fn func(T) error) error {
	return receiveMethod(ctx, c, http.MethodPost, path, nil, fn)
}

// maintenanceRoutes are for the store's owner only.
func maintenanceRoutes(mux *http.ServeMux, n Node, log *slog.Logger) {
	s := &server{node: n, log: log}
	mux.HandleFunc("POST /v1/gc", s.gc)
	mux.HandleFunc("POST /v1/optimize", s.optimize)
	mux.HandleFunc("POST /v1/scrub", s.scrub)
	mux.HandleFunc("POST /v1/fsck", s.fsck)
}

func (s *server) gc(w http.ResponseWriter, r *http.Request) {
	o, err := parseGC(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(GC) error) error { return s.node.GC(r.Context(), o, fn) })
}

func parseGC(q url.Values) (o GCOptions, err error) {
	if err := onlyKnown(q, "rate", "min_live"); err != nil {
		return o, err
	}
	if text := q.Get("min_live"); text != "" {
		if o.MinLive, err = strconv.ParseFloat(text, 64); err != nil {
			return o, fmt.Errorf("%w: min_live=%q is no number", ErrRequest, text)
		}
	}
	o.Rate, err = number(q, "rate")
	return o, err
}

func (s *server) optimize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	err := onlyKnown(q, "rate", "dry_run")
	var o OptimizeOptions
	if err == nil {
		o.Rate, err = number(q, "rate")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o.DryRun = q.Get("dry_run") == "true"
	sendStream(s, w, r, func(fn func(Optimized) error) error { return s.node.Optimize(r.Context(), o, fn) })
}

func (s *server) scrub(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	err := onlyKnown(q, "rate", "restart")
	var o ScrubOptions
	if err == nil {
		o.Rate, err = number(q, "rate")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o.Restart = q.Get("restart") == "true"
	sendStream(s, w, r, func(fn func(Scrub) error) error { return s.node.Scrub(r.Context(), o, fn) })
}

func (s *server) fsck(w http.ResponseWriter, r *http.Request) {
	f, err := s.node.Fsck(r.Context())
	s.answer(w, r, f, err)
}
