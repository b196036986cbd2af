package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering"
)

// The first byte of a key says what the row is. fs/meta owns the upper-case
// letters. docs/format/database.md lists all of them.
const (
	keyBlock    = 'b'              // ID -> Entry
	keyZero     = 'z'              // ID of a block that nothing refers to -> nothing
	keySegment  = 'g'              // segment number -> bytes and live bytes
	keyName     = 'n'              // object name -> objectRow
	keyObject   = 'o'              // object ID, name -> nothing
	keySnapshot = 's'              // name of a snapshot -> SnapshotRef
	keyFile     = config.RowPrefix // name of a small file -> its bytes
	keyTotals   = 't'              // -> totals of the index
	keyBad      = 'x'              // ID of a block that cannot be read -> when and why
	keyScrub    = 'u'              // -> scrubCursor
	keyLease    = 'l'              // lease -> when it ends, and whose it is
	keyLeased   = 'h'              // lease, ID of a block that it keeps -> nothing
	keySyncNote = 'y'              // name of a remote -> SyncNote
	keyLocked   = 'k'              // name of a snapshot -> its ID, and until when it cannot be removed
	keyBrought  = 'w'              // name of a snapshot -> its ID, and who brought it
	keyLost     = 'm'              // number of a segment that was lost -> where it ended
	keyEarlier  = 'c'              // -> commits that the database does not count
)

// An Entry is a block's row in the index: where it is, what it is, and how many
// edges and extents refer to it (I4).
type Entry struct {
	Kind    tiering.Kind
	Codec   tiering.Codec
	Loc     tiering.Location
	Raw     uint32 // plain bytes
	Refs    uint64
	Entropy uint8 // 0..255 stands for 0..8 bits a byte
}

// Stored returns the bytes that the block takes in its segment.
func (e Entry) Stored() int64 { return int64(e.Loc.Length) }

// EntropyBits returns the Shannon entropy of the plain bytes, 0 to 8 bits a byte.
func (e Entry) EntropyBits() float64 { return float64(e.Entropy) * 8 / 255 }

func blockKey(prefix byte, id ID) []byte {
	k := make([]byte, 1+len(id))
	k[0] = prefix
	copy(k[1:], id[:])
	return k
}

func (e Entry) encode() []byte {
	b := make([]byte, 0, 32)
	b = append(b, byte(e.Kind)|byte(e.Codec)<<4, e.Loc.Tier, e.Entropy)
	b = binary.AppendUvarint(b, e.Loc.Segment)
	b = binary.AppendUvarint(b, uint64(e.Loc.Offset))
	b = binary.AppendUvarint(b, uint64(e.Loc.Length))
	b = binary.AppendUvarint(b, uint64(e.Raw))
	return binary.AppendUvarint(b, e.Refs)
}

func decodeEntry(b []byte) (Entry, error) {
	var e Entry
	if len(b) < 3 {
		return e, fmt.Errorf("index row of %d bytes: %w", len(b), ErrCorrupt)
	}
	e.Kind, e.Codec, e.Loc.Tier, e.Entropy = tiering.Kind(b[0]&15), tiering.Codec(b[0]>>4), b[1], b[2]
	var v [5]uint64
	b = b[3:]
	for i := range v {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return e, fmt.Errorf("index row is cut short: %w", ErrCorrupt)
		}
		v[i], b = x, b[n:]
	}
	if e.Kind < tiering.Data || e.Kind > tiering.Named || e.Codec > tiering.Zstd {
		return Entry{}, fmt.Errorf("index row of an unknown kind or codec: %w", ErrCorrupt)
	}
	// Bytes from a disk: a length beyond any block must not be allocated for.
	if len(b) != 0 || v[1] > 1<<32-1 || v[2] > 1<<32-1 || v[3] > tiering.MaxRaw {
		return e, fmt.Errorf("index row has impossible fields: %w", ErrCorrupt)
	}
	e.Loc.Segment, e.Loc.Offset, e.Loc.Length = v[0], uint32(v[1]), uint32(v[2])
	e.Raw, e.Refs = uint32(v[3]), v[4]
	return e, nil
}

func quantizeEntropy(bits float64) uint8 { return uint8(bits*255/8 + 0.5) }

// A segmentRow counts a segment's bytes, so that an empty one can be removed
// and a sparse one compacted, and says by what the segment is known when the store is opened.
// Rows of before say only the first two.
type segmentRow struct {
	Written int64 // bytes of all records ever indexed
	Live    int64 // bytes of records that the index points at
	End     int64 // where the last of them ends; 0: not noted
	Seen    int64 // when the file was last written to as it was found to be this one, in ns since 1970; 0: never
	Salt    uint64
}

// claim is what must be there of the segment.
func (r segmentRow) claim(n uint64) tiering.Claim {
	c := tiering.Claim{Number: n, End: cmp.Or(r.End, r.Written), Salt: r.Salt}
	if r.Seen != 0 {
		c.Seen = time.Unix(0, r.Seen)
	}
	return c
}

func segmentKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keySegment}, n)
}

func (r segmentRow) encode() []byte {
	b := binary.AppendVarint(binary.AppendVarint(nil, r.Written), r.Live)
	if r.End == 0 && r.Salt == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(binary.AppendVarint(binary.AppendVarint(b, r.End), r.Seen), r.Salt)
}

func decodeSegmentRow(b []byte) (r segmentRow, err error) {
	bad := fmt.Errorf("segment row: %w", ErrCorrupt)
	for i, field := range []*int64{&r.Written, &r.Live, &r.End, &r.Seen} {
		if i == 2 && len(b) == 0 {
			return r, nil
		}
		v, n := binary.Varint(b)
		if n <= 0 {
			return segmentRow{}, bad
		}
		*field, b = v, b[n:]
	}
	if len(b) != 8 || r.End < 0 {
		return segmentRow{}, bad
	}
	r.Salt = binary.LittleEndian.Uint64(b)
	return r, nil
}

func decodeSegmentKeyRow(key, value []byte) (uint64, segmentRow, error) {
	if len(key) != 9 {
		return 0, segmentRow{}, fmt.Errorf("segment row with a key of %d bytes: %w", len(key), ErrCorrupt)
	}
	row, err := decodeSegmentRow(value)
	return binary.BigEndian.Uint64(key[1:]), row, err
}

// ID names a block; see chunk.ID.
type ID = chunk.ID

// A Chunker cuts streams into blocks; see chunk.Chunker.
type Chunker = chunk.Chunker

// IsZero reports whether plain is all zeroes, which no block stores.
func IsZero(plain []byte) bool { return chunk.IsZero(plain) }

// A Codec says how a record is compressed; see segment.Codec.
type Codec = tiering.Codec

// A Kind says what a block is; see segment.Kind.
type Kind = tiering.Kind

// The kinds of blocks.
const (
	KindData     = tiering.Data
	KindFile     = tiering.File
	KindTree     = tiering.Tree
	KindSnapshot = tiering.Snapshot
	KindName     = tiering.Named
)

// MaxBlock is the most plain bytes that a block can have.
const MaxBlock = tiering.MaxRaw
