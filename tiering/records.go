package tiering

import "github.com/quarxtor/quarxfs/tiering/segment"

// Names of the segment format that appear in this package's methods, for those
// who know segments only through the tiers.
type (
	Kind   = segment.Kind
	Codec  = segment.Codec
	Header = segment.Header
	Stamp  = segment.Stamp
)

// The kinds of records.
const (
	Data     = segment.Data
	File     = segment.File
	Tree     = segment.Tree
	Snapshot = segment.Snapshot
	Named    = segment.Named
)

// The codecs of payloads.
const (
	Raw  = segment.Raw
	S2   = segment.S2
	Zstd = segment.Zstd
)

// EmptySize is the most bytes that an open segment without records has.
const EmptySize = segment.FileHeaderSize + segment.StampSize

// MaxRaw is the most plain bytes that a record can hold.
const MaxRaw = segment.MaxRaw

// MaxCompressed is the most room that Compress needs for n plain bytes.
func MaxCompressed(n int) int { return segment.MaxCompressed(n) }

// Compress compresses plain for a record; see segment.Compress.
func Compress(want Codec, dst, plain []byte) (Codec, []byte) {
	return segment.Compress(want, dst, plain)
}

// Decompress is the reverse; see segment.Decompress.
func Decompress(c Codec, dst, stored []byte, rawLen int) ([]byte, error) {
	return segment.Decompress(c, dst, stored, rawLen)
}
