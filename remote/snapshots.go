package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// Snapshots makes, lists and brings back snapshots. Paths are from
// the root of the filesystem, with or without a leading slash.
type Snapshots interface {
	// CreateSnapshot makes a snapshot, durably, of all that was written before, what the kernel
	// holds back of a mounted store included. store.ErrNameTaken;
	// store.ErrConfig for a name, tag or message that cannot be.
	CreateSnapshot(ctx context.Context, n NewSnapshot) (Snapshot, error)
	// ListSnapshots calls fn for every snapshot, the oldest first, until fn fails. It may have a
	// Fault.
	ListSnapshots(ctx context.Context, fn func(Snapshot) error) error
	// GetSnapshot returns a snapshot, one with a Fault as well. store.ErrNotFound.
	GetSnapshot(ctx context.Context, name string) (Snapshot, error)
	// RemoveSnapshot drops a snapshot. store.ErrNotFound, store.ErrHeld.
	RemoveSnapshot(ctx context.Context, name string) error
	// EditSnapshot renames, holds or releases a snapshot. store.ErrNotFound,
	// store.ErrNameTaken, store.ErrConfig.
	EditSnapshot(ctx context.Context, name string, e SnapshotEdit) error
	// Clone makes a path a writable copy of what is in a snapshot. What it replaces is
	// in a snapshot that is made before. store.ErrNotFound; store.ErrNameTaken for what it
	// may not replace.
	Clone(ctx context.Context, r CloneRequest) (Cloned, error)
	// Rollback makes the filesystem what it was in a snapshot. store.ErrNotFound.
	Rollback(ctx context.Context, r RollbackRequest) (Rollback, error)
	// Prune removes the snapshots that a policy does not keep, or only says which.
	// ErrRequest: the policy would keep nothing.
	Prune(ctx context.Context, r PruneRequest) ([]graph.Verdict, error)
}

