package graph

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Snapshot is a whole filesystem at one instant. Its name is not part of it:
// a name is a reference that can be changed or removed.
type Snapshot struct {
	Root    Entry // the root directory; it has no name
	Table   ID    // root of the link table; zero when no file has several names
	Parents []ID  // the snapshots that this one was made from, for history only: see links
	Created Time
	Volume  string // the store's volume ID
	Host    string // where it was made
	Message string
	Tags    []string // sorted
	Totals  Totals
}

// Totals are sums over a snapshot. What is new is counted against the snapshot
// before, or against nothing.
type Totals struct {
	Files   int64 `json:"files"`       // regular files, each once
	Dirs    int64 `json:"directories"` // with the root
	Others  int64 `json:"others"`      // symbolic links, devices, sockets, FIFOs
	Logical int64 `json:"logical_bytes"`
	Data    int64 `json:"data_bytes"` // of these, those not in holes

	// Of the store, when the snapshot was made.
	Referenced int64 `json:"referenced_bytes"` // plain bytes times references
	Unique     int64 `json:"unique_bytes"`     // plain bytes of data blocks, each once

	Written   int64 `json:"written_bytes"`     // sizes of files that are new or changed, clones apart
	New       int64 `json:"new_bytes"`         // plain bytes of data blocks that the store did not have
	NewStored int64 `json:"new_stored_bytes"`  // what they take
	Entropy   int64 `json:"new_entropy_milli"` // mean over the new bytes, in 1/1000 bit a byte, 0 to 8000
}

const (
	snapshotVersion = 1
	maxParents      = 16
	maxTags         = 64
	maxTag          = 255
	maxHost         = 255
	maxVolume       = 64
	maxEntropy      = 8000
	// MaxMessage is the longest message of a snapshot, in bytes.
	MaxMessage = 4096
)

func (t *Totals) fields() []*int64 {
	return []*int64{
		&t.Files, &t.Dirs, &t.Others, &t.Logical, &t.Data, &t.Referenced, &t.Unique,
		&t.Written, &t.New, &t.NewStored, &t.Entropy,
	}
}

// check reports why a snapshot cannot be.
func (s *Snapshot) check() (why string) {
	switch {
	case s.Root.Name != "" || !s.Root.IsDir() || s.Root.Nlink != 0:
		return "its root is no directory"
	case len(s.Parents) > maxParents:
		return "too many parents"
	case len(s.Message) > MaxMessage || !utf8.ValidString(s.Message):
		return "a message that is too long or no UTF-8"
	case len(s.Tags) > maxTags || len(s.Host) > maxHost || len(s.Volume) > maxVolume:
		return "a field that is too long"
	case s.Created.Nsec > maxNsec || s.Totals.Entropy > maxEntropy:
		return "a number that cannot be"
	}
	// In order and each once, so that equal snapshots are equal bytes; a comma divides them
	// elsewhere.
	for i, tag := range s.Tags {
		if tag == "" || len(tag) > maxTag || !utf8.ValidString(tag) || strings.ContainsAny(tag, "\x00,") || i > 0 && s.Tags[i-1] >= tag {
			return "tags that are impossible or not in order"
		}
	}
	for _, n := range s.Totals.fields() {
		if *n < 0 {
			return "negative totals"
		}
	}
	return s.Root.check()
}

// Encode makes the vertex; docs/format/vertex.md draws it. It links the root
// tree and the link table, and not the parents: a link keeps what it leads to,
// and a snapshot that is removed must go, whatever was made from it. Errors:
// store.ErrConfig for a snapshot that cannot be.
func (s *Snapshot) Encode() ([]byte, error) {
	if why := s.check(); why != "" {
		return nil, fmt.Errorf("snapshot: %s: %w", why, store.ErrConfig)
	}
	// The root's links come first: its entry reads them from the front.
	links := s.Root.links(nil)
	flags := byte(0)
	if s.Table != (ID{}) {
		links = append(links, s.Table)
		flags = 1
	}
	b := vertex.AppendLinks(nil, links)
	b = append(b, snapshotVersion, flags)
	b = s.Root.appendBody(b)
	b = binary.AppendUvarint(b, uint64(len(s.Parents)))
	// In the payload and not among the links: they are history and keep nothing.
	for _, id := range s.Parents {
		b = append(b, id[:]...)
	}
	b = appendTime(b, s.Created)
	for _, text := range []string{s.Volume, s.Host, s.Message} {
		b = appendText(b, text)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Tags)))
	for _, tag := range s.Tags {
		b = appendText(b, tag)
	}
	for _, n := range s.Totals.fields() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	return b, nil
}

// GetSnapshot reads the snapshot that has an ID. store.ErrNotFound, store.ErrCorrupt.
func GetSnapshot(ctx context.Context, src Source, id ID) (Snapshot, error) {
	plain, err := src.Get(ctx, id)
	if err != nil {
		return Snapshot{}, err
	}
	return DecodeSnapshot(plain)
}

// DecodeSnapshot is the reverse of Encode: it takes exactly what Encode makes.
// The error is store.ErrCorrupt.
func DecodeSnapshot(b []byte) (Snapshot, error) {
	links, payload, err := vertex.Split(b)
	if err != nil {
		return Snapshot{}, err
	}
	r := vertex.NewFields(payload)
	bad := func(why string) (Snapshot, error) { return Snapshot{}, corrupt("snapshot vertex", why) }
	if r.Byte() != snapshotVersion {
		return bad("unknown version")
	}
	flags := r.Byte()
	var s Snapshot
	links, why := s.Root.readBody(r, links)
	if why != "" {
		return bad(why)
	}
	// What is left after the root's own is the link table, if the flag says so.
	if flags > 1 || len(links) != int(flags) {
		return bad("other links than it should have")
	}
	if flags == 1 {
		if s.Table = links[0]; s.Table == (ID{}) {
			return bad("an impossible link")
		}
	}
	// A number is bounded before it is believed; Bytes gives nil at the end of the vertex.
	for range r.Uvarint(maxParents) {
		if id := r.Bytes(uint64(len(ID{}))); id != nil {
			s.Parents = append(s.Parents, ID(id))
		}
	}
	s.Created = readTime(r)
	s.Volume, s.Host, s.Message = readText(r, maxVolume), readText(r, maxHost), readText(r, MaxMessage)
	for range r.Uvarint(maxTags) {
		s.Tags = append(s.Tags, readText(r, maxTag))
	}
	for _, n := range s.Totals.fields() {
		*n = int64(r.Uvarint(math.MaxInt64))
	}
	// Bytes behind the end would be lost by the next encoding.
	if r.Bad() || r.Left() != 0 {
		return bad("cut short")
	}
	if why := s.check(); why != "" {
		return bad(why)
	}
	return s, nil
}
