package carrier_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/store"
)

// A record is a register in memory.
type record struct {
	mu sync.Mutex
	is mirror.Record
}

var errDown = errors.New("the register is down")

func (r *record) Read(context.Context) (mirror.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.is, nil
}

func (r *record) Swap(_ context.Context, next mirror.Record) (mirror.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next.Stamp != r.is.Stamp {
		return r.is, carrier.ErrChanged
	}
	next.Stamp.Revision++
	r.is = next
	return r.is, nil
}

// A view is a node's way to the register.
type view struct{ *node }

func (v view) Read(ctx context.Context) (mirror.Record, error) {
	if v.cut.Load() {
		return mirror.Record{}, errDown
	}
	return v.register.Read(ctx)
}

func (v view) Swap(ctx context.Context, next mirror.Record) (mirror.Record, error) {
	if v.cut.Load() {
		return mirror.Record{}, errDown
	}
	return v.register.Swap(ctx, next)
}

// A lab is a volume and the nodes that may have it.
type lab struct {
	t        *testing.T
	register *record
	clock    atomic.Int64
	nodes    map[string]*node
	acked    map[string]string // objects, by name
	names    int
}

// A node has a copy, or the store.
type node struct {
	*lab
	name    string
	dir     string
	replica atomic.Pointer[carrier.Replica] // writers of other nodes look
	writer  *carrier.Writer
	store   *store.Store
	cut     atomic.Bool // nobody reaches it
	conns   sync.Map
}

// events is how many happen in TestRandomEvents. With a seed of another number others do. Of these
// each kind comes at least once, and the last one takes over, so that all is looked for; of the two
// takeovers one is from a writer whose disk is gone.
var (
	events = flag.Int("events", 7, "how many random events there are")
	seed   = flag.Uint64("seed", 49, "of the random events")
)

const volume = "0123456789abcdef0123456789abcdef"

func newLab(t *testing.T, names ...string) *lab {
	t.Parallel() // mostly they wait: for the disk, and for who was cut off
	l := &lab{t: t, register: &record{}, nodes: map[string]*node{}, acked: map[string]string{}}
	l.register.is.Stamp = mirror.Stamp{Generation: 7, Revision: 1}
	l.clock.Store(int64(time.Hour))
	for _, name := range names {
		l.nodes[name] = &node{lab: l, name: name, dir: filepath.Join(t.TempDir(), "store")}
	}
	t.Cleanup(func() {
		for _, n := range l.nodes {
			n.stop()
		}
	})
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) now() time.Duration { return time.Duration(l.clock.Load()) }

// open has the node follow.
func (n *node) open() {
	n.t.Helper()
	r, err := carrier.OpenReplica(n.dir, carrier.ReplicaOptions{
		Node: n.name, Volume: volume, MemTable: 8 << 20, Clock: n.now, Log: slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	n.must(err)
	n.replica.Store(r)
}

// dial reaches a node's copy, unless one of the two is cut off.
func (n *node) dial(ctx context.Context, name string) (net.Conn, error) {
	to := n.nodes[name]
	r := to.replica.Load()
	if n.cut.Load() || to.cut.Load() || r == nil {
		return nil, errors.New("no answer")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	ours, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	theirs, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	to.conns.Store(theirs, true)
	n.conns.Store(ours, true)
	go func() { _ = r.Serve(context.Background(), theirs) }()
	return ours, nil
}

// isolate cuts a node off, or joins it again.
func (n *node) isolate(cut bool) {
	n.cut.Store(cut)
	n.conns.Range(func(c, _ any) bool {
		_ = c.(net.Conn).Close()
		n.conns.Delete(c)
		return true
	})
}

// write makes the node's copy the store.
func (n *node) write(strict bool, mirrors ...string) {
	n.t.Helper()
	w, err := n.replica.Load().Promote(n.t.Context(), carrier.WriterOptions{
		Register: view{n}, Dial: n.dial, Mirrors: mirrors, Degrade: 500 * time.Millisecond, Strict: strict,
	})
	n.must(err)
	n.replica.Store(nil)
	n.writer = w
	n.store, err = store.Open(n.dir, store.Options{
		Disk: w, Follower: w, MemTable: 8 << 20, Ballast: -1, SweepInterval: -1, CommitInterval: time.Hour,
	})
	n.must(err)
	w.Attach(n.store)
}

// stop ends what runs, with what was not acknowledged.
func (n *node) stop() {
	n.isolate(n.cut.Load())
	if n.writer != nil {
		n.writer.Close()
	}
	if n.store != nil {
		_ = n.store.Close() // it cannot commit any more
	}
	if r := n.replica.Swap(nil); r != nil {
		_ = r.Close()
	}
	n.writer, n.store = nil, nil
}

// put stores objects, and counts them as acknowledged when the commit was.
func (n *node) put(random *rand.Rand, objects int) error {
	put := make(map[string]string)
	for range objects {
		n.names++
		b := make([]byte, 1+random.IntN(100_000))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		name := fmt.Sprintf("object-%d", n.names)
		if _, err := n.store.Ingest(context.Background(), bytes.NewReader(b), name); err != nil {
			return err
		}
		put[name] = string(b)
	}
	if err := n.store.Commit(); err != nil {
		return err
	}
	maps.Copy(n.acked, put)
	return nil
}

// hasAll requires every acknowledged object, whole, and a store that is well.
func (n *node) hasAll() {
	n.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(n.acked)) {
		var b bytes.Buffer
		if err := n.store.Fetch(context.Background(), name, 0, -1, &b); err != nil || b.String() != n.acked[name] {
			n.t.Fatalf("%s: %s, which was acknowledged, has %d of %d bytes: %v", n.name, name, b.Len(), len(n.acked[name]), err)
		}
	}
	report, err := n.store.Check(context.Background(), store.CheckOptions{})
	n.must(err)
	if report.Count > 0 {
		n.t.Fatalf("%s: %v", n.name, report.Problems)
	}
}

// inSync waits until the register names exactly these.
func (l *lab) inSync(names ...string) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		l.register.mu.Lock()
		var is []string
		for _, m := range l.register.is.InSync {
			if r := l.nodes[m.Node].replica.Load(); r == nil || r.Self() == m { // else of a disk of before
				is = append(is, m.Node)
			}
		}
		l.register.mu.Unlock()
		if slices.Equal(is, names) {
			return
		}
		if time.Now().After(deadline) {
			for _, n := range l.nodes {
				if n.writer != nil {
					l.t.Logf("%s knows %+v", n.name, n.writer.State())
				}
			}
			l.t.Fatalf("in sync are %v, and not %v", is, names)
		}
	}
}

