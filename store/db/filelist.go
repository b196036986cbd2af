package db

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// A fileList says which files an instance cannot do without. It is a file in the instance's
// directory, TABLES, written before a log file is released: what is in no listed file is
// in the log. docs/format/database-layer.md describes it.
type fileList struct {
	log     logID       // of the commit log that goes with the instance
	seq     uint64      // all commits below are in the instance
	settled uint64      // all versions up to this are in the listed tables
	needed  uint64      // the versions above, up to this, are in tables made since or in listed memtable logs
	tables  []tableFile // by number
	mems    []memLog    // by number
}

// A tableFile is a table as it was when it was made: tables do not change.
type tableFile struct {
	id   uint64
	size int64
	sum  uint32 // of the end, which has the checksum of the index, and so stands for all of it
}

// A memLog is a memtable's log, known by the random bytes at its start.
type memLog struct {
	seq  int
	salt string // hex
}

// begun reports whether the log has its header.
func (m memLog) begun() bool { return len(m.salt) == hex.EncodedLen(memHeader) }

const (
	listName  = "TABLES"
	listMagic = "QuarXFS tables 1"
	// maxList bounds the bytes of a list: half a million tables.
	maxList = 32 << 20
)

func (l *fileList) table(id uint64) (tableFile, bool) {
	if l == nil {
		return tableFile{}, false
	}
	i, ok := slices.BinarySearchFunc(l.tables, id, func(t tableFile, id uint64) int { return cmp.Compare(t.id, id) })
	if !ok {
		return tableFile{}, false
	}
	return l.tables[i], true
}

func byNumber(a, b tableFile) int { return cmp.Compare(a.id, b.id) }

func (l *fileList) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nlog %x\nseq %d\nsettled %d\nneeded %d\n", listMagic, l.log, l.seq, l.settled, l.needed)
	for _, t := range l.tables {
		fmt.Fprintf(&b, "table %d %d %08x\n", t.id, t.size, t.sum)
	}
	for _, m := range l.mems {
		fmt.Fprintf(&b, "mem %d %s\n", m.seq, m.salt)
	}
	fmt.Fprintf(&b, "crc32c %08x\n", crc32.Checksum(b.Bytes(), castagnoli()))
	return b.Bytes()
}

// parseList reads what encode makes, and nothing else.
func parseList(b []byte) (*fileList, error) {
	l := new(fileList)
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 || lines[0] != listMagic {
		return nil, errors.New("is no list of tables")
	}
	id, err := hex.DecodeString(strings.TrimPrefix(lines[1], "log "))
	if err == nil && len(id) == len(l.log) {
		l.log = logID(id)
	}
	for _, line := range lines[2:] {
		var t tableFile
		var m memLog
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "seq":
			l.seq, err = strconv.ParseUint(rest, 10, 64)
		case "settled":
			l.settled, err = strconv.ParseUint(rest, 10, 64)
		case "needed":
			l.needed, err = strconv.ParseUint(rest, 10, 64)
		case "table":
			_, err = fmt.Sscanf(rest, "%d %d %x", &t.id, &t.size, &t.sum)
			l.tables = append(l.tables, t)
		case "mem":
			// Lists were written that name a log without a salt, which had no row yet.
			seq, salt, _ := strings.Cut(rest, " ")
			m.seq, err = strconv.Atoi(seq)
			m.salt = salt
			l.mems = append(l.mems, m)
		}
		if err != nil {
			return nil, fmt.Errorf("does not read at %.80q", line)
		}
	}
	if !slices.IsSortedFunc(l.tables, byNumber) || !bytes.Equal(l.encode(), b) {
		return nil, errors.New("does not match its checksum")
	}
	return l, nil
}

// readList returns the list of the instance in dir; nil, when there is none.
func readList(dir string) (*fileList, error) {
	name := filepath.Join(dir, listName)
	b, err := readRegular(name, maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := parseList(b)
	if err != nil {
		return nil, damaged(name, "%s", err)
	}
	return l, nil
}

// readRegular reads a file that must be one, of so many bytes at most.
func readRegular(name string, most int64) ([]byte, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		err = Unreadable(name, err)
	}
	if err == nil && int64(len(b)) > most {
		err = damaged(name, "is too long")
	}
	return b, err
}

// openRegular opens a file for reading. What is no regular file is damage: nobody may
// have the store read or write elsewhere by putting a link there.
func openRegular(name string) (*os.File, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, Irregular(name, info.Mode())
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, Unreadable(name, err)
	}
	return f, nil
}

// tableOf looks at a table's end. ErrCorrupt: it has none.
func tableOf(dir string, id uint64) (tableFile, error) {
	name := table.NewFilename(id, dir)
	f, err := openRegular(name)
	if err != nil {
		return tableFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return tableFile{}, err
	}
	// The end has the checksum of the index, and the index says where every block is: no table
	// passes for another.
	_, to, err := indexOf(f, info.Size())
	// A checksum takes some twenty bytes. A longer end is a length that was read from other bytes.
	if errors.Is(err, ErrCorrupt) || err == nil && info.Size()-to > 1<<10 {
		return tableFile{}, damaged(name, "was cut, or is no table")
	}
	if err != nil {
		return tableFile{}, err
	}
	end := make([]byte, info.Size()-to)
	if _, err := f.ReadAt(end, to); err != nil {
		return tableFile{}, err
	}
	return tableFile{id, info.Size(), crc32.Checksum(end, castagnoli())}, nil
}

