package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// Mirrored is what the register has of the copies of a volume that are kept in sync. The record's
// stamp is not in it: that is the revision of the volume's entry, and the register's generation.
//
// INVARIANT: a copy that may become the writer is in the record, which SwapMirrored alone changes.
type Mirrored struct {
	mirror.Record
	Copies []MirrorCopy `json:"copies"` // on other nodes than the home
}

// A MirrorCopy is where a node has its copy.
type MirrorCopy struct {
	Node  string `json:"node"`
	Store string `json:"store"` // its directory there; empty: one in the node's own
}

// mostMirrors is how many copies each commit may wait for.
const mostMirrors = 4

// ErrStale: the record is another one by now.
var ErrStale = errors.New("the volume's record in the register was changed meanwhile")

// Nodes are those that are to have a copy, beside the home; nil may be asked.
func (m *Mirrored) Nodes() (names []string) {
	if m == nil {
		return nil
	}
	for _, c := range m.Copies {
		names = append(names, c.Node)
	}
	return names
}

// Copy returns where a node has its copy.
func (m *Mirrored) Copy(node string) (MirrorCopy, bool) {
	if m == nil {
		return MirrorCopy{}, false
	}
	i := slices.IndexFunc(m.Copies, func(c MirrorCopy) bool { return c.Node == node })
	if i < 0 {
		return MirrorCopy{}, false
	}
	return m.Copies[i], true
}

// HasSync reports whether a node's copy has all that was acknowledged.
func (m *Mirrored) HasSync(node string) bool {
	return m != nil && slices.ContainsFunc(m.InSync, func(c mirror.Member) bool { return c.Node == node })
}

func (m *Mirrored) validate(v Volume) error {
	names := append([]string{v.Home}, m.Nodes()...)
	slices.Sort(names)
	switch {
	case len(names)-1 > mostMirrors:
		return fmt.Errorf("volume %s: %w: at most %d mirrors", v.Name, ErrPlace, mostMirrors)
	case len(slices.Compact(slices.Clone(names))) < len(names):
		return fmt.Errorf("volume %s: %w: home and mirrors are different nodes", v.Name, ErrPlace)
	}
	return nil
}

// A mirrorState is a volume as the register has it at one moment.
type mirrorState struct {
	volume   Volume
	record   mirror.Record
	settings int64 // the revision of the config, whose generation is in the record's stamp
}

// readMirrored reads the volume and the generation as of one moment: between the two the register
// may be made again, and revisions begin anew.
func (c *Cluster) readMirrored(ctx context.Context, name string) (s mirrorState, err error) {
	for {
		before, err := c.Register.Get(ctx, configKey)
		if err != nil {
			return s, err
		}
		e, err := c.Register.Get(ctx, volumeKeys+name)
		if errors.Is(err, register.ErrNotFound) {
			return s, fmt.Errorf("%q: %w", name, ErrNoVolume)
		}
		if err != nil {
			return s, err
		}
		after, err := c.Register.Get(ctx, configKey)
		if err != nil {
			return s, err
		}
		if before.Revision != after.Revision {
			continue
		}
		var conf Config
		var v Volume
		if err := errors.Join(decode(after, &conf), decode(e, &v)); err != nil {
			return s, err
		}
		if v.Mirrored == nil {
			return s, fmt.Errorf("%s: %w: it has no mirrors", name, ErrNoVolume)
		}
		s = mirrorState{v, v.Mirrored.Record, after.Revision}
		s.record.Stamp = mirror.Stamp{Generation: generationNumber(conf.Generation), Revision: e.Revision}
		return s, nil
	}
}

// generationNumber stands for a generation in stamps.
func generationNumber(generation string) uint64 {
	sum := sha256.Sum256([]byte(generation))
	return binary.BigEndian.Uint64(sum[:]) | 1 // 0 is that of who has seen none
}

// MirrorRecord returns a volume and its record, with its stamp: ErrNoVolume.
func (c *Cluster) MirrorRecord(ctx context.Context, name string) (Volume, mirror.Record, error) {
	s, err := c.readMirrored(ctx, name)
	return s.volume, s.record, err
}

// SwapMirrored replaces the record that has next's stamp: ErrStale. by is the node that asks, which
// is to be the writer: ErrFenced, if the volume's home is another one. With store by becomes the
// home, in the same step, and the former home's copy is one of the mirrors from then on.
func (c *Cluster) SwapMirrored(ctx context.Context, name, by, store string, next mirror.Record) (Volume, mirror.Record, error) {
	s, err := c.readMirrored(ctx, name)
	if err != nil {
		return s.volume, s.record, err
	}
	v := s.volume
	switch {
	case s.record.Stamp != next.Stamp:
		return v, s.record, ErrStale
	case next.Writer != by || store == "" && v.Home != by:
		return v, s.record, fmt.Errorf("%s: %w: %s is its home", name, ErrFenced, v.Home)
	}
	m := Mirrored{Record: next, Copies: slices.Clone(v.Mirrored.Copies)}
	m.Stamp = mirror.Stamp{}
	if store != "" && v.Home != by {
		m.Copies = slices.DeleteFunc(m.Copies, func(c MirrorCopy) bool { return c.Node == by })
		m.Copies = append(m.Copies, MirrorCopy{v.Home, v.Store})
		v.Home, v.Store, v.From = by, store, nil
		v.Epoch++
		v.setVaults(nil, []string{by})
	}
	v.Mirrored = &m
	if err := v.Validate(); err != nil {
		return s.volume, s.record, err
	}
	revision, err := c.Register.Commit(ctx, register.Txn{
		If:  []register.Condition{{Key: configKey, Revision: s.settings}, {Key: volumeKeys + name, Revision: next.Stamp.Revision}},
		Put: []register.Entry{entry(volumeKeys+name, v)},
	})
	if errors.Is(err, register.ErrConflict) {
		err = ErrStale
	}
	if err != nil {
		return s.volume, s.record, err
	}
	next.Stamp.Revision = revision
	return v, next, nil
}
