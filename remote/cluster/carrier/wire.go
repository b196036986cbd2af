package carrier

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// A frame is what travels, either way:
//
//	+-----------+-------------+---------+
//	| kind (1B) | length (4B) | payload |
//	+-----------+-------------+---------+
//
// The writer greets, and the copy welcomes it. Then the writer sends changes of files and rows,
// and ends what belongs together with a commit or a seed's end, which the copy answers once all of
// it is durable. In a payload numbers are uvarints, and what has a length has it in front.
type kind byte

const (
	kindGreet   kind = iota + 1 // JSON: greeting
	kindWelcome                 // JSON: welcome
	kindRefuse                  // text: why; the connection ends

	kindMake     // path: an empty file, also in place of another one
	kindWrite    // path, offset, bytes
	kindTruncate // path, size
	kindRename   // path, path
	kindRemove   // path; it may be gone
	kindRoot     // name, bytes: a small file of the store's own

	kindRows    // rows of a commit, or of a seed
	kindCommit  // JSON: commitEnd
	kindSeed    // JSON: seedMark: from now on rows are those of a seed
	kindSeedEnd // JSON: seedMark
	kindAnswer  // JSON: answer
	kindFiles   // asks for the copy's files
	kindListed  // path, size, tail; an empty one ends the list
	kindPing    // nothing; it is answered alike, and with a vow
)

const (
	// maxPart bounds the bytes of a file or the rows that one frame has, unless a single row is
	// larger.
	maxPart  = 1 << 20
	maxFrame = 2 << 20
	maxPath  = 512
	// maxRows bounds the rows of one commit; the writer's memory bounds them long before.
	maxRows = 512 << 20
)

// errFrame: what has come is no frame, or none that is expected.
var errFrame = errors.New("a frame that has no meaning here")

// A greeting is the writer's.
type greeting struct {
	Format int           `json:"format"`
	Volume string        `json:"volume"` // its ID
	Epoch  mirror.Epoch  `json:"epoch"`
	Record mirror.Record `json:"record"` // the register's, as the writer knows it
}

// A welcome is a copy's answer to a greeting.
type welcome struct {
	Member  mirror.Member `json:"member"`
	Session uint64        `json:"session"`
	Log     mirror.Log    `json:"log"`
}

type commitEnd struct {
	Before mirror.Position `json:"before"`
	Commit mirror.Position `json:"commit"`
}

type seedMark struct {
	Log mirror.Log `json:"log"`
}

type answer struct {
	Commit mirror.Position `json:"commit"`
}

const wireFormat = 1

// A stream is one connection. One goroutine sends, one receives.
type stream struct {
	net.Conn
	r   *bufio.Reader
	w   *bufio.Writer
	buf []byte // of the frame that was received last
}

// newStream is of a connection on which each write ends within patience: who sends may hold a lock
// that others wait for, and the other side may hang.
func newStream(c net.Conn, patience time.Duration) *stream {
	w := bufio.NewWriterSize(impatient{c, patience}, 256<<10)
	return &stream{Conn: c, r: bufio.NewReaderSize(c, 64<<10), w: w}
}

// An impatient connection gives each write so long.
type impatient struct {
	net.Conn
	patience time.Duration
}

func (c impatient) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// await gives the other side so long for what is received next.
func (s *stream) await(limit time.Duration) error { return s.SetReadDeadline(time.Now().Add(limit)) }

// send queues a frame; flush has it travel.
func (s *stream) send(k kind, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > maxFrame {
		return fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(n))
	if _, err := s.w.Write(head); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := s.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) flush() error { return s.w.Flush() }

// sendJSON sends a value at once.
func (s *stream) sendJSON(k kind, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = s.send(k, b)
	}
	if err == nil {
		err = s.flush()
	}
	return err
}

// receive returns the next frame. Its payload is valid until the next call.
func (s *stream) receive() (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: kind %d with %d bytes", errFrame, head[0], n)
	}
	if cap(s.buf) < int(n) {
		s.buf = make([]byte, n)
	}
	s.buf = s.buf[:n]
	_, err := io.ReadFull(s.r, s.buf)
	return kind(head[0]), s.buf, err
}

// expect returns the value of a frame that must be of one kind. What the other side refuses is its
// error.
func (s *stream) expect(k kind, to any) error {
	got, b, err := s.receive()
	if err != nil {
		return err
	}
	if got == kindRefuse {
		return refused(b)
	}
	if got != k {
		return fmt.Errorf("%w: kind %d for %d", errFrame, got, k)
	}
	if to == nil {
		return nil
	}
	return decode(b, to)
}

func refused(b []byte) error {
	return fmt.Errorf("%w: %s", ErrRefused, strings.ToValidUTF8(string(b[:min(len(b), 500)]), "?"))
}

