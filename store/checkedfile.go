package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/errs"
)

// A fileKind is one of the small JSON files of a store's directory. Each is a
// struct that embeds fileHead first and fileSum last, and fields that came later
// are left out while they are zero. docs/format/superblock.md says how the checksum
// is made.
type fileKind struct {
	name    string
	magic   string
	version int    // that is written; all older ones are read
	strange error  // what a file without the magic is
	next    string // what to do about one that is damaged
}

// maxFile bounds the bytes of such a file.
const maxFile = 1 << 16

type fileHead struct {
	Magic   string `json:"magic"`
	Version int    `json:"version"`
}

type fileSum struct {
	CRC string `json:"crc32c"`
}

func (h *fileHead) head() *fileHead { return h }
func (s *fileSum) sum() *fileSum    { return s }

// A checkedFile is a pointer to the content of such a file.
type checkedFile interface {
	head() *fileHead
	sum() *fileSum
}

const (
	sumPrefix = `"crc32c":"`
	sumSuffix = `"}`
)

// sumOf returns the checksum of a file without white space, whose last field is
// the checksum. ok is false when it is not.
func sumOf(compact []byte) (sum, said string, ok bool) {
	at := bytes.LastIndex(compact, []byte(sumPrefix))
	if at < 0 || !bytes.HasSuffix(compact, []byte(sumSuffix)) {
		return "", "", false
	}
	at += len(sumPrefix)
	end := len(compact) - len(sumSuffix)
	if at > end {
		return "", "", false
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Update(crc32.Checksum(compact[:at], table), table, []byte(sumSuffix))
	return fmt.Sprintf("%08x", crc), string(compact[at:end]), true
}

// encode fills the head and the checksum in and returns the file's bytes.
func (k fileKind) encode(f checkedFile) ([]byte, error) {
	*f.head(), *f.sum() = fileHead{k.magic, k.version}, fileSum{}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	f.sum().CRC, _, _ = sumOf(b)
	b, err = json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// decode is strict: what is not understood in full is not taken for good.
// Errors: ErrNewer, ErrDamaged, and the kind's for a file without the magic.
func (k fileKind) decode(b []byte, f checkedFile) error {
	if len(b) > maxFile {
		return k.damaged("has more than %d bytes", maxFile)
	}
	var head fileHead
	if err := json.Unmarshal(b, &head); err != nil {
		return k.damaged("is cut or no such file (%v)", err)
	}
	if head.Magic != k.magic {
		if !errors.Is(k.strange, ErrDamaged) {
			return fmt.Errorf("%w: %s has no magic", k.strange, k.name)
		}
		return k.damaged("has no magic")
	}
	if head.Version > k.version {
		return fmt.Errorf("%w: %s has version %d, and this program reads up to %d", ErrNewer, k.name, head.Version, k.version)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return k.damaged("does not read (%v)", err)
	}
	if sum, said, ok := sumOf(compact.Bytes()); !ok || sum != said || head.Version < 1 {
		return k.damaged("does not match its checksum")
	}
	if err := json.Unmarshal(b, f); err != nil {
		return k.damaged("does not read (%v)", err)
	}
	if again, err := json.Marshal(f); err != nil || !bytes.Equal(again, compact.Bytes()) {
		return fmt.Errorf("%w: %s has settings that this program does not know", ErrNewer, k.name)
	}
	return nil
}

func (k fileKind) damaged(format string, args ...any) error {
	return errs.Damaged(k.name, k.next, format, args...)
}

// read reads the file in a store's directory. Besides decode's errors it may be
// os.ErrNotExist.
func (k fileKind) read(dir string, f checkedFile) error {
	b, err := k.raw(dir)
	if err != nil {
		return err
	}
	return k.decode(b, f)
}

// raw reads the file's bytes. What is no file is ErrDamaged: a link is not followed.
func (k fileKind) raw(dir string) ([]byte, error) {
	name := filepath.Join(dir, k.name)
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errs.Irregular(name, info.Mode())
	}
	r, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errs.Explain(db.Unreadable(name, err))
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, errs.Explain(db.Unreadable(name, err))
	}
	return b, nil
}

// bytes encodes a file that is to be written.
func (k fileKind) bytes(f checkedFile) ([]byte, error) {
	b, err := k.encode(f)
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%w: %s would have %d bytes", ErrConfig, k.name, len(b))
	}
	return b, err
}

// write replaces the file durably.
func (k fileKind) write(dir string, f checkedFile) error {
	b, err := k.bytes(f)
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, k.name), b)
}
