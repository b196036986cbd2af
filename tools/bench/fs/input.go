package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// An input is the data that all targets are given: bytes made from a seed, and
// a source tree as a tar file.
type input struct {
	seed  uint64
	scale float64
	tree  string // directory that tarFile holds
	dir   string // of our own, on a local disk

	tarFile string
	entries int64 // in the tree, itself included

	buf     []byte
	bufSeed uint64
}

// size scales a number of units, never below least.
func (in *input) size(units, least int) int {
	return max(least, int(float64(units)*in.scale))
}

// data returns n bytes made from the seed. They are valid, and may be changed,
// until the next call; making them is kept out of every timed run.
func (in *input) data(seed uint64, n int) []byte {
	if cap(in.buf) < n {
		in.buf, in.bufSeed = make([]byte, n), 0
	}
	// Most workloads ask twice for the same, in set-up and in run.
	if in.bufSeed != seed || len(in.buf) != n {
		in.buf = in.buf[:n]
		fill(in.buf, seed)
		in.bufSeed = seed
	}
	return in.buf
}

// spoiled says that the caller has changed what data returned.
func (in *input) spoiled() { in.bufSeed = 0 }

// seedFor makes a seed, never 0, of the round and the kind of data.
func (in *input) seedFor(round int, kind uint64) uint64 {
	return mix(mix(in.seed+kind*golden)+uint64(round)) | 1
}

// tar makes the tar file at the first call, and each time reads it, so that
// it is in the page cache.
func (in *input) tar(ctx context.Context) (string, error) {
	if in.tarFile == "" {
		entries, _, err := measure(in.tree)
		if err != nil {
			return "", err
		}
		in.entries = entries
		name := filepath.Join(in.dir, "tree.tar")
		// Sorted, so that the order of names is the same on every machine.
		if err := command(ctx, "tar", "--sort=name", "-cf", name, "-C", in.tree, "."); err != nil {
			return "", err
		}
		in.tarFile = name
	}
	f, err := os.Open(in.tarFile)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, f)
	return in.tarFile, errors.Join(err, f.Close())
}

// measure counts a tree's entries and the bytes of its files.
func measure(root string) (entries, bytes int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			bytes += info.Size()
		}
		return nil
	})
	return entries, bytes, err
}

// sameTree compares what can be compared without reading every file.
func sameTree(want, got string) error {
	wantEntries, wantBytes, err := measure(want)
	if err != nil {
		return err
	}
	gotEntries, gotBytes, err := measure(got)
	if err != nil {
		return err
	}
	if wantEntries != gotEntries || wantBytes != gotBytes {
		return fmt.Errorf("%s has %d entries, %d bytes; %s has %d, %d", got, gotEntries, gotBytes, want, wantEntries, wantBytes)
	}
	return nil
}
