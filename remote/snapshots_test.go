package remote_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// volumeOf is a volume with nothing in it but an empty root directory.
type volumeOf struct {
	st     *store.Store
	cloned []remote.CloneRequest
	back   []string
	fails  error // of the next clones and rollbacks
}

func (v *volumeOf) LinkSnapshot(_ context.Context, name string, id store.ID, by store.Actor) error {
	return v.st.LinkSnapshot(name, id, by)
}

func (v *volumeOf) CreateSnapshot(_ context.Context, n remote.NewSnapshot) (remote.Snapshot, error) {
	if n.Progress != nil {
		n.Progress(1000)
		n.Progress(2000)
	}
	release := v.st.Hold()
	defer release()
	tree, err := graph.NewTreeBuilder(v.st, graph.Directory).Finish()
	if err != nil {
		return remote.Snapshot{}, err
	}
	now := time.Now()
	s := graph.Snapshot{
		Root:    graph.Entry{Mode: syscall.S_IFDIR | 0o755, Link: graph.Link{ID: tree.ID, Kind: store.KindTree}},
		Created: graph.Time{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}, Message: n.Message, Tags: n.Tags, Host: n.Host,
	}
	plain, err := s.Encode()
	if err != nil {
		return remote.Snapshot{}, err
	}
	id, err := v.st.Put(store.KindSnapshot, plain)
	if err == nil {
		err = v.st.Update(func() error { return v.st.NameSnapshot(n.Name, id) })
	}
	if err != nil {
		return remote.Snapshot{}, err
	}
	r, err := v.st.Snapshot(n.Name)
	return remote.DescribeSnapshot(r, &s), err
}

func (v *volumeOf) RemoveSnapshot(_ context.Context, name string) error {
	return v.st.RemoveSnapshot(name)
}

func (v *volumeOf) EditSnapshot(_ context.Context, name string, e remote.SnapshotEdit) error {
	if e.Held != nil {
		return v.st.HoldSnapshot(name, *e.Held)
	}
	return v.st.RenameSnapshot(name, *e.Name)
}

func (v *volumeOf) Clone(_ context.Context, r remote.CloneRequest) error {
	v.cloned = append(v.cloned, r)
	if r.To == "taken" && !r.Replace {
		return store.ErrNameTaken
	}
	return v.fails
}

func (v *volumeOf) Rollback(_ context.Context, r remote.RollbackRequest) error {
	v.back = append(v.back, r.Snapshot)
	return v.fails
}

