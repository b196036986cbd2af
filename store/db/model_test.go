package db

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// edits are changes by key; nil deletes.
type edits map[string]*string

func (e edits) over(rows map[string]string) map[string]string {
	rows = maps.Clone(rows)
	for k, v := range e {
		if v == nil {
			delete(rows, k)
		} else {
			rows[k] = *v
		}
	}
	return rows
}

// model is a database as three maps.
type model struct {
	opt     Options
	d       *DB
	full    atomic.Bool
	active  edits
	frozen  edits
	durable map[string]string
}

func (m *model) visible() map[string]string {
	return m.active.over(m.frozen.over(m.durable))
}

func (m *model) open(t *rapid.T) {
	d, err := Open(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	// Few rows a transaction, so that most layers need several.
	d.maxRows = 6
	setFree(d, func(path string) (int64, error) {
		if m.full.Load() {
			return 0, nil
		}
		return freeBytes(path)
	})
	m.d = d
}

var (
	anyKey   = rapid.StringMatching(`[ab]{1,3}|[a-c]\xff{0,2}`)
	anyValue = rapid.SampledFrom([]string{"", "1", "2", strings.Repeat("x", 5000)})
)

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"set": func(t *rapid.T) {
			k, v := anyKey.Draw(t, "key"), anyValue.Draw(t, "value")
			m.d.Set([]byte(k), []byte(v))
			m.active[k] = &v
		},
		"delete": func(t *rapid.T) {
			k := anyKey.Draw(t, "key")
			m.d.Delete([]byte(k))
			m.active[k] = nil
		},
		"apply": func(t *rapid.T) { m.d.Apply(drawBatch(t, m.active)) },
		"get": func(t *rapid.T) {
			k := anyKey.Draw(t, "key")
			got, err := m.d.Get([]byte(k))
			want, ok := m.visible()[k]
			if ok != (err == nil) || string(got) != want || (err != nil && !errors.Is(err, ErrNotFound)) {
				t.Fatalf("get %q: %q %v, want %q %v", k, got, err, want, ok)
			}
		},
		"scan": func(t *rapid.T) {
			m.same(t, anyKey.Draw(t, "from"), anyKey.Draw(t, "to"))
		},
		"prefix": func(t *rapid.T) {
			p := rapid.StringMatching(`[abc]?`).Draw(t, "prefix")
			end := string(prefixEnd([]byte(p)))
			if end == "" {
				end = "\xff\xff"
			}
			m.same(t, p, end)
		},
		"freeze": func(*rapid.T) { m.freeze() },
		"layer":  func(t *rapid.T) { m.layer(t) },
		"write":  m.write,
		"compact": func(t *rapid.T) {
			if _, err := m.d.Compact(); err != nil {
				t.Fatal(err)
			}
		},
		"reopen": func(t *rapid.T) {
			if err := m.d.Close(); err != nil {
				t.Fatal(err)
			}
			m.open(t)
			m.active, m.frozen = edits{}, edits{}
			m.same(t, "", "\xff\xff")
		},
	}
}

// layer keeps the next commit from being merged into the layer before it, or
// carries all of them into Badger.
func (m *model) layer(t *rapid.T) {
	if rapid.Bool().Draw(t, "checkpoint") {
		if err := m.d.drainLog(); err != nil {
			t.Fatal(err)
		}
		return
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.d.mu.applying = len(m.d.mu.logged) > 0
}

func (m *model) freeze() {
	m.d.Freeze()
	maps.Copy(m.frozen, m.active)
	m.active = edits{}
}

// write sometimes finds the disk full; then nothing may become durable.
func (m *model) write(t *rapid.T) {
	if rapid.Bool().Draw(t, "freeze first") {
		m.freeze()
	}
	extra := drawBatch(t, m.frozen)
	full := rapid.IntRange(0, 2).Draw(t, "full") == 0
	m.full.Store(full)
	err := m.d.Write(extra)
	if full && len(m.frozen) > 0 {
		if !errors.Is(err, ErrFull) {
			t.Fatalf("write to a full disk: %v", err)
		}
	} else if err != nil {
		t.Fatal(err)
	} else {
		m.durable = m.frozen.over(m.durable)
		m.frozen = edits{}
	}
	m.full.Store(false)
}

func drawBatch(t *rapid.T, into edits) *Batch {
	b := new(Batch)
	for range rapid.IntRange(0, 10).Draw(t, "rows") {
		k := anyKey.Draw(t, "key")
		if rapid.Bool().Draw(t, "delete") {
			b.Delete([]byte(k))
			into[k] = nil
			continue
		}
		v := anyValue.Draw(t, "value")
		b.Set([]byte(k), []byte(v))
		into[k] = &v
	}
	return b
}

func (m *model) same(t *rapid.T, from, to string) {
	want := m.visible()
	var got, expect []string
	err := m.d.Scan([]byte(from), []byte(to), func(k, v []byte) error {
		got = append(got, fmt.Sprintf("%q=%.9q", k, v))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if k >= from && k < to {
			expect = append(expect, fmt.Sprintf("%q=%.9q", k, want[k]))
		}
	}
	if !slices.Equal(got, expect) {
		t.Fatalf("scan %q to %q: %v, want %v", from, to, got, expect)
	}
}

func TestModel(t *testing.T) {
	root := fastDir(t)
	var n int
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{
			opt:    smallOptions(filepath.Join(root, fmt.Sprint(n))),
			active: edits{}, frozen: edits{}, durable: map[string]string{},
		}
		m.open(t)
		defer func() {
			if err := m.d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(m.opt.Dir); err != nil {
				t.Fatal(err)
			}
		}()
		t.Repeat(m.actions())
	})
}