func decode(b []byte, to any) error {
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// A change of a file. What it names is below the store's directory.
type change struct {
	kind   kind
	path   string
	to     string // of a rename
	offset int64  // of a write; the size of a truncation
	data   []byte
}

func (c change) encode(buf []byte) []byte {
	buf = appendText(buf, c.path)
	switch c.kind {
	case kindRename:
		buf = appendText(buf, c.to)
	case kindWrite, kindTruncate:
		buf = binary.AppendUvarint(buf, uint64(c.offset))
	}
	return append(buf, c.data...)
}

// decodeChange returns what a frame says, of which data is a part.
func decodeChange(k kind, b []byte) (c change, err error) {
	c.kind = k
	if c.path, b, err = cutPath(b); err != nil {
		return c, err
	}
	switch k {
	case kindRename:
		c.to, b, err = cutPath(b)
	case kindWrite, kindTruncate:
		var off uint64
		if off, b, err = cutNumber(b); off > 1<<40 {
			err = fmt.Errorf("%w: an offset of %d", errFrame, off)
		}
		c.offset = int64(off)
	}
	if err == nil && len(b) > 0 && k != kindWrite && k != kindRoot {
		err = fmt.Errorf("%w: kind %d with %d bytes more", errFrame, k, len(b))
	}
	c.data = b
	return c, err
}

func appendText(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func cutNumber(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: it ends early", errFrame)
	}
	return v, b[n:], nil
}

func cutBytes(b []byte) (part, rest []byte, err error) {
	n, b, err := cutNumber(b)
	if err != nil || n > uint64(len(b)) {
		return nil, nil, errors.Join(err, fmt.Errorf("%w: it ends early", errFrame))
	}
	return b[:n], b[n:], nil
}

// cutPath takes a path of segments' directories alone: whoever sends it is a node of the cluster,
// and still must not reach what is beside the store.
func cutPath(b []byte) (string, []byte, error) {
	part, rest, err := cutBytes(b)
	if err != nil {
		return "", nil, err
	}
	p := string(part)
	if len(p) > maxPath || !path.IsAbs("/"+p) || path.Clean("/"+p) != "/"+p || p == "" || strings.ContainsRune(p, 0) || strings.Count(p, "/") > 1 {
		return "", nil, fmt.Errorf("%w: the path %q", errFrame, p[:min(len(p), 100)])
	}
	return p, rest, nil
}

// appendRow adds a row to the payload of kindRows; a nil value deletes.
func appendRow(buf, key, value []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(key)))
	buf = append(buf, key...)
	if value == nil {
		return append(buf, 0)
	}
	buf = binary.AppendUvarint(append(buf, 1), uint64(len(value)))
	return append(buf, value...)
}

// eachRow calls fn with the rows of a payload, as copies.
func eachRow(b []byte, fn func(key, value []byte) error) error {
	b = append([]byte(nil), b...) // whoever takes rows keeps them
	for len(b) > 0 {
		key, rest, err := cutBytes(b)
		if err != nil {
			return err
		}
		if len(rest) == 0 || rest[0] > 1 {
			return fmt.Errorf("%w: a row", errFrame)
		}
		var value []byte
		set := rest[0] == 1
		if rest = rest[1:]; set {
			if value, rest, err = cutBytes(rest); err != nil {
				return err
			}
			value = value[:len(value):len(value)]
		}
		if err := fn(key[:len(key):len(key)], value); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// encodeLog is the value of the row by which a copy knows its log.
func encodeLog(l mirror.Log) []byte {
	b := binary.AppendUvarint(nil, uint64(len(l.Starts)))
	for _, p := range l.Starts {
		b = binary.AppendUvarint(b, uint64(p.Epoch))
		b = binary.AppendUvarint(b, uint64(p.Index))
	}
	return binary.AppendUvarint(b, uint64(l.Last))
}

func decodeLog(b []byte) (l mirror.Log, err error) {
	n, b, err := cutNumber(b)
	if err != nil || n > uint64(len(b)) {
		return l, errors.Join(err, fmt.Errorf("%w: a log of %d epochs", errFrame, n))
	}
	var last mirror.Position
	for range n {
		var epoch, index uint64
		if epoch, b, err = cutNumber(b); err != nil {
			return l, err
		}
		if index, b, err = cutNumber(b); err != nil {
			return l, err
		}
		p := mirror.Position{Epoch: mirror.Epoch(epoch), Index: mirror.Index(index)}
		if p.Epoch <= last.Epoch || p.Index <= last.Index {
			return l, fmt.Errorf("%w: epoch %d begins at %d", errFrame, epoch, index)
		}
		l.Starts, last = append(l.Starts, p), p
	}
	end, b, err := cutNumber(b)
	if err == nil && (len(b) > 0 || mirror.Index(end) < last.Index || n == 0 && end > 0 || n > 0 && l.Starts[0].Index != 1) {
		err = fmt.Errorf("%w: a log of %d commits", errFrame, end)
	}
	l.Last = mirror.Index(end)
	return l, err
}