// found makes the volume on a node.
func (l *lab) found(name string) *node {
	n := l.nodes[name]
	conf := store.DefaultConfig()
	conf.SegmentSize = 1 << 20
	l.must(store.Init(n.dir, conf))
	n.open()
	l.register.is.InSync = []mirror.Member{n.replica.Load().Self()}
	return n
}

// A writer that is cut off acknowledges nothing more, and says so when another one writes; what it
// had acknowledged before is there.
func TestFencedWriter(t *testing.T) {
	l := newLab(t, "a", "b")
	random := rand.New(rand.NewPCG(2, 2))
	a, b := l.found("a"), l.nodes["b"]
	a.write(false, "b")
	b.open()
	l.inSync("a", "b")
	l.must(a.put(random, 3))
	a.isolate(true)
	stalled := make(chan error)
	before := maps.Clone(l.acked)
	go func() { stalled <- a.put(rand.New(rand.NewPCG(3, 3)), 2) }()
	l.clock.Add(int64(mirror.Grant))
	if a.writer.MayServe() {
		t.Error("it serves without a vow")
	}
	b.write(false, "a")
	a.isolate(false)
	if err := <-stalled; !errors.Is(err, carrier.ErrFenced) {
		t.Fatalf("a former writer's commit: %v", err)
	}
	if !maps.Equal(before, l.acked) {
		t.Fatal("it was acknowledged")
	}
	if err := a.store.Commit(); err == nil {
		t.Error("a former writer commits")
	}
	b.hasAll()
	a.stop()
	a.open() // with a commit that nobody else has
	l.inSync("a", "b")
	l.must(b.put(random, 2))
	b.stop()
	l.clock.Add(int64(mirror.Grant))
	a.write(false)
	a.hasAll()
}

// Whatever happens to copies and connections, the copy that takes over has what was acknowledged.
func TestRandomEvents(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	random := rand.New(rand.NewPCG(*seed, *seed))
	names := []string{"a", "b", "c"}
	others := func(but *node) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == but.name })
	}
	writer := l.found("a")
	writer.write(false, others(writer)...)
	l.nodes["b"].open()
	l.nodes["c"].open()
	for range *events {
		other := l.nodes[others(writer)[random.IntN(2)]]
		switch event := random.IntN(5); event {
		case 0: // its connections break
			other.isolate(false)
		case 1:
			other.isolate(!other.cut.Load())
		case 2: // it is killed, and comes back
			other.stop()
			other.open()
		case 3: // with an empty disk
			other.stop()
			l.must(os.RemoveAll(other.dir))
			other.open()
		case 4:
			for _, name := range names {
				l.nodes[name].isolate(false)
			}
			l.inSync(names...)
			l.must(writer.put(random, 1))
			writer.stop()
			if random.IntN(2) == 0 {
				l.must(os.RemoveAll(writer.dir))
			}
			writer.open()
			l.clock.Add(int64(mirror.Grant))
			writer = other
			writer.write(false, others(writer)...)
			writer.hasAll()
		}
		l.must(writer.put(random, random.IntN(4)))
	}
}

// What was acknowledged while a copy was in sync is on that copy when the writer and its disk are
// gone, and the other way round, again and again.
func TestNothingIsLost(t *testing.T) {
	l := newLab(t, "a", "b")
	random := rand.New(rand.NewPCG(1, 1))
	from, to := l.found("a"), l.nodes["b"]
	from.write(false, "b")
	l.must(from.put(random, 5)) // before there is a copy
	for round := range 2 {
		to.open()
		l.inSync("a", "b")
		for range 3 {
			l.must(from.put(random, 1+random.IntN(8)))
		}
		from.stop()
		l.must(os.RemoveAll(from.dir))
		if _, err := to.replica.Load().Promote(t.Context(), carrier.WriterOptions{Register: l.register}); !errors.Is(err, carrier.ErrMayNot) {
			t.Fatalf("the vow is not over: %v", err)
		}
		l.clock.Add(int64(mirror.Grant))
		to.write(false, from.name)
		to.hasAll()
		if round == 0 && len(l.acked) == 0 {
			t.Fatal("nothing was written")
		}
		from, to = to, from
	}
}
