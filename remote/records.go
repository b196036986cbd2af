package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
)

// A stream of records is what blocks travel in, and the only thing about sync
// that is not JSON or bare IDs. All numbers are little-endian.
//
//	+-----------+------------+----------+-------------+----------+---------+
//	| kind (1B) | codec (1B) | raw (4B) | stored (4B) | ID (32B) | payload |  a record
//	+-----------+------------+----------+-------------+----------+---------+
//	| 0         | 0          | records  | 0           | zeroes   |            the end of a whole stream
//	| 255       | 0          | 0        | length      | zeroes   | JSON    |  it failed: an envelope
//
// A record of 20,000 bytes takes 20,042.
const (
	RecordHeader = 42 // bytes before a record's payload
	recordsEnd   = 0
	recordsFail  = 255
	maxFailure   = 64 << 10

	contentRecords = "application/vnd.quarxfs.records"
	contentIDs     = "application/vnd.quarxfs.ids"

	// MaxBatch is how many blocks one request may ask for, tell of or bring.
	MaxBatch = 4096
)

// A RecordWriter writes a stream of records.
type RecordWriter struct {
	w    io.Writer
	head [RecordHeader]byte
	n    uint32
}

// NewRecordWriter returns a writer to w.
func NewRecordWriter(w io.Writer) *RecordWriter { return &RecordWriter{w: w} }

func (w *RecordWriter) frame(kind, codec byte, raw, stored uint32, id store.ID, payload []byte) error {
	h := &w.head
	h[0], h[1] = kind, codec
	binary.LittleEndian.PutUint32(h[2:], raw)
	binary.LittleEndian.PutUint32(h[6:], stored)
	copy(h[10:], id[:])
	// Two writes and no copy: payloads are up to 16 MiB, and w is buffered.
	if _, err := w.w.Write(h[:]); err != nil {
		return err
	}
	_, err := w.w.Write(payload)
	return err
}

// Write adds a record.
func (w *RecordWriter) Write(r store.Record) error {
	w.n++
	return w.frame(byte(r.Kind), byte(r.Codec), r.RawLen, uint32(len(r.Payload)), r.ID, r.Payload)
}

// End ends a stream that is whole.
func (w *RecordWriter) End() error { return w.frame(recordsEnd, 0, w.n, 0, store.ID{}, nil) }

// fail ends a stream that cannot be whole.
func (w *RecordWriter) fail(err error) error {
	f, _ := failureOf(err)
	b, _ := rawjson.Marshal(envelope{&f})
	return w.frame(recordsFail, 0, 0, uint32(len(b)), store.ID{}, b)
}

// ReadRecords calls fn for the records of a stream, at most so many. The payload
// is fn's only until it returns. No length is believed before it is checked, and no memory is taken
// before room, which may be nil, gives it: for a record of so many plain bytes, until it is done.
// ErrRequest: what comes is no such stream, or more than that; ErrCut.
func ReadRecords(r io.Reader, most int, room func(raw int64) (done func(), err error), fn func(store.Record) error) error {
	if room == nil {
		room = func(int64) (func(), error) { return func() {}, nil }
	}
	in := recordReader{r: r, most: most}
	for n := 0; ; n++ {
		end, err := in.next(n, room, fn)
		if end || err != nil {
			return err
		}
	}
}

// A recordReader reads a stream of records.
type recordReader struct {
	r    io.Reader
	most int
	buf  []byte
}

// next reads the nth record, or the end.
func (in *recordReader) next(n int, room func(raw int64) (func(), error), fn func(store.Record) error) (end bool, err error) {
	var head [RecordHeader]byte
	// The end of the body is not the end of the stream: that is a frame of its own, so a cut is
	// told.
	if _, err := io.ReadFull(in.r, head[:]); err != nil {
		return false, fmt.Errorf("records: %w: %w", ErrCut, err)
	}
	raw, stored := binary.LittleEndian.Uint32(head[2:]), binary.LittleEndian.Uint32(head[6:])
	switch {
	case head[0] == recordsEnd && int64(raw) == int64(n) && stored == 0:
		return true, nil
	case head[0] == recordsFail && stored <= maxFailure:
		err := in.payload(stored)
		if err == nil {
			err = failureIn(in.buf)
		}
		return false, err
	case head[0] == recordsFail:
		return false, fmt.Errorf("%w: a failure of %d bytes", ErrRequest, stored)
	case n == in.most, stored > raw, raw == 0, raw > store.MaxBlock:
		return false, fmt.Errorf("%w: a record that cannot be: the %dth of %d, %d bytes in %d", ErrRequest, n+1, in.most, raw, stored)
	}
	// Allocated only after the length was checked against its bound, and when there is room. (Else
	// each of many senders has 16 MiB here before any of them is counted.)
	done, err := room(int64(raw))
	if err != nil {
		return false, err
	}
	defer done()
	if err := in.payload(stored); err != nil {
		return false, err
	}
	// The bytes are not checked against the ID here: who stores them does that.
	rec := store.Record{ID: store.ID(head[10:]), RawLen: raw, Payload: in.buf}
	rec.Kind, rec.Codec = store.Kind(head[0]), store.Codec(head[1])
	err = fn(rec)
	if cap(in.buf) > keptBuffer {
		in.buf = nil // the room for it is given back
	}
	return false, err
}

// keptBuffer is the longest buffer that stays from one record to the next.
const keptBuffer = 256 << 10

func (in *recordReader) payload(n uint32) error {
	if uint32(cap(in.buf)) < n {
		in.buf = make([]byte, n)
	}
	in.buf = in.buf[:n]
	if _, err := io.ReadFull(in.r, in.buf); err != nil {
		return fmt.Errorf("records: %w: %w", ErrCut, err)
	}
	return nil
}

func failureIn(b []byte) error {
	var e envelope
	if err := rawjson.Unmarshal(b, &e); err != nil || e.Error == nil {
		return fmt.Errorf("records: %w: a failure that cannot be read", ErrCut)
	}
	return e.Error.err()
}

// readIDs reads a body of bare IDs.
func readIDs(r io.Reader) ([]store.ID, error) {
	const size = len(store.ID{})
	// One byte more than the most, so that a list which is too long is told from one that just
	// fits.
	b, err := io.ReadAll(io.LimitReader(r, MaxBatch*int64(size)+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBodyCut, err)
	}
	if len(b)%size != 0 || len(b) > MaxBatch*size {
		return nil, fmt.Errorf("%w: a list of IDs of %d bytes: send up to %d of %d", ErrRequest, len(b), MaxBatch, size)
	}
	ids := make([]store.ID, len(b)/size)
	for i := range ids {
		ids[i] = store.ID(b[i*size:])
	}
	return ids, nil
}

func packIDs(ids []store.ID) []byte {
	b := make([]byte, 0, len(ids)*len(store.ID{}))
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}

// packBits writes answers, eight a byte, the first in the lowest bit.
func packBits(bits []bool) []byte {
	b := make([]byte, (len(bits)+7)/8)
	for i, set := range bits {
		if set {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func readBits(r io.Reader, n int) ([]bool, error) {
	b := make([]byte, (n+7)/8)
	// So many as were asked about, however many come.
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("which blocks are there: %w: %w", ErrCut, err)
	}
	bits := make([]bool, n)
	for i := range bits {
		bits[i] = b[i/8]>>(i%8)&1 != 0
	}
	return bits, nil
}

var errUnasked = errors.New("the peer sent a block that it was not asked for")