// eachOwner runs a test on what the owner of a store has: a local node and one
// behind the control socket.
func eachOwner(t *testing.T, test func(t *testing.T, n remote.Node, v *volumeOf)) {
	open := func(t *testing.T) (*remote.Local, *volumeOf) {
		dir := t.TempDir() + "/store"
		if err := store.Init(dir, store.DefaultConfig()); err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		v := &volumeOf{st: st}
		return remote.NewLocal(st, remote.Environment{Files: someFiles, Snapshots: v}), v
	}
	t.Run("local", func(t *testing.T) {
		n, v := open(t)
		test(t, n, v)
	})
	t.Run("http", func(t *testing.T) {
		n, v := open(t)
		srv := httptest.NewServer(remote.ControlHandler(n, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		c := remote.NewClient(srv.URL, nil)
		t.Cleanup(c.Close)
		test(t, c, v)
	})
}

func TestSnapshots(t *testing.T) {
	eachOwner(t, func(t *testing.T, n remote.Node, v *volumeOf) {
		ctx := t.Context()
		names := func() (list []string) {
			err := n.ListSnapshots(ctx, func(s remote.Snapshot) error { list = append(list, s.Name); return nil })
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		for _, name := range []string{"z", "a b%2Fü?#", "m"} {
			var looked []int64
			want := remote.NewSnapshot{Name: name, Message: "m\n", Tags: []string{"t"}, Host: "h"}
			if name == "m" {
				want.Progress = func(n int64) { looked = append(looked, n) }
			}
			s, err := n.CreateSnapshot(ctx, want)
			if err != nil || s.Name != name || s.Message != want.Message || !reflect.DeepEqual(s.Tags, want.Tags) || s.Host != "h" {
				t.Fatalf("create: %+v, %v", s, err)
			}
			if name == "m" && !slices.Equal(looked, []int64{1000, 2000}) {
				t.Errorf("progress: %v", looked)
			}
			again, err := n.GetSnapshot(ctx, name)
			if err != nil || !reflect.DeepEqual(s, again) {
				t.Errorf("get: %+v (%v), want %+v", again, err, s)
			}
		}
		if got := names(); !reflect.DeepEqual(got, []string{"z", "a b%2Fü?#", "m"}) {
			t.Errorf("list: %q", got)
		}
		if _, err := n.CreateSnapshot(ctx, remote.NewSnapshot{Name: "z"}); !errors.Is(err, store.ErrNameTaken) {
			t.Errorf("create again: %v", err)
		}
		if _, err := n.CreateSnapshot(ctx, remote.NewSnapshot{Name: "a/b"}); !errors.Is(err, store.ErrConfig) {
			t.Errorf("create with a bad name: %v", err)
		}
		held, to := true, "y"
		if err := n.EditSnapshot(ctx, "z", remote.SnapshotEdit{Held: &held}); err != nil {
			t.Error(err)
		}
		if err := n.RemoveSnapshot(ctx, "z"); !errors.Is(err, store.ErrHeld) {
			t.Errorf("remove a held one: %v", err)
		}
		if err := n.EditSnapshot(ctx, "a b%2Fü?#", remote.SnapshotEdit{Name: &to}); err != nil {
			t.Error(err)
		}
		for _, err := range []error{
			n.RemoveSnapshot(ctx, "none"), n.EditSnapshot(ctx, "none", remote.SnapshotEdit{Name: &to}),
			func() error { _, err := n.GetSnapshot(ctx, "none"); return err }(),
			func() error { _, err := n.Rollback(ctx, remote.RollbackRequest{Snapshot: "none"}); return err }(),
		} {
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("what is not there: %v", err)
			}
		}
		if err := n.RemoveSnapshot(ctx, "m"); err != nil {
			t.Error(err)
		}
		if got := names(); !reflect.DeepEqual(got, []string{"z", "y"}) {
			t.Errorf("list: %q", got)
		}
	})
}

func TestCloneRollbackPrune(t *testing.T) {
	eachOwner(t, func(t *testing.T, n remote.Node, v *volumeOf) {
		ctx := t.Context()
		for _, name := range []string{"a", "b", "c"} {
			tags := []string{"auto"}
			if name == "b" {
				tags = nil
			}
			if _, err := n.CreateSnapshot(ctx, remote.NewSnapshot{Name: name, Tags: tags}); err != nil {
				t.Fatal(err)
			}
		}
		want := remote.CloneRequest{Snapshot: "a", Path: "x/ü", To: "y z", Replace: true}
		made, err := n.Clone(ctx, want)
		if err != nil || made.To != want.To || len(v.cloned) != 1 || v.cloned[0] != want {
			t.Errorf("clone: %+v %+v, %v", made, v.cloned, err)
		}
		if _, err := n.Clone(ctx, remote.CloneRequest{Snapshot: "a", To: "taken"}); !errors.Is(err, store.ErrNameTaken) {
			t.Errorf("clone to a taken path: %v", err)
		}
		done, err := n.Rollback(ctx, remote.RollbackRequest{Snapshot: "a"})
		if err != nil || !strings.HasPrefix(done.Safety, "before-rollback_") || !reflect.DeepEqual(v.back, []string{"a"}) {
			t.Errorf("rollback: %+v %q, %v", done, v.back, err)
		}
		if _, err := n.GetSnapshot(ctx, done.Safety); err != nil {
			t.Error(err)
		}
		if done, err := n.Rollback(ctx, remote.RollbackRequest{Snapshot: "a", NoSafety: true}); err != nil || done.Safety != "" {
			t.Errorf("rollback without a snapshot: %+v, %v", done, err)
		}
		if _, err := n.Prune(ctx, remote.PruneRequest{}); !errors.Is(err, remote.ErrRequest) {
			t.Errorf("prune without a policy: %v", err)
		}
		keep := remote.PruneRequest{Policy: config.Retention{Last: 1}, Among: "auto", DryRun: true}
		for _, dry := range []bool{true, false} {
			keep.DryRun = dry
			verdicts, err := n.Prune(ctx, keep)
			if err != nil || len(verdicts) != 2 || verdicts[0].Name != "c" || !verdicts[0].Keep || verdicts[1].Name != "a" || verdicts[1].Keep {
				t.Errorf("prune: %+v, %v", verdicts, err)
			}
			_, err = n.GetSnapshot(ctx, "a")
			if gone := errors.Is(err, store.ErrNotFound); gone == dry {
				t.Errorf("prune, dry run %v: %v", dry, err)
			}
		}
		if _, err := n.GetSnapshot(ctx, "b"); err != nil {
			t.Errorf("prune took one that it was not to judge: %v", err)
		}
	})
}

// TestSafetySnapshot: what a failed restore or rollback has not changed leaves no snapshot; what it
// may have changed is named.
func TestSafetySnapshot(t *testing.T) {
	eachOwner(t, func(t *testing.T, n remote.Node, v *volumeOf) {
		ctx := t.Context()
		if _, err := n.CreateSnapshot(ctx, remote.NewSnapshot{Name: "a"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			fails error
			kept  bool
		}{
			{store.ErrNotFound, false},
			{store.ErrNameTaken, false},
			{store.ErrMounted, false},
			{remote.ErrRequest, false},
			{store.ErrFull, false},
			{store.ErrUnavailable, false},
			{context.Canceled, false},
			{fmt.Errorf("%w: %w", store.ErrUncommitted, store.ErrFull), true},
			{store.ErrCorrupt, true},
		} {
			v.fails = c.fails
			_, cloned := n.Clone(ctx, remote.CloneRequest{Snapshot: "a", To: "x", Replace: true})
			_, back := n.Rollback(ctx, remote.RollbackRequest{Snapshot: "a"})
			if cloned == nil || back == nil {
				t.Fatalf("%v: %v, %v", c.fails, cloned, back)
			}
			var left []string
			err := n.ListSnapshots(ctx, func(s remote.Snapshot) error {
				if s.Name == "a" {
					return nil
				}
				left = append(left, s.Name)
				if !strings.Contains(cloned.Error()+back.Error(), s.Name) {
					t.Errorf("%v: snapshot %s was left, but %v, %v", c.fails, s.Name, cloned, back)
				}
				return n.RemoveSnapshot(ctx, s.Name)
			})
			if err != nil || len(left) > 0 != c.kept {
				t.Errorf("%v: left %q, %v", c.fails, left, err)
			}
		}
	})
}

// TestSnapshotsOnlyByTheOwner: what is served to others makes and removes none.
func TestSnapshotsOnlyByTheOwner(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		c, ok := n.(*remote.Client)
		if !ok {
			return
		}
		if _, err := c.CreateSnapshot(t.Context(), remote.NewSnapshot{Name: "x"}); err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusMethodNotAllowed)) {
			t.Errorf("create over the network: %v", err)
		}
	})
}
