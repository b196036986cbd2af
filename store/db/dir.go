package db

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// The instance in use is in one of two directories; the file MANIFEST beside them holds the name of
// that one, and nothing else. Replacing the file is how another instance comes into use. In the
// layout of before commit ad6b980 it is Badger's list of tables, which begins with a word of its
// own: a program for that layout refuses ours rather than making an empty database, and we refuse
// that one.
const (
	currentName = badger.ManifestFilename
	sstExt      = ".sst"
)

var instanceDirs = [...]string{"rows.0", "rows.1"}

// otherDir is the directory for the instance that takes the place of the one in dir.
func otherDir(dir string) string {
	parent, name := filepath.Split(dir)
	return filepath.Join(parent, instanceDirs[1-slices.Index(instanceDirs[:], name)])
}

// A disk does what changes the database's directory, but for the log and what Badger does.
// Tests set before, whose error an operation then has.
type disk struct{ before func(op, name string) error }

// named tells before by another name what is done, and maybe by the applier.
func (k disk) named(prefix string) disk {
	if k.before == nil {
		return k
	}
	return disk{func(op, name string) error { return k.before(prefix+op, name) }}
}

func (k disk) do(op, name string, f func() error) error {
	if k.before != nil {
		if err := k.before(op, name); err != nil {
			return err
		}
	}
	return f()
}

// tmpExt is what a file's name ends with until it is whole.
const tmpExt = ".tmp"

// createTmp makes the empty file that renameTmp gives its name. What goes wrong with it is said of
// name: the user knows no other.
func createTmp(name string) (*os.File, error) {
	fd, err := unix.Open(name+tmpExt, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(name+tmpExt, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func renameTmp(name string) error {
	return pathError("create", name, unix.Rename(name+tmpExt, name))
}

// write makes a file, durably but for its name.
func (k disk) write(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return k.fill(f, name, data)
}

// fill writes all that f has, which is called name now, and closes it.
func (k disk) fill(f *os.File, name string, data []byte) error {
	err := k.do("write", name, func() error {
		_, err := f.Write(data)
		return err
	})
	if err == nil {
		err = k.do("sync", name, f.Sync)
	}
	return errors.Join(err, f.Close())
}

// replace gives a small file new contents, durably and at once. After an error it has the old or
// the new ones.
func (k disk) replace(name string, data []byte) error {
	f, err := createTmp(name)
	if err != nil {
		return err
	}
	// Synced before it has its name: after a crash there are the old contents or all of the new.
	if err := k.fill(f, name+tmpExt, data); err != nil {
		return err
	}
	if err := k.do("rename", name, func() error { return renameTmp(name) }); err != nil {
		return err
	}
	return k.syncDir(filepath.Dir(name))
}

func (k disk) syncDir(dir string) error {
	return k.do("syncdir", dir, func() error { return syncDir(dir) })
}

// LockDir keeps other processes out of a directory until the file is closed, but for those that
// only read if this one does so, too. ErrLocked.
func LockDir(dir string, readOnly bool) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// A lock of the directory, which a killed process gives back, and no file to be left over or
	// removed.
	how := unix.LOCK_EX
	if readOnly {
		how = unix.LOCK_SH
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readCurrent returns the name of the instance's directory, or "" if there is no database
// in dir yet.
func readCurrent(dir string) (string, error) {
	b, err := readRegular(filepath.Join(dir, currentName), math.MaxInt32)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", unused(dir)
	case err != nil:
		return "", err
	case strings.HasPrefix(string(b), manifestMagic):
		return "", fmt.Errorf("%s: %w", dir, ErrOlder)
	case !slices.Contains(instanceDirs[:], string(b)):
		return "", damaged(filepath.Join(dir, currentName), "has %.20q, which is no name of a directory", b)
	}
	return string(b), nil
}

// unused tells whether dir has never been a database.
func unused(dir string) error {
	for _, name := range []string{logName(0), logName(1), filepath.Join(instanceDirs[0], currentName), filepath.Join(instanceDirs[1], currentName)} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return damaged(filepath.Join(dir, currentName), "is missing, and there is %s", name)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeFirst makes the first instance's directory. It may be repeated when it was interrupted.
func (d *DB) makeFirst() (string, error) {
	if err := os.Mkdir(filepath.Join(d.opt.Dir, instanceDirs[0]), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := d.opt.disk.syncDir(d.opt.Dir); err != nil {
		return "", err
	}
	return instanceDirs[0], d.point(instanceDirs[0])
}

// point makes the instance in the directory of this name the one in use, for the next opening.
func (d *DB) point(name string) error {
	return d.opt.disk.replace(filepath.Join(d.opt.Dir, currentName), []byte(name))
}

// removeUnused removes what is left of instances not in use.
func (d *DB) removeUnused(current string) error {
	if current == "" {
		return nil
	}
	entries, err := os.ReadDir(d.opt.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != current && leftover(name) {
			d.removeAll(filepath.Join(d.opt.Dir, name))
		}
	}
	return nil
}

// leftover tells names in the database's directory that mean nothing when no instance in use has
// them.
func leftover(name string) bool {
	return slices.Contains(instanceDirs[:], name) || name == currentName+tmpExt
}