// liveTables returns the tables that Badger's list has, with the index in sets of the one that
// added each.
func liveTables(sets []changeSet) map[uint64]int {
	live := make(map[uint64]int)
	for i, s := range sets {
		for _, c := range s.changes {
			if c.Op == pb.ManifestChange_CREATE {
				live[c.Id] = i
			} else {
				delete(live, c.Id)
			}
		}
	}
	return live
}

// tablesIn returns the tables whose files are in dir.
func tablesIn(dir string) (map[uint64]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	tables := make(map[uint64]bool)
	for _, e := range entries {
		if id, ok := table.ParseFileID(e.Name()); ok {
			tables[id] = true
		}
	}
	return tables, nil
}

// memLogs returns the memtable logs in dir.
func memLogs(dir string) ([]memLog, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var mems []memLog
	for _, e := range entries {
		n, ok := strings.CutSuffix(e.Name(), memExt)
		seq, err := strconv.Atoi(n)
		if !ok || err != nil {
			continue
		}
		salt, err := memSalt(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) { // it became a table
			continue
		}
		if err != nil {
			return nil, err
		}
		mems = append(mems, memLog{seq, salt})
	}
	slices.SortFunc(mems, func(a, b memLog) int { return a.seq - b.seq })
	return mems, nil
}

func memSalt(name string) (string, error) {
	f, err := openRegular(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b [memHeader]byte
	n, err := f.ReadAt(b[:], 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return hex.EncodeToString(b[:n]), err
}

// updateList writes b's list anew if it is not as the files are. All commits below
// seq are in b, durably, and no version above upto. settled is that up to which all are in tables.
func (b *instance) updateList(d *DB, seq, settled, upto uint64, always bool) error {
	list := fileList{log: d.clog.id, seq: seq, settled: settled, needed: upto}
	// Badger makes tables meanwhile, which are in its list before they are in use. Those are not
	// listed here, and so are read when the database is opened: what is listed is taken to have
	// no version above settled. A closed database makes no more.
	closed := b.kv.IsClosed()
	made := make(map[uint64]bool)
	if !closed {
		for _, t := range b.kv.Tables() {
			made[t.ID] = true
			list.settled = max(list.settled, t.MaxVersion)
		}
	}
	sets, _, err := readManifest(b.dir)
	if err != nil {
		return err
	}
	live := liveTables(sets)
	if closed {
		// Whatever Badger had no use for it has removed: what is there is in its list.
		if made, err = tablesIn(b.dir); err != nil {
			return err
		}
	}
	for id := range made {
		// The list was cut or replaced beneath Badger. Noted so, it would be the database.
		if _, ok := live[id]; !ok {
			return damaged(filepath.Join(b.dir, badger.ManifestFilename), "was cut, or is another one: it lacks %s", table.IDToFilename(id))
		}
	}
	for id := range live {
		// In the list of tables, but not in use yet: see above.
		if !closed && !made[id] {
			continue
		}
		t, ok := b.list.table(id)
		if !ok {
			if t, err = tableOf(b.dir, id); errors.Is(err, fs.ErrNotExist) {
				continue // the adding was taken back
			} else if err != nil {
				return err
			}
		}
		list.tables = append(list.tables, t)
	}
	slices.SortFunc(list.tables, byNumber)
	if list.mems, err = memLogs(b.dir); err != nil {
		return err
	}
	// Badger may be making the next one, which has no version yet.
	list.mems = slices.DeleteFunc(list.mems, func(m memLog) bool { return !m.begun() })
	if !always && b.list != nil && slices.Equal(list.tables, b.list.tables) && slices.Equal(list.mems, b.list.mems) {
		return nil
	}
	if err := d.opt.disk.named("list ").replace(filepath.Join(b.dir, listName), list.encode()); err != nil {
		return asFull(err)
	}
	b.list = &list
	return nil
}

// inTables is the version up to which all are in tables. Memtables become tables one
// after another.
func (b *instance) inTables() uint64 {
	settled := uint64(0)
	if b.list != nil {
		settled = b.list.settled
	}
	for _, t := range b.kv.Tables() {
		settled = max(settled, t.MaxVersion)
	}
	return settled
}

// readManifest reads Badger's list of tables; torn: it has bytes that are no entry.
func readManifest(dir string) (sets []changeSet, torn bool, err error) {
	name := filepath.Join(dir, badger.ManifestFilename)
	b, err := readRegular(name, math.MaxInt32)
	if err != nil {
		return nil, false, err
	}
	if len(b) < manifestHeader || string(b[:4]) != manifestMagic {
		return nil, false, damaged(name, "is no list of tables")
	}
	sets, _ = readSets(b)
	n := manifestHeader
	for _, s := range sets {
		n += len(s.raw)
	}
	return sets, n < len(b), nil
}
