package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// fastDir is a directory in memory where there is one: what is tested here is
// the order of operations, and the copies that crashes make are many.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "quarxfs-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// keyHeld is the prefix of the test's own rows: block ID -> references that the
// test holds, as a volume's extents would.
const keyHeld = 'T'

// A contents is what a store must hold.
type contents struct {
	objects map[string][]byte
	held    map[ID]uint64
}

func (c contents) clone() contents {
	return contents{maps.Clone(c.objects), maps.Clone(c.held)}
}

// storeModel runs a store beside a model of it.
type storeModel struct {
	t         *rapid.T
	root      string
	opened    int
	f         *faultStore
	now       contents
	committed contents
}

var modelNames = []string{"a", "b", "c", ""}

// modelData has what objects are made of: much of it shared, some of it zeroes.
func modelData(t *rapid.T) []byte {
	var data []byte
	for range rapid.IntRange(0, 4).Draw(t, "parts") {
		n := rapid.SampledFrom([]int{1, 100, 3000, 60_000}).Draw(t, "length")
		if seed := rapid.IntRange(0, 4).Draw(t, "seed"); seed > 0 {
			data = append(data, randomBytes(uint64(seed), n)...)
		} else {
			data = append(data, make([]byte, n)...)
		}
	}
	return data
}

func (m *storeModel) ingest(t *rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(t, "name")
	data := modelData(t)
	o, err := m.f.Ingest(ctx, bytes.NewReader(data), name, Replace)
	if err != nil {
		t.Fatal(err)
	}
	m.now.objects[o.Name] = data
	m.committed = m.now.clone()
}

// objectName chooses an object; t.Skip has rapid take another action.
func (m *storeModel) objectName(t *rapid.T) string {
	if len(m.now.objects) == 0 {
		t.Skip("no objects")
	}
	names := make([]string, 0, len(m.now.objects))
	for name := range m.now.objects {
		names = append(names, name)
	}
	return rapid.SampledFrom(sortedStrings(names)).Draw(t, "name")
}

func (m *storeModel) delete(t *rapid.T) {
	name := m.objectName(t)
	if err := m.f.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	delete(m.now.objects, name)
	m.committed = m.now.clone()
}

func (m *storeModel) fetch(t *rapid.T) {
	name := m.objectName(t)
	data := m.now.objects[name]
	off := rapid.IntRange(0, len(data)).Draw(t, "off")
	n := rapid.IntRange(0, len(data)-off).Draw(t, "n")
	var got bytes.Buffer
	if err := m.f.Fetch(ctx, name, int64(off), int64(n), &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data[off:off+n]) {
		t.Fatalf("%s has other bytes", name)
	}
}

// hold and releaseHeld change references in the way of a volume: rows and counts in
// one Update, durable with the next commit.
func (m *storeModel) hold(t *rapid.T) {
	plain := randomBytes(uint64(rapid.IntRange(1, 40).Draw(t, "block")), 500)
	release := m.f.Hold()
	defer release()
	id, err := m.f.Put(segment.Data, plain)
	if err != nil {
		t.Fatal(err)
	}
	m.change(id, 1)
}

func (m *storeModel) releaseHeld(t *rapid.T) {
	if len(m.now.held) == 0 {
		t.Skip("nothing held")
	}
	ids := make([]string, 0, len(m.now.held))
	for id := range m.now.held {
		ids = append(ids, string(id[:]))
	}
	m.change(ID([]byte(rapid.SampledFrom(sortedStrings(ids)).Draw(t, "block"))), -1)
}

func (m *storeModel) change(id ID, delta int64) {
	_ = m.f.Update(func() error {
		m.now.held[id] += uint64(delta)
		m.f.Ref(id, delta)
		if m.now.held[id] == 0 {
			delete(m.now.held, id)
			m.f.DB().Delete(blockKey(keyHeld, id))
			return nil
		}
		m.f.DB().Set(blockKey(keyHeld, id), binary.AppendUvarint(nil, m.now.held[id]))
		return nil
	})
}

