// Package config has the small files of a store's directory: what is set, who may come in, and what
// both are made of.
package config

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

// A File is one of the small JSON files of a store's directory. Each is a
// struct that embeds Head first and Sum last, and fields that came later
// are left out while they are zero. docs/format/superblock.md says how the checksum
// is made.
type File struct {
	Name    string
	Magic   string
	Version int    // that is written; all older ones are read
	Strange error  // what a file without the magic is
	Next    string // what to do about one that is damaged
}

// maxFile bounds the bytes of such a file.
const maxFile = 1 << 16

// A Head comes first in each of these files.
type Head struct {
	Magic   string `json:"magic"`
	Version int    `json:"version"`
}

// A Sum comes last.
type Sum struct {
	CRC string `json:"crc32c"`
}

func (h *Head) head() *Head { return h }
func (s *Sum) sum() *Sum    { return s }

// A Content is a pointer to the content of such a file.
type Content interface {
	head() *Head
	sum() *Sum
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

// Encode fills the head and the checksum in and returns the file's bytes.
func (k File) Encode(f Content) ([]byte, error) {
	*f.head(), *f.sum() = Head{k.Magic, k.Version}, Sum{}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	f.sum().CRC, _, _ = sumOf(b)
	b, err = json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// Decode is strict: what is not understood in full is not taken for good.
// Errors: ErrNewer, ErrDamaged, and the kind's for a file without the magic.
func (k File) Decode(b []byte, f Content) error {
	if len(b) > maxFile {
		return k.Damaged("has more than %d bytes", maxFile)
	}
	// The head first and alone: of a newer file nothing else may be understood.
	var head Head
	if err := json.Unmarshal(b, &head); err != nil {
		return k.Damaged("is cut or no such file (%v)", err)
	}
	if head.Magic != k.Magic {
		if !errors.Is(k.Strange, errs.ErrDamaged) {
			return fmt.Errorf("%w: %s has no magic", k.Strange, k.Name)
		}
		return k.Damaged("has no magic")
	}
	if head.Version > k.Version {
		return fmt.Errorf("%w: %s has version %d, and this program reads up to %d", errs.ErrNewer, k.Name, head.Version, k.Version)
	}
	// The checksum is of the file without white space, so that people may lay it out.
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return k.Damaged("does not read (%v)", err)
	}
	if sum, said, ok := sumOf(compact.Bytes()); !ok || sum != said || head.Version < 1 {
		return k.Damaged("does not match its checksum")
	}
	if err := json.Unmarshal(b, f); err != nil {
		return k.Damaged("does not read (%v)", err)
	}
	// Encoded again, as a field that Unmarshal does not know is dropped silently, and would be lost
	// when the file is written next.
	if again, err := json.Marshal(f); err != nil || !bytes.Equal(again, compact.Bytes()) {
		return fmt.Errorf("%w: %s has settings that this program does not know", errs.ErrNewer, k.Name)
	}
	return nil
}

func (k File) Damaged(format string, args ...any) error {
	return errs.Damaged(k.Name, k.Next, format, args...)
}

// Read reads the file in a store's directory. Besides Decode's errors it may be
// os.ErrNotExist.
func (k File) Read(dir string, f Content) error {
	b, err := k.Raw(dir)
	if err != nil {
		return err
	}
	return k.Decode(b, f)
}

// Raw reads the file's bytes. What is no file is ErrDamaged: a link is not followed.
func (k File) Raw(dir string) ([]byte, error) {
	name := filepath.Join(dir, k.Name)
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errs.Irregular(name, info.Mode())
	}
	// Not blocking and not following: between the look and this it may have been replaced.
	r, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errs.Explain(db.Unreadable(name, err))
	}
	defer r.Close()
	// One byte more than allowed, so that Decode sees that it is too much.
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, errs.Explain(db.Unreadable(name, err))
	}
	return b, nil
}

// Bytes encodes a file that is to be written.
func (k File) Bytes(f Content) ([]byte, error) {
	b, err := k.Encode(f)
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%w: %s would have %d bytes", errs.ErrConfig, k.Name, len(b))
	}
	return b, err
}

// Write replaces the file durably.
func (k File) Write(dir string, f Content) error {
	b, err := k.Bytes(f)
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, k.Name), b)
}
