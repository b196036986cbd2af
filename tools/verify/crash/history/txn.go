package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Saver's history: a file that is replaced as editors do it, by a temporary
// file renamed over it.
type Saver struct {
	Base   []byte   // what is there before the first save
	Saves  [][]byte // content of each save begun, the last perhaps not finished
	Synced int      // so many saves were acknowledged by an fsync of the directory
	Times  []Span   // of each of Saves, for a Cut
}

// Judge fails unless the file holds exactly one of the contents that may be
// there, whole.
func (h Saver) Judge(seen []byte) error {
	for n := h.Synced; n <= len(h.Saves); n++ {
		if string(h.after(n)) == string(seen) {
			return nil
		}
	}
	return fmt.Errorf("holds none of the contents of saves %d (acknowledged) to %d (begun): against the acknowledged, %s",
		h.Synced, len(h.Saves), explain(h.after(h.Synced), seen))
}

func (h Saver) after(n int) []byte {
	if n == 0 {
		return h.Base
	}
	return h.Saves[n-1]
}

// A Txn overwrites pages of a database file.
type Txn struct {
	Pages []int `json:"pages"`
	Tag   Tag   `json:"tag"`
}

// A Journaled history is that of a database with a rollback journal, as
// SQLite's: the old pages are made durable in a journal, the new ones in the
// database, and removing the journal commits.
type Journaled struct {
	Base      []byte
	Txns      []Txn  // begun
	Committed int    // acknowledged
	Times     []Span // of each of Txns, for a Cut
}

// Judge recovers the database as the next program to open it would, and
// returns the recovered content. It fails unless that is the content after all
// acknowledged transactions or one more.
func (h Journaled) Judge(db, journal []byte) ([]byte, error) {
	recovered := slices.Clone(db)
	pages, err := ParseJournal(journal)
	// A torn journal is none: it was not yet durable, so the database had not been touched.
	if err == nil {
		for n, old := range pages {
			copy(recovered[min(len(recovered), n*PageSize):], old)
		}
	}
	want := slices.Clone(h.Base)
	for t := 0; ; t++ {
		// Two transactions can give the same bytes; any that is allowed is enough.
		if t >= h.Committed && string(want) == string(recovered) {
			return recovered, nil
		}
		if t == len(h.Txns) {
			return nil, fmt.Errorf("the database (journal: %v) is not as after any of transactions %d (acknowledged) to %d (begun): against the last, %s",
				journalState(journal, err), h.Committed, t, explain(want, recovered))
		}
		h.Txns[t].apply(want)
	}
}

func journalState(journal []byte, err error) string {
	switch {
	case journal == nil:
		return "none"
	case err != nil:
		return "invalid"
	}
	return "valid, rolled back"
}

func (t Txn) apply(db []byte) {
	for _, n := range t.Pages {
		t.Page(db[n*PageSize:(n+1)*PageSize], n)
	}
}

// Page makes the nth page as the transaction writes it.
func (t Txn) Page(buf []byte, n int) { Fill(buf, t.Tag, int64(n)*PageSize) }

// A journal is a count, then page numbers and old pages in turn, then a
// checksum of all before; integers are 8 bytes, big-endian. One with two pages
// takes 8 + 2*(8+4096) + 8 = 8224 bytes.

// MakeJournal keeps the pages of db that the transaction will overwrite.
func MakeJournal(db []byte, t Txn) []byte {
	j := binary.BigEndian.AppendUint64(nil, uint64(len(t.Pages)))
	for _, n := range t.Pages {
		j = binary.BigEndian.AppendUint64(j, uint64(n))
		j = append(j, db[n*PageSize:(n+1)*PageSize]...)
	}
	return binary.BigEndian.AppendUint64(j, Sum(j))
}

var errNoJournal = errors.New("no valid journal")

// ParseJournal returns the old pages, or an error for a journal that was not
// written to its end.
func ParseJournal(j []byte) (map[int][]byte, error) {
	// The checksum first: in a torn journal the count is as little to be trusted as the rest.
	if len(j) < 16 || binary.BigEndian.Uint64(j[len(j)-8:]) != Sum(j[:len(j)-8]) {
		return nil, errNoJournal
	}
	n := binary.BigEndian.Uint64(j)
	j = j[8 : len(j)-8]
	if uint64(len(j)) != n*(8+PageSize) {
		return nil, errNoJournal
	}
	pages := make(map[int][]byte, n)
	for ; len(j) > 0; j = j[8+PageSize:] {
		pages[int(binary.BigEndian.Uint64(j))] = j[8 : 8+PageSize]
	}
	return pages, nil
}