// put leaves a block that nothing refers to.
func (m *storeModel) put(t *rapid.T) {
	if _, err := m.f.Put(segment.Data, randomBytes(uint64(rapid.IntRange(1, 60).Draw(t, "block")), 500)); err != nil {
		t.Fatal(err)
	}
}

func (m *storeModel) commit(t *rapid.T) {
	if err := m.f.Commit(); err != nil {
		t.Fatal(err)
	}
	m.committed = m.now.clone()
}

func (m *storeModel) compact(t *rapid.T) {
	if n, ok := m.f.tiers.Active(rapid.SampledFrom([]uint8{tiering.Hot, tiering.Cold}).Draw(t, "tier")); ok && rapid.Bool().Draw(t, "seal") {
		if err := m.f.tiers.Seal(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	m.sweep(t)
	if _, err := m.f.Compact(ctx, CompactOptions{MinLive: maxMinLive}); err != nil {
		t.Fatal(err)
	}
}

// shift brings some blocks into another tier.
func (m *storeModel) shift(t *rapid.T) {
	if _, ok := m.f.Cold(); !ok {
		if err := m.f.AddCold("/" + filepath.Base(m.root) + "/cold"); err != nil {
			t.Fatal(err)
		}
	}
	to := rapid.SampledFrom([]uint8{tiering.Hot, tiering.Cold, tiering.Cold}).Draw(t, "to")
	some := byte(rapid.SampledFrom([]int{0x40, 0xa0, 0xff}).Draw(t, "some"))
	var ids []ID
	err := m.f.DB().ScanPrefix([]byte{keyBlock}, func(key, _ []byte) error {
		if key[1] <= some {
			ids = append(ids, ID(key[1:]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if moved, err := m.f.Move(ctx, to, ids, MoveOptions{}); err != nil || moved.Unreadable > 0 {
		t.Fatalf("move: %+v, %v", moved, err)
	}
	m.commit(t)
}

// keep has the tier manager do one round under a policy that makes it move.
func (m *storeModel) keep(t *rapid.T) {
	k := &tierManager{s: &m.f.tierManagement, o: TierManagerOptions{Busy: func() string { return "" }}}
	k.follow(TierPolicy{Limit: int64(rapid.SampledFrom([]int{1 << 10, 100 << 10, 1 << 20}).Draw(t, "limit")), MinAge: -1}.WithDefaults(), tiering.NewHeat(0))
	for id := range m.now.held {
		m.f.hot.mu.wanted[id] = struct{}{}
		for i := range uint32(3) {
			m.f.hot.heat.Load().heat.Touch(id, uint32(m.f.opts.Now().Unix())-100+20*i, 3600)
		}
	}
	defer k.follow(TierPolicy{}, nil)
	if err := k.round(ctx); err != nil {
		t.Fatal(err)
	}
	m.commit(t)
}

func (m *storeModel) scrub(t *rapid.T) {
	if r, err := m.f.Scrub(ctx, ScrubOptions{}); err != nil || r.Bad > 0 || len(r.Segments) > 0 {
		t.Fatalf("scrub: %+v, %v", r, err)
	}
	m.committed = m.now.clone()
}

func (m *storeModel) sweep(t *rapid.T) {
	if _, err := m.f.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	m.committed = m.now.clone()
}

func (m *storeModel) reopen(t *rapid.T) {
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	m.committed = m.now.clone()
	m.f = &faultStore{m.openAt(t, m.f.dir, m.f), m.f.dir, m.f.disk}
}

func (m *storeModel) openAt(t *rapid.T, dir string, f *faultStore) *Store {
	s, err := Open(dir, faultOptions(f.disk))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (m *storeModel) crash(t *rapid.T) {
	m.opened++
	to := filepath.Join(m.root, fmt.Sprint(m.opened))
	if err := copyStore(m.f.dir, to); err != nil {
		t.Fatal(err)
	}
	image := &faultStore{nil, to, m.f.disk.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))}
	m.f.Close() // what it commits does not reach the copy
	os.RemoveAll(m.f.dir)
	image.Store = m.openAt(t, to, image)
	m.f = image
	m.now = m.committed.clone()
	m.verify(t)
}

// failSync has the next commit meet a segment that cannot be synced.
func (m *storeModel) failSync(t *rapid.T) {
	fired := false
	m.f.disk.Fail(func(op faultdisk.Op) error {
		if op.Name != "datasync" || fired {
			return nil
		}
		fired = true
		return errors.New("injected")
	})
	defer m.f.disk.Fail(nil)
	m.commit(t)
}

// verify compares all that the store holds with the model, and checks its
// invariants.
func (m *storeModel) verify(t *rapid.T) {
	wrong := m.wrongObjects()
	report, err := m.f.Check(ctx, CheckOptions{Data: true, Holders: []func(context.Context, func(ID)) error{m.refs}})
	if err != nil {
		t.Fatal(err)
	}
	m.committed = m.now.clone() // Check commits
	for _, p := range report.Problems {
		wrong = append(wrong, "check: "+p.String())
	}
	held := make(map[ID]uint64)
	if err := m.refs(ctx, func(id ID) { held[id]++ }); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(held, m.now.held) {
		wrong = append(wrong, fmt.Sprintf("holds %v, want %v", held, m.now.held))
	}
	for id := range m.now.held {
		if _, err := m.f.Get(ctx, id); err != nil {
			wrong = append(wrong, fmt.Sprintf("a held block: %v", err))
		}
	}
	if len(wrong) > 0 {
		t.Fatal(strings.Join(wrong, "; "))
	}
}

func (m *storeModel) wrongObjects() (wrong []string) {
	var got int
	err := m.f.Objects(ctx, "", func(o ObjectInfo) error {
		got++
		data, ok := m.now.objects[o.Name]
		if !ok || o.Size != int64(len(data)) {
			wrong = append(wrong, fmt.Sprintf("object %q of %d bytes, want %d", o.Name, o.Size, len(data)))
			return nil
		}
		var b bytes.Buffer
		if err := m.f.Fetch(ctx, o.Name, 0, -1, &b); err != nil || !bytes.Equal(b.Bytes(), data) {
			wrong = append(wrong, fmt.Sprintf("object %q has other bytes: %v", o.Name, err))
		}
		return nil
	})
	if err != nil || got != len(m.now.objects) {
		wrong = append(wrong, fmt.Sprintf("%d objects, want %d: %v", got, len(m.now.objects), err))
	}
	return wrong
}

func (m *storeModel) refs(_ context.Context, ref func(ID)) error {
	return m.f.DB().ScanPrefix([]byte{keyHeld}, func(key, value []byte) error {
		n, _ := binary.Uvarint(value)
		for range n {
			ref(ID(key[1:]))
		}
		return nil
	})
}

// TestStoreAgainstModel runs random operations, crashes and faults.
func TestStoreAgainstModel(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() == checks.DefValue { // 100, of which each opens many stores
		n := "12"
		if testing.Short() {
			n = "4"
		}
		if err := checks.Value.Set(n); err != nil {
			t.Fatal(err)
		}
		defer checks.Value.Set(checks.DefValue)
	}
	root := fastDir(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		m := &storeModel{t: rt, root: filepath.Join(root, fmt.Sprint(round)), now: contents{make(map[string][]byte), make(map[ID]uint64)}}
		defer os.RemoveAll(m.root)
		m.committed = m.now.clone()
		m.f = initFaultStore(t, filepath.Join(m.root, "0"), smallConfig())
		defer func() { m.f.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"ingest": m.ingest, "delete": m.delete, "fetch": m.fetch,
			"hold": m.hold, "releaseHeld": m.releaseHeld, "put": m.put,
			"hold more": m.hold, "let more go": m.releaseHeld,
			"commit": m.commit, "sweep": m.sweep, "compact": m.compact, "shift": m.shift, "shift back": m.shift, "keep": m.keep, "scrub": m.scrub, "reopen": m.reopen, "crash": m.crash, "failSync": m.failSync,
			"verify": m.verify,
		})
		m.verify(rt)
	})
}

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}
