package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/latency"
)

// Totals are sums over the index, kept up to date by every commit. Histogram
// buckets: Sizes and Refs by power of two (bucket i holds [2^(i-1), 2^i)),
// Entropies by half a bit a byte.
type Totals struct {
	Blocks     [5]int64  `json:"blocks"` // by tiering.Kind; of names at 0
	Raw        [5]int64  `json:"raw_bytes"`
	Stored     [5]int64  `json:"stored_bytes"`
	Zero       int64     `json:"unreferenced_blocks"`
	ZeroStored int64     `json:"unreferenced_stored_bytes"`
	Referenced int64     `json:"referenced_bytes"` // raw bytes times references, of data blocks
	Sizes      [25]int64 `json:"size_histogram"`
	Refs       [33]int64 `json:"refcount_histogram"`
	Entropies  [17]int64 `json:"entropy_histogram"`
	Objects    objects   `json:"objects"`
	Appended   Appended  `json:"appended"`
	ZeroRaw    [5]int64  `json:"unreferenced_raw_bytes"` // by tiering.Kind
}

// brief says what most differences show in; the rows have the rest.
func (t *Totals) brief() string {
	var blocks, raw, stored int64
	for i := range t.Blocks {
		blocks, raw, stored = blocks+t.Blocks[i], raw+t.Raw[i], stored+t.Stored[i]
	}
	return fmt.Sprintf("%d blocks of %d bytes, stored in %d, %d of them without a reference, and %d objects",
		blocks, raw, stored, t.Zero, t.Objects.Count)
}

// Appended is what was stored since the store was made: data blocks that were
// new when they came, whether or not they are still there. Those from other stores do not count:
// the snapshots that came with them say that they were new.
type Appended struct {
	Blocks  int64 `json:"blocks"`
	Raw     int64 `json:"raw_bytes"`
	Stored  int64 `json:"stored_bytes"`
	Entropy int64 `json:"entropy"` // sum of plain bytes times entropy, in 1/255 of 8 bits a byte
}

func (a *Appended) add(e Entry) {
	if e.Kind != tiering.Data {
		return
	}
	a.Blocks++
	a.Raw += int64(e.Raw)
	a.Stored += e.Stored()
	a.Entropy += int64(e.Raw) * int64(e.Entropy)
}

// Since returns what was stored after an earlier value.
func (a Appended) Since(earlier Appended) Appended {
	return Appended{a.Blocks - earlier.Blocks, a.Raw - earlier.Raw, a.Stored - earlier.Stored, a.Entropy - earlier.Entropy}
}

// EntropyMilli is the mean entropy, in 1/1000 bit a byte.
func (a Appended) EntropyMilli() int64 {
	if a.Raw <= 0 {
		return 0
	}
	return min(8000, int64(float64(a.Entropy)/float64(a.Raw)*8000/255+0.5))
}

type objects struct {
	Count int64 `json:"count"` // names
	Bytes int64 `json:"bytes"` // of the objects, each counted for each name
}

func (o *objects) add(size, sign int64) {
	o.Count += sign
	o.Bytes += sign * size
}

func (t *Totals) count(e Entry, sign int64) {
	k := int(e.Kind) % len(t.Blocks) // names are at 0, which no other kind has
	t.Blocks[k] += sign
	t.Raw[k] += sign * int64(e.Raw)
	t.Stored[k] += sign * e.Stored()
	if e.Refs == 0 {
		t.Zero += sign
		t.ZeroStored += sign * e.Stored()
		t.ZeroRaw[k] += sign * int64(e.Raw)
	}
	if e.Kind == tiering.Data {
		t.Referenced += sign * int64(e.Raw) * int64(e.Refs)
		t.Sizes[min(bits.Len32(e.Raw), len(t.Sizes)-1)] += sign
		t.Refs[min(bits.Len64(e.Refs), len(t.Refs)-1)] += sign
		t.Entropies[int(e.EntropyBits()*2)] += sign
	}
}

func (t Totals) encode() []byte {
	b, err := binary.Append(nil, binary.LittleEndian, t)
	if err != nil {
		panic(err) // a fixed-size struct always encodes
	}
	return b
}

func (cm *committer) totalsNow() Totals {
	cm.totals.Lock()
	defer cm.totals.Unlock()
	return cm.totals.Totals
}

func (cm *committer) loadTotals() error {
	b, err := cm.db.Get([]byte{keyTotals})
	if errors.Is(err, db.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if cm.totals.Totals, err = decodeTotals(b); err != nil {
		cm.log.Error("figures are wrong until fsck --repair", "err", err)
	}
	if len(b) < binary.Size(Totals{}) {
		return cm.sumUnreferenced(&cm.totals.Totals)
	}
	return nil
}

// sumUnreferenced fills in what a row of an earlier version does not have.
func (cm *committer) sumUnreferenced(t *Totals) error {
	return cm.db.Scan([]byte{keyZero}, []byte{keyZero + 1}, func(key, _ []byte) error {
		e, err := cm.index.Lookup(ID(key[1:]))
		if errors.Is(err, ErrNotFound) {
			return nil // a stray row, which the sweep deletes
		}
		if err == nil {
			t.ZeroRaw[int(e.Kind)%len(t.ZeroRaw)] += int64(e.Raw)
		}
		return err
	})
}

// decodeTotals reads the row. A row of an earlier version may lack fields at
// the end; they are zero.
func decodeTotals(b []byte) (Totals, error) {
	var t Totals
	b = append(bytes.Clone(b), make([]byte, max(0, binary.Size(t)-len(b)))...)
	n, err := binary.Decode(b, binary.LittleEndian, &t)
	if err != nil || n != len(b) {
		return t, fmt.Errorf("totals row of %d bytes: %w", len(b), ErrCorrupt)
	}
	return t, nil
}

// Unique returns the plain bytes of the data blocks that something refers to, each counted once.
func (t *Totals) Unique() int64 { return t.Raw[tiering.Data] - t.ZeroRaw[tiering.Data] }

// UnreferencedRaw returns the plain bytes of blocks of all kinds that nothing refers to.
func (t *Totals) UnreferencedRaw() int64 {
	var n int64
	for _, k := range t.ZeroRaw {
		n += k
	}
	return n
}

// StoredBytes returns what all records take, vertices and unreferenced ones
// among them.
func (t *Totals) StoredBytes() int64 {
	var n int64
	for _, k := range t.Stored {
		n += k
	}
	return n
}

// DedupRatio returns how many bytes refer to each byte of data that is kept, 0
// for none.
func (t *Totals) DedupRatio() float64 { return ratio(t.Referenced, t.Unique()) }

// CompressionRatio returns plain over stored bytes of data blocks, 0 for none.
func (t *Totals) CompressionRatio() float64 {
	return ratio(t.Raw[tiering.Data], t.Stored[tiering.Data])
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// A Latency summarizes how long something took.
type Latency = latency.Summary

// A Timer notes how long something took each time.
type Timer = latency.Timer
