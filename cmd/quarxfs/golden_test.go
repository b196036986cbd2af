package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// listTree prints all that is in a directory: names, attributes, extended attributes, and the
// SHA-256 of contents. testdata/golden/make.sh runs it, too.
func listTree() {
	dir := os.Args[1]
	err := filepath.WalkDir(dir, func(path string, _ iofs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		line, err := listed(path)
		fmt.Printf("%q %s\n", strings.TrimPrefix(path, dir+"/"), line)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listed(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	var err error
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // how large a directory is, and when it changed, is nobody's data
		line += fmt.Sprintf(" %d links, %d bytes, %d.%09d", st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		var to string
		to, err = os.Readlink(path)
		line += fmt.Sprintf(" -> %q", to)
	case unix.S_IFREG:
		var b []byte
		b, err = os.ReadFile(path)
		line += fmt.Sprintf(" %x", sha256.Sum256(b))
	}
	names := make([]byte, 1<<10)
	n, xerr := unix.Llistxattr(path, names)
	for name := range strings.SplitSeq(string(names[:max(0, n)]), "\x00") {
		if strings.HasPrefix(name, "user.") {
			value := make([]byte, 1<<10)
			n, verr := unix.Lgetxattr(path, name, value)
			xerr = errors.Join(xerr, verr)
			line += fmt.Sprintf(" %s=%q", name, value[:max(0, n)])
		}
	}
	return line, errors.Join(err, xerr)
}

// cmdGolden unpacks a golden store, its cold tier and lists of what is in it into a directory.
func cmdGolden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: golden NAME DIR")
	}
	dir := ts.MkAbs(args[1])
	root, err := os.Getwd()
	ts.Check(err)
	f, err := os.Open(filepath.Join(root, "testdata", "golden", args[0]+".tar.gz"))
	ts.Check(err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	ts.Check(err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		ts.Check(err)
		ts.Check(unpack(r, h, filepath.Join(dir, h.Name)))
	}
	ts.Check(moveCold(filepath.Join(dir, "store", "tiers.json"), filepath.Join(dir, "cold")))
}

// unpack makes a file or directory. Zeroes become holes: that is most of Badger's log.
func unpack(r io.Reader, h *tar.Header, name string) error {
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(name, 0o700)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	b, zeroes := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < h.Size && err == nil; at += int64(len(b)) {
		part := b[:min(int64(len(b)), h.Size-at)]
		if _, err = io.ReadFull(r, part); err == nil && !bytes.Equal(part, zeroes[:len(part)]) {
			_, err = f.WriteAt(part, at)
		}
	}
	return errors.Join(err, f.Truncate(h.Size), f.Close())
}

// moveCold changes where the cold tier is, which is an absolute path, and the file's checksum.
func moveCold(file, dir string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, regexp.MustCompile(`"dir": "[^"]*"`).ReplaceAll(b, []byte(`"dir": "`+dir+`"`))); err != nil {
		return err
	}
	sum := regexp.MustCompile(`,"crc32c":"[0-9a-f]{8}"`)
	without := sum.ReplaceAll(compact.Bytes(), []byte(`,"crc32c":""`))
	crc := crc32.Checksum(without, crc32.MakeTable(crc32.Castagnoli))
	return os.WriteFile(file, sum.ReplaceAll(compact.Bytes(), fmt.Appendf(nil, `,"crc32c":"%08x"`, crc)), 0o600)
}
