package store

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

// A View is the rows of a store at one instant, with what is not committed yet.
// Blocks that it shows may be gone: it keeps rows and no bytes. It is to be
// closed, and soon, since the database keeps every row that it shows. Its methods
// may be called concurrently.
type View struct {
	*db.View // the rows of fs/meta, among all others
	data     int64
	vertices int64
}

// View returns the store as it is now.
func (s *Store) View() (*View, error) {
	v, err := s.db.View()
	if err != nil {
		return nil, err
	}
	t := s.totalsNow()
	w := &View{View: v, data: t.Blocks[tiering.Data]}
	for _, n := range t.Blocks {
		w.vertices += n
	}
	w.vertices -= w.data
	return w, nil
}

// Count returns how many data blocks and vertices there are, more or less.
func (v *View) Count() (data, vertices int64) { return v.data, v.vertices }

// Blocks calls fn for every block in order of IDs. References that were not
// committed are not counted. An error of fn ends it and is returned, except
// ErrStop.
func (v *View) Blocks(ctx context.Context, fn func(ID, Entry) error) error {
	return v.ScanPrefix([]byte{keyBlock}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, e, err := decodeBlockRow(key, value)
		if err != nil {
			return err
		}
		return fn(id, e)
	})
}

// A Name is the name of an object or a snapshot. It refers to a name vertex, and
// this to what is named.
type Name struct {
	Name     string
	Snapshot bool // else it is an object's
	ID       ID   // of what is named
	Vertex   ID   // of the name vertex
}

// Names calls fn for every name, those of objects first, in order. An error of fn
// ends it and is returned, except ErrStop.
func (v *View) Names(ctx context.Context, fn func(Name) error) error {
	err := v.ScanPrefix([]byte{keyName}, func(key, value []byte) error {
		o, err := decodeObject(string(key[1:]), value)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(Name{Name: o.Name, ID: o.ID, Vertex: o.vertexID()})
	})
	if err != nil {
		return fmt.Errorf("names of objects: %w", err)
	}
	return v.ScanPrefix([]byte{keySnapshot}, func(key, value []byte) error {
		r, err := decodeSnapshotRef(string(key[1:]), value)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(Name{Name: r.Name, Snapshot: true, ID: r.ID, Vertex: r.vertexID()})
	})
}