// NewSnapshot says what a snapshot is to be called and to say of itself.
type NewSnapshot struct {
	Name    string   `json:"name"` // empty: made from the time
	Message string   `json:"message,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	Host    string   `json:"host,omitempty"`

	// Progress, if set, is called now and then with how many files and
	// directories were looked at.
	Progress func(looked int64) `json:"-"`

	// Marks are of this process only: no request can give any.
	Marks []store.SnapshotMark `json:"-"`
}

// A SnapshotStep is how far the making of a snapshot is, or the snapshot.
type SnapshotStep struct {
	Looked int64     `json:"looked,omitempty"`
	Made   *Snapshot `json:"snapshot,omitempty"`
}

// A Snapshot is a whole filesystem at one instant.
type Snapshot struct {
	Name    string       `json:"name"`
	ID      store.ID     `json:"id"`
	Created time.Time    `json:"created"`
	Held    bool         `json:"held"`
	Until   time.Time    `json:"held_until,omitzero"` // before then nobody can let go of it
	Volume  string       `json:"volume"`              // of the store where it was made
	Host    string       `json:"host,omitempty"`
	Message string       `json:"message,omitempty"`
	Tags    []string     `json:"tags,omitempty"`
	Parents []store.ID   `json:"parents,omitempty"`
	Totals  graph.Totals `json:"totals"`

	// Fault says why the snapshot cannot be read. Then only what its name says is known, and
	// Created is when that was set.
	Fault string `json:"fault,omitempty"`

	// Scheduled: the store's own schedule made it, and it still has the name that it got then.
	Scheduled bool `json:"scheduled,omitempty"`
}

// SnapshotEdit says what to change; nil fields stay.
type SnapshotEdit struct {
	Name *string `json:"name,omitempty"`
	Held *bool   `json:"held,omitempty"`

	Until time.Time `json:"held_until,omitzero"` // hold it until then, when it is let go of by itself
}

// A CloneRequest says what to copy where.
type CloneRequest struct {
	Snapshot string `json:"snapshot"`
	Path     string `json:"path,omitempty"` // in the snapshot; empty: all
	To       string `json:"to"`
	Replace  bool   `json:"replace,omitempty"`   // what is at To: a directory by a directory, anything else by anything else
	AnyKind  bool   `json:"any_kind,omitempty"`  // with Replace: a directory also by a file, and a file by a directory
	NoSafety bool   `json:"no_safety,omitempty"` // make no snapshot of what is there now
	Host     string `json:"host,omitempty"`

	// KeepPrivileges brings set-user-ID bits, devices and security attributes back also from
	// another store's snapshot.
	KeepPrivileges bool `json:"keep_privileges,omitempty"`
}

// Cloned says what a clone has made, and what a restore has left.
type Cloned struct {
	To     string `json:"to"`                        // the path, from the top
	Safety string `json:"safety_snapshot,omitempty"` // of what was there before
}

// A RollbackRequest says where to go back to.
type RollbackRequest struct {
	Snapshot string `json:"snapshot"`
	NoSafety bool   `json:"no_safety,omitempty"` // make no snapshot of what is there now
	Host     string `json:"host,omitempty"`

	KeepPrivileges bool `json:"keep_privileges,omitempty"` // as of a CloneRequest
}

// A Rollback says what a rollback has left.
type Rollback struct {
	Safety string `json:"safety_snapshot,omitempty"` // of what was there before
}

// A PruneRequest says which snapshots to keep.
type PruneRequest struct {
	Policy config.Retention `json:"policy"`
	Among  string           `json:"among,omitempty"` // only snapshots with this tag are judged
	Own    bool             `json:"own,omitempty"`   // only those that this store's schedule made
	DryRun bool             `json:"dry_run,omitempty"`
}

// ScheduleTag marks the snapshots that a schedule makes.
const ScheduleTag = "auto"

// ScheduledName is what a schedule calls the snapshot of an instant.
func ScheduledName(t time.Time) string { return t.UTC().Format("auto_2006-01-02_15-04-05") }

// Snapshotter is what the volume's owner provides for snapshots.
type Snapshotter interface {
	CreateSnapshot(ctx context.Context, n NewSnapshot) (Snapshot, error)
	RemoveSnapshot(ctx context.Context, name string) error
	EditSnapshot(ctx context.Context, name string, e SnapshotEdit) error
	LinkSnapshot(ctx context.Context, name string, id store.ID, by store.Actor) error
	Clone(ctx context.Context, r CloneRequest) error
	Rollback(ctx context.Context, r RollbackRequest) error
}

// A mountGuard is a Snapshotter that knows what is mounted on the filesystem. store.ErrMounted:
// what is mounted at or below a path stands in the way of changing what is there.
type mountGuard interface{ NothingOn(path string) error }

// snapshotter returns the volume's part, or an error when there is none.
func (l *Local) snapshotter() (Snapshotter, error) {
	if l.env.Snapshots == nil {
		return nil, query.ErrNoFiles
	}
	return l.env.Snapshots, nil
}

// DescribeSnapshot makes a Snapshot of a vertex and its name.
func DescribeSnapshot(r store.SnapshotRef, s *graph.Snapshot) Snapshot {
	return Snapshot{
		Name: r.Name, ID: r.ID, Held: r.HeldAt(time.Now()), Until: r.Until, Created: time.Unix(s.Created.Sec, int64(s.Created.Nsec)).UTC(),
		Volume: s.Volume, Host: s.Host, Message: s.Message, Tags: s.Tags, Parents: s.Parents, Totals: s.Totals,
		Scheduled: r.Scheduled,
	}
}

// describe reads a snapshot. One that cannot be read must not hide the others, so it has a Fault.
func (l *Local) describe(ctx context.Context, r store.SnapshotRef) (Snapshot, error) {
	s, err := graph.GetSnapshot(ctx, l.store, r.ID)
	if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrUnavailable) {
		return Snapshot{Name: r.Name, ID: r.ID, Held: r.HeldAt(time.Now()), Until: r.Until, Created: r.Set.UTC(), Scheduled: r.Scheduled, Fault: err.Error()}, nil
	}
	if err != nil {
		err = fmt.Errorf("snapshot %q: %w", r.Name, err)
	}
	return DescribeSnapshot(r, &s), err
}

// CreateSnapshot implements Snapshots.
func (l *Local) CreateSnapshot(ctx context.Context, n NewSnapshot) (Snapshot, error) {
	v, err := l.snapshotter()
	if err != nil {
		return Snapshot{}, err
	}
	return v.CreateSnapshot(ctx, n)
}

// allSnapshots returns them, the oldest first.
func (l *Local) allSnapshots(ctx context.Context) ([]Snapshot, error) {
	var list []Snapshot
	err := l.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		s, err := l.describe(ctx, r)
		if errors.Is(err, store.ErrNotFound) {
			return nil // removed since
		}
		list = append(list, s)
		return err
	})
	slices.SortStableFunc(list, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return list, err
}

// ListSnapshots implements Snapshots.
func (l *Local) ListSnapshots(ctx context.Context, fn func(Snapshot) error) error {
	list, err := l.allSnapshots(ctx)
	for i := range list {
		if err == nil {
			err = fn(list[i])
		}
	}
	return err
}

// GetSnapshot implements Snapshots.
func (l *Local) GetSnapshot(ctx context.Context, name string) (Snapshot, error) {
	r, err := l.store.Snapshot(name)
	if err != nil {
		return Snapshot{}, err
	}
	return l.describe(ctx, r)
}

// RemoveSnapshot implements Snapshots.
func (l *Local) RemoveSnapshot(ctx context.Context, name string) error {
	v, err := l.snapshotter()
	if err != nil {
		return err
	}
	return v.RemoveSnapshot(ctx, name)
}

// EditSnapshot implements Snapshots.
func (l *Local) EditSnapshot(ctx context.Context, name string, e SnapshotEdit) error {
	v, err := l.snapshotter()
	if err != nil {
		return err
	}
	return v.EditSnapshot(ctx, name, e)
}

// Clone implements Snapshots.
func (l *Local) Clone(ctx context.Context, r CloneRequest) (done Cloned, err error) {
	v, err := l.snapshotter()
	if err != nil {
		return done, err
	}
	r.To = strings.Trim(r.To, "/")
	done.To = r.To
	if r.Replace && !r.NoSafety && l.env.Live != nil {
		// Nothing there, nothing to be saved: the snapshot would only take time.
		_, err := l.env.Live.LiveFile(ctx, r.To)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return done, err
		}
		r.NoSafety = err != nil // nothing is there
	}
	done.Safety, err = l.safely(ctx, r.NoSafety || !r.Replace, "restore", r.Snapshot, r.Host, func() error { return v.Clone(ctx, r) })
	return done, err
}

// safely has a snapshot made of what is there now, unless that is not wanted, and then calls do.
// Where do has found that it cannot be done, the snapshot goes again.
func (l *Local) safely(ctx context.Context, unsafely bool, what, to, host string, do func() error) (safety string, err error) {
	if unsafely {
		return "", do()
	}
	// Before a snapshot is made in vain.
	if _, err := l.store.Snapshot(to); err != nil {
		return "", err
	}
	s, err := l.env.Snapshots.CreateSnapshot(ctx, NewSnapshot{
		Name:    "before-" + what + "_" + time.Now().UTC().Format("2006-01-02_15-04-05.000"),
		Message: "before the " + what + " to " + to, Tags: []string{what}, Host: host,
	})
	if err != nil {
		return "", err
	}
	err = do()
	// After any other error something may have changed, and the snapshot is what leads back.
	for _, nothingDone := range []error{
		store.ErrNotFound, store.ErrNameTaken, store.ErrMounted, ErrRequest, store.ErrFull, store.ErrUnavailable, context.Canceled,
	} {
		if errors.Is(err, nothingDone) && !errors.Is(err, store.ErrUncommitted) {
			// Also when the caller has gone: on a full disk it would keep what is to be removed.
			return "", errors.Join(err, l.env.Snapshots.RemoveSnapshot(context.WithoutCancel(ctx), s.Name))
		}
	}
	if err != nil {
		err = fmt.Errorf("%w; what was there is in snapshot %q", err, s.Name)
	}
	return s.Name, err
}

// Rollback implements Snapshots.
func (l *Local) Rollback(ctx context.Context, r RollbackRequest) (done Rollback, err error) {
	v, err := l.snapshotter()
	if err != nil {
		return done, err
	}
	if m, ok := v.(mountGuard); ok { // before a snapshot is made in vain
		if err := m.NothingOn("/"); err != nil {
			return done, err
		}
	}
	done.Safety, err = l.safely(ctx, r.NoSafety, "rollback", r.Snapshot, r.Host, func() error { return v.Rollback(ctx, r) })
	return done, err
}

// Prune implements Snapshots.
func (l *Local) Prune(ctx context.Context, r PruneRequest) ([]graph.Verdict, error) {
	if r.Policy.Empty() {
		return nil, fmt.Errorf("%w: this would remove all snapshots: say which to keep", ErrRequest)
	}
	v, err := l.snapshotter()
	if err != nil {
		return nil, err
	}
	all, err := l.allSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	var list []graph.Candidate
	var unknown []graph.Verdict
	for _, s := range all {
		// Nobody knows its time and tags, so no rule says anything of it; nor does it count as the
		// one that a rule keeps.
		if s.Fault != "" {
			unknown = append(unknown, graph.Verdict{
				Candidate: graph.Candidate{Name: s.Name, Created: s.Created.Local(), Held: s.Held}, Keep: true, Reasons: []string{"cannot be read"},
			})
			continue
		}
		if (r.Among == "" || slices.Contains(s.Tags, r.Among)) && (!r.Own || s.Scheduled) {
			list = append(list, graph.Candidate{Name: s.Name, Created: s.Created.Local(), Tags: s.Tags, Held: s.Held})
		}
	}
	verdicts := append(graph.Retain(r.Policy, list), unknown...)
	for _, judged := range verdicts {
		if judged.Keep || r.DryRun {
			continue
		}
		err := v.RemoveSnapshot(ctx, judged.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return verdicts, err
		}
	}
	return verdicts, nil
}

func snapshotPath(name string) string { return "/v1/snapshots/" + url.PathEscape(name) }

// CreateSnapshot implements Snapshots.
func (c *Client) CreateSnapshot(ctx context.Context, n NewSnapshot) (s Snapshot, err error) {
	if n.Progress == nil {
		err = c.post(ctx, http.MethodPost, "/v1/snapshots", n, &s)
		return s, err
	}
	body, err := rawjson.Marshal(n)
	if err != nil {
		return s, err
	}
	err = receiveMethod(ctx, c, http.MethodPost, "/v1/snapshots?progress=true", bytes.NewReader(body), func(step SnapshotStep) error {
		if step.Made != nil {
			s = *step.Made
		} else {
			n.Progress(step.Looked)
		}
		return nil
	})
	return s, err
}

// ListSnapshots implements Snapshots.
func (c *Client) ListSnapshots(ctx context.Context, fn func(Snapshot) error) error {
	return receiveStream(ctx, c, "/v1/snapshots", fn)
}

// GetSnapshot implements Snapshots.
func (c *Client) GetSnapshot(ctx context.Context, name string) (s Snapshot, err error) {
	err = c.call(ctx, http.MethodGet, snapshotPath(name), nil, &s)
	return s, err
}

// RemoveSnapshot implements Snapshots.
func (c *Client) RemoveSnapshot(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, snapshotPath(name), nil, &struct{}{})
}

// EditSnapshot implements Snapshots.
func (c *Client) EditSnapshot(ctx context.Context, name string, e SnapshotEdit) error {
	return c.post(ctx, http.MethodPatch, snapshotPath(name), e, &struct{}{})
}

// Clone implements Snapshots.
func (c *Client) Clone(ctx context.Context, r CloneRequest) (done Cloned, err error) {
	err = c.post(ctx, http.MethodPost, "/v1/clone", r, &done)
	return done, err
}

// Rollback implements Snapshots.
func (c *Client) Rollback(ctx context.Context, r RollbackRequest) (done Rollback, err error) {
	err = c.post(ctx, http.MethodPost, "/v1/rollback", r, &done)
	return done, err
}

// Prune implements Snapshots.
func (c *Client) Prune(ctx context.Context, r PruneRequest) (verdicts []graph.Verdict, err error) {
	err = c.post(ctx, http.MethodPost, "/v1/prune", r, &verdicts)
	return verdicts, err
}

// snapshotRoutes are for whoever may look at a store.
func (s *server) snapshotRoutes() []route {
	return []route{
		{"GET /v1/snapshots", lists, "List snapshots", none, nothing, linesOf(Snapshot{}), func(w http.ResponseWriter, r *http.Request) {
			sendStream(s, w, r, func(fn func(Snapshot) error) error { return s.node.ListSnapshots(r.Context(), fn) })
		}},
		{"GET /v1/snapshots/{name}", reads, "Show a snapshot", none, nothing, jsonOf(Snapshot{}), func(w http.ResponseWriter, r *http.Request) {
			one, err := s.node.GetSnapshot(r.Context(), r.PathValue("name"))
			s.answer(w, r, one, err)
		}},
	}
}

// snapshotControl are for the store's owner only.
func snapshotControl(mux *http.ServeMux, n Node, log *slog.Logger) {
	s := &server{node: n, log: log}
	mux.HandleFunc("POST /v1/snapshots", s.createSnapshot)
	mux.HandleFunc("DELETE /v1/snapshots/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, struct{}{}, n.RemoveSnapshot(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("PATCH /v1/snapshots/{name}", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, e SnapshotEdit) (struct{}, error) {
			return struct{}{}, n.EditSnapshot(ctx, r.PathValue("name"), e)
		})
	})
	mux.HandleFunc("POST /v1/clone", func(w http.ResponseWriter, r *http.Request) { answerBody(s, w, r, n.Clone) })
	mux.HandleFunc("POST /v1/rollback", func(w http.ResponseWriter, r *http.Request) { answerBody(s, w, r, n.Rollback) })
	mux.HandleFunc("POST /v1/prune", func(w http.ResponseWriter, r *http.Request) { answerBody(s, w, r, n.Prune) })
}

// createSnapshot answers with the snapshot, or with progress=true with a stream of
// steps that ends with it.
func (s *server) createSnapshot(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("progress") != "true" {
		answerBody(s, w, r, s.node.CreateSnapshot)
		return
	}
	var n NewSnapshot
	// Before the stream begins, so that a bad request has a status.
	if err := readBody(w, r, &n); err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(SnapshotStep) error) error {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		n.Progress = func(looked int64) {
			if err := fn(SnapshotStep{Looked: looked}); err != nil {
				cancel(err) // the client has left
			}
		}
		made, err := s.node.CreateSnapshot(ctx, n)
		if err != nil {
			return ended(ctx, err)
		}
		return fn(SnapshotStep{Made: &made})
	})
}
