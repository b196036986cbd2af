package registertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// patience is how long a test waits for what must come; nothing is judged by it.
const patience = time.Minute

// Test runs the suite. open returns a further client of one and the same register, which the
// suite closes; keys of the suite begin with the name of its tests.
func Test(t *testing.T, open func(t *testing.T) register.Register) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, a, b register.Register, at string)
	}{
		{"values", testValues},
		{"conditions", testConditions},
		{"whole", testWhole},
		{"bad", testBad},
		{"list", testList},
		{"watch", testWatch},
		{"race", testRace},
		{"lease", testLease},
		{"closed context", testContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			var clients [2]register.Register
			for i := range clients {
				clients[i] = open(t)
				t.Cleanup(func() { clients[i].Close() })
			}
			test.run(t, clients[0], clients[1], "test "+test.name+"/")
		})
	}
}

func put(t *testing.T, r register.Register, key, value string) int64 {
	t.Helper()
	revision, err := r.Commit(t.Context(), register.Txn{Put: []register.Entry{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return revision
}

func get(t *testing.T, r register.Register, key string) register.Entry {
	t.Helper()
	e, err := r.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return e
}

func gone(t *testing.T, r register.Register, key string) {
	t.Helper()
	if e, err := r.Get(t.Context(), key); !errors.Is(err, register.ErrNotFound) {
		t.Errorf("get %s: %v, %v; want ErrNotFound", key, e, err)
	}
}

func testValues(t *testing.T, a, b register.Register, at string) {
	gone(t, a, at+"k")
	last := int64(0)
	for _, value := range []string{"one", "", "\x00\xff", "one"} {
		revision := put(t, a, at+"k", value)
		if revision <= last {
			t.Errorf("revision %d after %d", revision, last)
		}
		last = revision
		want := register.Entry{Key: at + "k", Value: []byte(value), Revision: revision}
		if got := get(t, b, at+"k"); string(got.Value) != value || got.Key != want.Key || got.Revision != revision {
			t.Errorf("another client sees %v, want %v", got, want)
		}
	}
	if _, err := a.Commit(t.Context(), register.Txn{Delete: []string{at + "k", at + "never"}}); err != nil {
		t.Error(err)
	}
	gone(t, b, at+"k")
}

func testConditions(t *testing.T, a, b register.Register, at string) {
	cas := func(r register.Register, revision int64, value string) error {
		_, err := r.Commit(t.Context(), register.Txn{
			If:  []register.Condition{{Key: at + "k", Revision: revision}},
			Put: []register.Entry{{Key: at + "k", Value: []byte(value)}},
		})
		return err
	}
	if err := cas(a, 0, "first"); err != nil {
		t.Fatal(err)
	}
	first := get(t, a, at+"k").Revision
	for _, revision := range []int64{0, first - 1, first + 1} {
		if err := cas(b, revision, "wrong"); !errors.Is(err, register.ErrConflict) {
			t.Errorf("commit upon revision %d of %d: %v", revision, first, err)
		}
	}
	if err := cas(b, first, "second"); err != nil {
		t.Error(err)
	}
	if err := cas(a, first, "late"); !errors.Is(err, register.ErrConflict) {
		t.Errorf("a second commit upon the same revision: %v", err)
	}
	if got := string(get(t, a, at+"k").Value); got != "second" {
		t.Errorf("value %q", got)
	}
	// A key that was deleted and made again is not what it was.
	if _, err := a.Commit(t.Context(), register.Txn{Delete: []string{at + "k"}}); err != nil {
		t.Fatal(err)
	}
	put(t, a, at+"k", "second")
	if err := cas(b, first, "late"); !errors.Is(err, register.ErrConflict) {
		t.Errorf("a commit upon the revision of a deleted key: %v", err)
	}
}

func testWhole(t *testing.T, a, b register.Register, at string) {
	known := put(t, a, at+"known", "1")
	put(t, a, at+"old", "1")
	txn := register.Txn{
		If:     []register.Condition{{Key: at + "known", Revision: known}, {Key: at + "new", Revision: 0}},
		Put:    []register.Entry{{Key: at + "new", Value: []byte("2")}, {Key: at + "known", Value: []byte("2")}},
		Delete: []string{at + "old"},
	}
	revision, err := b.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"new", "known"} {
		if e := get(t, a, at+key); string(e.Value) != "2" || e.Revision != revision {
			t.Errorf("%s is %q of revision %d, want 2 of %d", key, e.Value, e.Revision, revision)
		}
	}
	gone(t, a, at+"old")
	put(t, a, at+"old", "again")
	if _, err := a.Commit(t.Context(), txn); !errors.Is(err, register.ErrConflict) {
		t.Errorf("again: %v", err)
	}
	get(t, a, at+"old") // nothing of it was done
}

func testBad(t *testing.T, a, _ register.Register, at string) {
	entry := register.Entry{Key: at + "k", Value: []byte("x")}
	for name, txn := range map[string]register.Txn{
		"empty":            {},
		"conditions alone": {If: []register.Condition{{Key: at + "k"}}},
		"put twice":        {Put: []register.Entry{entry, entry}},
		"put and deleted":  {Put: []register.Entry{entry}, Delete: []string{at + "k"}},
		"no key":           {Put: []register.Entry{{}}},
		"deletes no key":   {Delete: []string{""}},
	} {
		if _, err := a.Commit(t.Context(), txn); err == nil || errors.Is(err, register.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone(t, a, at+"k")
}

func testList(t *testing.T, a, b register.Register, at string) {
	for _, key := range []string{"n/b", "n/a", "n/a/deeper", "nn/x", "m"} {
		put(t, a, at+key, key)
	}
	entries, revision, err := b.List(t.Context(), at+"n/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key+"="+string(e.Value))
		if e.Revision > revision {
			t.Errorf("%s is of revision %d, and the list of %d", e.Key, e.Revision, revision)
		}
	}
	want := []string{at + "n/a=n/a", at + "n/a/deeper=n/a/deeper", at + "n/b=n/b"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	if entries, _, err := b.List(t.Context(), at+"none/"); err != nil || len(entries) > 0 {
		t.Errorf("a list of nothing: %v, %v", entries, err)
	}
}

func testWatch(t *testing.T, a, b register.Register, at string) {
	put(t, a, at+"before", "1")
	_, revision, err := b.List(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	var want []register.Event
	for i := range 20 {
		value := fmt.Sprint(i)
		r := put(t, a, at+"k", value)
		want = append(want, register.Event{Entry: register.Entry{Key: at + "k", Value: []byte(value), Revision: r}})
		put(t, a, "elsewhere "+at, value)
	}
	r, err := a.Commit(t.Context(), register.Txn{Delete: []string{at + "k"}})
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, register.Event{Entry: register.Entry{Key: at + "k", Revision: r}, Deleted: true})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := b.Watch(ctx, at, revision)
	var got []register.Event
	for len(got) < len(want) {
		got = append(got, receive(t, events))
	}
	r = put(t, a, at+"late", "x") // comes while it is watched
	want = append(want, register.Event{Entry: register.Entry{Key: at + "late", Value: []byte("x"), Revision: r}})
	got = append(got, receive(t, events))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	for range events { // ends, or the test does not
	}
}

func receive(t *testing.T, events <-chan register.Event) register.Event {
	t.Helper()
	select {
	case ev, ok := <-events:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return ev
	case <-time.After(patience):
		t.Fatal("no event")
	}
	panic("not reached")
}

// testRace lets many count in one value and in one list: none may be lost.
func testRace(t *testing.T, a, b register.Register, at string) {
	const each, workers = 10, 6
	var wg sync.WaitGroup
	for w := range workers {
		r := []register.Register{a, b}[w%2]
		wg.Go(func() {
			for i := range each {
				mine := fmt.Sprintf("%d.%d ", w, i)
				_, err := register.Update(t.Context(), r, at+"sum", func(e register.Entry) ([]byte, error) {
					return append(slices.Clone(e.Value), mine...), nil
				})
				if err != nil {
					t.Errorf("%s: %v", mine, err)
				}
			}
		})
	}
	wg.Wait()
	var got []string
	last := make(map[byte]byte)
	for _, word := range slices.Collect(fields(get(t, a, at+"sum").Value)) {
		got = append(got, word)
		if i, ok := last[word[0]]; ok && word[2] != i+1 {
			t.Errorf("%s comes after %d of the same worker", word, i-'0')
		}
		last[word[0]] = word[2]
	}
	if len(got) != each*workers {
		t.Errorf("%d of %d were kept: %q", len(got), each*workers, got)
	}
}

func fields(b []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(b) >= 4 {
			if !yield(string(b[:3])) {
				return
			}
			b = b[4:]
		}
	}
}

func testLease(t *testing.T, a, b register.Register, at string) {
	lease, err := a.Lease(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Put(t.Context(), at+"alive", []byte("1")); err != nil {
		t.Fatal(err)
	}
	e := get(t, b, at+"alive")
	put(t, a, at+"other", "stays")
	// It is kept up for longer than it would last by itself.
	time.Sleep(3 * time.Second)
	if err := lease.Put(t.Context(), at+"alive", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if again := get(t, b, at+"alive"); again.Revision <= e.Revision || string(again.Value) != "2" {
		t.Errorf("after a while: %v", again)
	}
	if err := lease.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, b, at+"alive")
	get(t, b, at+"other")
	select {
	case <-lease.Lost():
	case <-time.After(patience):
		t.Error("a closed lease does not say that it is lost")
	}
	if err := lease.Put(t.Context(), at+"alive", []byte("3")); !errors.Is(err, register.ErrLeaseLost) {
		t.Errorf("put under a closed lease: %v", err)
	}
	gone(t, b, at+"alive")
}

func testContext(t *testing.T, a, _ register.Register, at string) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Get(ctx, at+"k"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := a.List(ctx, at); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	_, err := a.Commit(ctx, register.Txn{Put: []register.Entry{{Key: at + "k"}}})
	if !errors.Is(err, context.Canceled) && !errors.Is(err, register.ErrUncertain) {
		t.Errorf("commit: %v", err)
	}
	for range a.Watch(ctx, at, 0) {
		t.Error("an event of a watch that has ended")
	}
}
