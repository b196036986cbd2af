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
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store"
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
	ts.Check(unpackGolden(args[0], ts.MkAbs(args[1])))
}

func unpackGolden(name, dir string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(root, "testdata", "golden", name+".tar.gz"))
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = unpack(r, h, filepath.Join(dir, h.Name))
		}
		if err != nil {
			return err
		}
	}
	err = moveCold(filepath.Join(dir, "store", "tiers.json"), filepath.Join(dir, "cold"))
	if errors.Is(err, iofs.ErrNotExist) {
		err = nil // it has none
	}
	return err
}

// TestLostFilesOfGoldenStores takes each file of a store that an older program made, or its second
// half: the store opens with all that it had, or is refused with the file and what to do, at the
// second try as at the first. Such a store lacks what the program of today knows files by.
func TestLostFilesOfGoldenStores(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred openings one after the other")
	}
	// Not parallel: a child that another test forks would hold the store's lock for a moment.
	open := func(dir string) (has string, err error) {
		s, err := store.Open(dir, store.Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20})
		if err != nil {
			return "", err
		}
		rows := 0
		err = s.DB().Scan([]byte{0}, []byte{255}, func(key, _ []byte) error {
			if key[0] != 'f' { // the settings, which become rows
				rows++
			}
			return nil
		})
		return fmt.Sprint(s.Stats().Totals, rows), errors.Join(err, s.Close())
	}
	harms := map[string]func(path string, size int64) error{
		"missing": func(path string, _ int64) error { return os.Remove(path) },
		"cut":     func(path string, size int64) error { return os.Truncate(path, size/2) },
	}
	for _, name := range []string{"ad6b980", "ad6b980-closed"} {
		root := t.TempDir()
		made, dir := filepath.Join(root, "made"), filepath.Join(root, "x")
		if err := unpackGolden(name, made); err != nil {
			t.Fatal(err)
		}
		err := moveCold(filepath.Join(made, "store", "tiers.json"), filepath.Join(dir, "cold"))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			t.Fatal(err)
		}
		renew := func() {
			t.Helper()
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			must(t, "cp", "-a", "--sparse=always", made, dir)
		}
		renew()
		st := filepath.Join(dir, "store")
		var files []string
		err = filepath.WalkDir(st, func(path string, d iofs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, path)
			}
			return err
		})
		want, oerr := open(st)
		if err = errors.Join(err, oerr); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for how, do := range harms {
				renew()
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := do(file, info.Size()); err != nil {
					t.Fatal(err)
				}
				has, first := open(st)
				again, second := open(st)
				switch {
				case first == nil && second == nil && has == want && again == want:
				case len(store.DamagedFiles(first)) > 0 && second != nil && first.Error() == second.Error():
				case errors.Is(first, store.ErrNotStore) && errors.Is(second, store.ErrNotStore):
				default:
					t.Errorf("%s %s: %v, has %s, then %v, has %s; it had %s", file, how, first, has, second, again, want)
				}
			}
		}
	}
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
