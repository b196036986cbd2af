package snapread

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/handle"
)

// A cacheDir keeps records of blocks, each in a file, up to so many bytes:
//
//	cache.json        what this is, and the URL that the list is of
//	snapshots.json    the list of snapshots
//	blocks/ab/ab12…   a record, as it travels
//
// All of it may be lost: nothing is synced, and each block is checked when it is read.
type cacheDir struct {
	dir   *handle.Dir
	url   string
	lock  *os.File
	files *otter.Cache[store.ID, uint32] // their bytes
	list  sync.Mutex
}

const (
	cacheMark  = "cache.json"
	cacheList  = "snapshots.json"
	cacheFiles = "blocks"
	cacheLeast = 4096 // bytes that a file takes
)

type cacheInfo struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	URL     string `json:"url"`
}

func openCacheDir(o CacheOptions) (*cacheDir, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := handle.Open(o.Dir)
	if err != nil {
		return nil, err
	}
	d := &cacheDir{dir: dir, url: o.URL}
	if err := d.claim(); err != nil {
		return nil, errors.Join(handle.ShownError(err), d.close())
	}
	d.files = otter.Must(&otter.Options[store.ID, uint32]{
		MaximumWeight: uint64(o.Disk),
		Weigher:       func(_ store.ID, size uint32) uint32 { return max(size, cacheLeast) },
		OnAtomicDeletion: func(e otter.DeletionEvent[store.ID, uint32]) {
			if e.WasEvicted() {
				_ = os.Remove(d.path(e.Key)) // what stays is found again at the next start
			}
		},
	})
	if err := d.scan(); err != nil {
		return nil, errors.Join(handle.ShownError(err), d.close())
	}
	return d, nil
}

// claim makes sure that the directory is a cache, and nobody else's.
func (d *cacheDir) claim() error {
	mark := d.dir.Join(cacheMark)
	names, err := os.ReadDir(d.dir.Join())
	if err != nil {
		return err
	}
	_, err = os.Stat(mark)
	// The mark decides, and a directory without one must be empty: what is not ours is never
	// removed.
	isCache := err == nil
	foreign := slices.ContainsFunc(names, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") })
	if !isCache && foreign {
		return fmt.Errorf("%w: %s is no cache and holds other files", store.ErrNotEmpty, d.dir.Path())
	}
	if d.lock, err = os.OpenFile(mark, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	// Before anything is read or changed: two mounts would count and remove each other's files. The
	// kernel lets go of it when the process ends, however it does.
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: the cache %s", store.ErrLocked, d.dir.Path())
	}
	var info cacheInfo
	if err := json.NewDecoder(d.lock).Decode(&info); isCache && err == nil && (info.Kind != "quarxfs cache" || info.Version != 1) {
		return fmt.Errorf("%w: %s is no cache of this version", store.ErrNotEmpty, d.dir.Path())
	}
	// The list of snapshots is another store's. Blocks stay: their names say what is in them.
	if info.URL != d.url {
		_ = os.Remove(d.dir.Join(cacheList))
	}
	b, err := json.Marshal(cacheInfo{"quarxfs cache", 1, d.url})
	if err == nil {
		err = d.lock.Truncate(0)
	}
	if err == nil {
		_, err = d.lock.WriteAt(append(b, '\n'), 0)
	}
	return err
}

func (d *cacheDir) close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.dir.Close())
}

func (d *cacheDir) path(id store.ID) string {
	name := id.String()
	return d.dir.Join(cacheFiles, name[:2], name)
}

// scan finds what is kept, the longest unread first, and removes what was not
// finished.
func (d *cacheDir) scan() error {
	type file struct {
		id   store.ID
		size int64
		read syscall.Timespec
	}
	var all []file
	err := filepath.WalkDir(d.dir.Join(cacheFiles), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f := file{size: info.Size()}
		// A file under another name was being written when the process ended.
		if f.id.UnmarshalText([]byte(e.Name())) != nil {
			return os.Remove(path)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.read = st.Atim
		}
		all = append(all, f)
		return nil
	})
	// In the order in which they were used, so that the cache drops first what it would have
	// dropped before.
	slices.SortFunc(all, func(a, b file) int { return int(min(1, max(-1, a.read.Nano()-b.read.Nano()))) })
	for _, f := range all {
		d.files.Set(f.id, uint32(min(f.size, 1<<30)))
	}
	return err
}

// get returns a block's plain bytes, or nil. What is damaged is removed.
func (d *cacheDir) get(id store.ID) (plain []byte) {
	if _, ok := d.files.GetIfPresent(id); !ok {
		return nil
	}
	b, err := os.ReadFile(d.path(id))
	if err == nil {
		err = remote.ReadRecords(bytes.NewReader(b), 1, nil, func(r store.Record) (err error) {
			if store.ID(r.ID) != id {
				return store.ErrCorrupt
			}
			plain, err = store.Unpack(&r)
			return err
		})
	}
	if err != nil {
		d.files.Invalidate(id)
		_ = os.Remove(d.path(id)) // it is overwritten otherwise
		return nil
	}
	return plain // its bytes are b's or its own
}

// put keeps a record.
func (d *cacheDir) put(r *store.Record) error {
	var b bytes.Buffer
	w := remote.NewRecordWriter(&b)
	if err := w.Write(*r); err != nil {
		return err
	}
	if err := w.End(); err != nil {
		return err
	}
	path := d.path(store.ID(r.ID))
	if err := writeWhole(path, b.Bytes()); err != nil {
		return err
	}
	d.files.Set(store.ID(r.ID), uint32(b.Len()))
	return nil
}

// writeWhole replaces a file, or leaves it.
func writeWhole(path string, b []byte) (err error) {
	defer func() { err = durable.ErrorAt(err, path) }()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (d *cacheDir) saveList(list []remote.Snapshot) error {
	d.list.Lock()
	defer d.list.Unlock()
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return writeWhole(d.dir.Join(cacheList), b)
}

func (d *cacheDir) loadList() (list []remote.Snapshot, ok bool) {
	d.list.Lock()
	defer d.list.Unlock()
	b, err := os.ReadFile(d.dir.Join(cacheList))
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	return list, err == nil
}
