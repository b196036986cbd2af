package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// A syncJob says which snapshots are to be on the other side too.
type syncJob struct {
	remote  store.Remote
	pull    bool
	names   []string // or
	all     bool     // or
	latest  bool
	as      string // the name that the only one gets
	prune   bool
	streams int

	progress func(remote.SyncProgress)
	retried  func(error)
}

// A syncReport says what a sync did.
type syncReport struct {
	Remote    string   `json:"remote"`
	Direction string   `json:"direction"`
	Sent      []string `json:"snapshots"` // their names on the receiving side
	Pruned    []string `json:"pruned"`
	remote.SyncProgress
	Seconds float64 `json:"seconds"`
}

func (j *syncJob) direction() string {
	if j.pull {
		return "pull"
	}
	return "push"
}

// run does the job, and has the local store remember how it went.
func (j *syncJob) run(ctx context.Context, local, peer remote.Node) (syncReport, error) {
	begun := time.Now()
	r := syncReport{Remote: j.remote.Name, Direction: j.direction(), Sent: []string{}, Pruned: []string{}}
	from, to := local, peer
	if j.pull {
		from, to = peer, local
	}
	err := j.sync(ctx, from, to, &r)
	r.Seconds = time.Since(begun).Seconds()
	note := store.SyncNote{
		Remote: r.Remote, Direction: r.Direction, Begun: begun, Ended: time.Now(),
		Snapshots: int64(len(r.Sent)), Blocks: r.Blocks, Bytes: r.Bytes,
	}
	if err != nil {
		note.Error = oneLine(err)
	}
	return r, errors.Join(err, local.NoteSync(context.WithoutCancel(ctx), note))
}

func (j *syncJob) sync(ctx context.Context, from, to remote.Node, r *syncReport) error {
	has, err := snapshotsOf(ctx, from)
	if err != nil {
		return err
	}
	there, err := snapshotsOf(ctx, to)
	if err != nil {
		return err
	}
	travels, err := j.choose(has, there)
	if err != nil {
		return err
	}
	if len(travels) > 0 {
		t := remote.Transfer{From: from, To: to, Snapshots: travels, Whose: j.direction() + " by " + hostname(),
			Streams: j.streams, Progress: j.progress, Retried: j.retried}
		if !j.pull { // a pull asks its own store, which costs nothing
			t.Base = newestCommon(has, there)
		}
		if r.SyncProgress, err = t.Run(ctx); err != nil {
			return err
		}
		for _, t := range travels {
			r.Sent = append(r.Sent, t.Name)
		}
	}
	if !j.prune {
		return nil
	}
	return j.pruneAt(ctx, from, to, has, there, r)
}

// newestCommon returns the ID of the newest snapshot that both sides have, if any.
func newestCommon(has, there []remote.Snapshot) []store.ID {
	known := make(map[store.ID]bool, len(there))
	for _, s := range there {
		known[s.ID] = true
	}
	for _, s := range slices.Backward(has) {
		if known[s.ID] {
			return []store.ID{s.ID}
		}
	}
	return nil
}

func snapshotsOf(ctx context.Context, n remote.Node) (list []remote.Snapshot, err error) {
	err = n.ListSnapshots(ctx, func(s remote.Snapshot) error { list = append(list, s); return nil })
	return list, err
}

// choose returns the snapshots that are to travel and are not there. The error
// names all whose names are taken.
func (j *syncJob) choose(has, there []remote.Snapshot) ([]remote.Travel, error) {
	chosen, err := j.wanted(has)
	if err != nil {
		return nil, err
	}
	taken, known := make(map[string]store.ID), make(map[store.ID]bool)
	for _, s := range there {
		taken[s.Name], known[s.ID] = s.ID, true
	}
	var travels []remote.Travel
	var conflicts []string
	for _, s := range chosen {
		name := j.remote.Prefix + s.Name
		if j.as != "" {
			name = j.as
		}
		id, ok := taken[name]
		switch {
		case ok && id == s.ID, j.all && known[s.ID]:
		case ok:
			conflicts = append(conflicts, printable(name))
		default:
			if err := store.ValidSnapshotName(name); err != nil {
				return nil, err
			}
			travels = append(travels, remote.Travel{Name: name, ID: s.ID})
		}
	}
	if len(conflicts) > 0 {
		return nil, fmt.Errorf("%w: the receiving store has other snapshots called %s; give --as or --prefix", store.ErrNameTaken, strings.Join(conflicts, ", "))
	}
	return travels, nil
}

func (j *syncJob) wanted(has []remote.Snapshot) ([]remote.Snapshot, error) {
	switch {
	case j.all || len(has) == 0 && len(j.names) == 0:
		return has, nil
	case j.latest:
		return has[len(has)-1:], nil
	}
	byName := make(map[string]remote.Snapshot, len(has))
	for _, s := range has {
		byName[s.Name] = s
	}
	var chosen []remote.Snapshot
	for _, name := range j.names {
		s, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("snapshot %q: the sending store has none of that name: %w", name, store.ErrNotFound)
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}

// pruneAt removes what came from the sending store and is there no more.
func (j *syncJob) pruneAt(ctx context.Context, from, to remote.Node, has, there []remote.Snapshot, r *syncReport) error {
	st, err := from.Stats(ctx)
	if err != nil {
		return err
	}
	kept := make(map[store.ID]bool, len(has))
	for _, s := range has {
		kept[s.ID] = true
	}
	for _, s := range there {
		if s.Held || kept[s.ID] || s.Volume != st.Store.VolumeID || !strings.HasPrefix(s.Name, j.remote.Prefix) {
			continue
		}
		if err := to.Disown(ctx, s.Name, s.ID); err != nil {
			return err
		}
		r.Pruned = append(r.Pruned, s.Name)
	}
	return nil
}
