package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A Job says which snapshots are to be on the other side too.
type Job struct {
	Remote  config.Remote
	Pull    bool
	Names   []string // or
	All     bool     // or
	Latest  bool
	As      string // the name that the only one gets
	Prune   bool
	Streams int
	Host    string // this machine, which the leases name

	Progress func(Progress) // may be nil
	Retried  func(error)    // may be nil
}

// A Report says what a sync did.
type Report struct {
	Remote    string   `json:"remote"`
	Direction string   `json:"direction"`
	Sent      []string `json:"snapshots"` // their names on the receiving side
	Pruned    []string `json:"pruned"`
	Missing   []string `json:"missing"` // named, and not in the sending store
	Refused   []string `json:"refused"` // names that other snapshots have on the receiving side
	Damaged   []string `json:"damaged"` // names of those that the sending store cannot read
	Progress
	Seconds float64 `json:"seconds"`
}

func (j *Job) direction() string {
	if j.Pull {
		return "pull"
	}
	return "push"
}

// Run does the job, and has the local store remember how it went. What other
// snapshots have the names of is left out, and so are damaged ones: the rest is done and
// reported, with store.ErrNameTaken or store.ErrCorrupt.
func (j *Job) Run(ctx context.Context, local, peer remote.Node) (Report, error) {
	begun := time.Now()
	r := Report{Remote: j.Remote.Name, Direction: j.direction(), Sent: []string{}, Pruned: []string{}, Missing: []string{}, Refused: []string{}, Damaged: []string{}}
	from, to := local, peer
	if j.Pull {
		from, to = peer, local
	}
	came, err := j.remembered(ctx, local)
	if err == nil {
		err = j.sync(ctx, from, to, came, &r)
	}
	r.Seconds = time.Since(begun).Seconds()
	note := store.SyncNote{
		Remote: r.Remote, Direction: r.Direction, Begun: begun, Ended: time.Now(),
		Snapshots: int64(len(r.Sent)), Blocks: r.Blocks, Bytes: r.Bytes, Came: came,
	}
	if err != nil {
		note.Error = err.Error()
	}
	// Without the cancelling: a sync that was broken off leaves its note as well.
	return r, errors.Join(err, local.NoteSync(context.WithoutCancel(ctx), note))
}

// remembered is what came from where, by direction, as the local store knows.
func (j *Job) remembered(ctx context.Context, local remote.Node) (map[string][]store.ID, error) {
	state, err := local.SyncState(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range state.Notes {
		if n.Remote == j.Remote.Name && n.Came != nil {
			return n.Came, nil
		}
	}
	return make(map[string][]store.ID), nil
}

func (j *Job) sync(ctx context.Context, from, to remote.Node, came map[string][]store.ID, r *Report) error {
	has, err := Snapshots(ctx, from)
	if err != nil {
		return err
	}
	there, err := Snapshots(ctx, to)
	if err != nil {
		return err
	}
	chosen, err := j.choose(has, there, r)
	if err != nil {
		return err
	}
	arrived, err := j.send(ctx, from, to, chosen, has, there, r)
	ids, known := came[j.direction()]
	known = known || len(there) == 0
	if err == nil && j.Prune && !known {
		ids, err = cameBefore(ctx, from, to, there)
		known = err == nil
	}
	// Also of a sync that broke off: what it brought would stay there for ever. What is there no
	// more is forgotten, or the list would grow for ever.
	if known {
		came[j.direction()] = append(stillThere(ids, there), arrived...)
	}
	if err != nil {
		return err
	}
	if j.Prune {
		// Last: nothing is removed there before what is new has arrived.
		if err := j.prune(ctx, from, to, has, there, came, r); err != nil {
			return err
		}
	}
	return r.refusal()
}

// stillThere are those of the IDs that are among snapshots.
func stillThere(ids []store.ID, snapshots []remote.Snapshot) (left []store.ID) {
	is := make(map[store.ID]bool, len(snapshots))
	for _, s := range snapshots {
		is[s.ID] = true
	}
	left = []store.ID{} // an empty list is known, too
	for _, id := range ids {
		if is[id] {
			left = append(left, id)
		}
	}
	return left
}

// send has the chosen snapshots travel, and says which have arrived, also when an error has kept
// the others.
func (j *Job) send(ctx context.Context, from, to remote.Node, chosen []SnapshotRef, has, there []remote.Snapshot, r *Report) (arrived []store.ID, err error) {
	if len(chosen) == 0 {
		return nil, nil
	}
	t := Transfer{From: from, To: to, Snapshots: chosen, Whose: j.direction() + " by " + j.Host,
		Streams: j.Streams, Progress: j.Progress, Retried: j.Retried,
		Arrived: func(s SnapshotRef) {
			// A try after an interruption brings once more what it finds there.
			if !slices.Contains(r.Sent, s.Name) {
				r.Sent, arrived = append(r.Sent, s.Name), append(arrived, s.ID)
			}
		}}
	if !j.Pull { // a pull asks its own store, which costs nothing
		t.Base = newestCommon(has, there)
	}
	r.Progress, err = t.Run(ctx)
	return arrived, err
}

// LeftOut reports whether all was done but what the error names.
func (r *Report) LeftOut() bool { return len(r.Missing)+len(r.Refused)+len(r.Damaged) > 0 }

// refusal names what was left out: store.ErrNotFound, store.ErrCorrupt, store.ErrNameTaken.
func (r *Report) refusal() (err error) {
	if len(r.Missing) > 0 {
		err = fmt.Errorf("%w: the sending store has no snapshots called %s", store.ErrNotFound, quoted(r.Missing))
	}
	if len(r.Damaged) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: the sending store cannot read the snapshots %s; its quarxfs snapshot list says why",
			store.ErrCorrupt, quoted(r.Damaged)))
	}
	if len(r.Refused) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: the receiving store has other snapshots called %s; give --as or --prefix",
			store.ErrNameTaken, quoted(r.Refused)))
	}
	return err
}

func quoted(names []string) string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = strconv.Quote(name)
	}
	return strings.Join(list, ", ")
}

// newestCommon returns the ID of the newest snapshot that both sides have, if any.
func newestCommon(has, there []remote.Snapshot) []store.ID {
	known := make(map[store.ID]bool, len(there))
	for _, s := range there {
		known[s.ID] = s.Fault == "" // what is damaged there shows nobody what is below it
	}
	// Listed from the oldest on; the newest shares the most with what is to travel.
	for _, s := range slices.Backward(has) {
		if known[s.ID] && s.Fault == "" {
			return []store.ID{s.ID}
		}
	}
	return nil
}

// Snapshots returns those that a node lists, in its order.
func Snapshots(ctx context.Context, n remote.Peer) (list []remote.Snapshot, err error) {
	err = n.ListSnapshots(ctx, func(s remote.Snapshot) error {
		// A peer's list may have no end.
		if len(list) == maxListed {
			return fmt.Errorf("%w: the peer lists more than %d snapshots", store.ErrConfig, maxListed)
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

const maxListed = 1 << 20

// choose returns the snapshots that are to travel and are not there. The report gets those that
// cannot.
func (j *Job) choose(has, there []remote.Snapshot, r *Report) (chosen []SnapshotRef, err error) {
	taken, known := make(map[string]store.ID), make(map[store.ID]bool)
	for _, s := range there {
		taken[s.Name], known[s.ID] = s.ID, true
	}
	for _, s := range j.wanted(has, r) {
		name := j.Remote.Prefix + s.Name
		if j.As != "" {
			name = j.As
		}
		id, ok := taken[name]
		switch {
		// There already; with --all under whatever name, since names there may have been changed.
		case ok && id == s.ID, j.All && known[s.ID]:
		case ok:
			r.Refused = append(r.Refused, name)
		case s.Fault != "":
			r.Damaged = append(r.Damaged, s.Name)
		default:
			if err := config.ValidSnapshotName(name); err != nil {
				return nil, err
			}
			chosen = append(chosen, SnapshotRef{Name: name, ID: s.ID})
		}
	}
	return chosen, nil
}

// wanted returns those of a list that are to travel. The report gets the names that it has not.
func (j *Job) wanted(has []remote.Snapshot, r *Report) (chosen []remote.Snapshot) {
	switch {
	// The latest of none is none, and no error.
	case j.All || len(has) == 0 && len(j.Names) == 0:
		return has
	case j.Latest:
		return has[len(has)-1:]
	}
	byName := make(map[string]remote.Snapshot, len(has))
	for _, s := range has {
		byName[s.Name] = s
	}
	for _, name := range j.Names {
		if s, ok := byName[name]; ok {
			chosen = append(chosen, s)
		} else {
			r.Missing = append(r.Missing, name)
		}
	}
	return chosen
}

// prune removes what came from the sending store and is there no more. The ID of the sending store
// does not tell what came from it: a copy of it has the same, and so has the one that was put back
// from an older copy.
func (j *Job) prune(ctx context.Context, from, to remote.Node, has, there []remote.Snapshot, came map[string][]store.ID, r *Report) error {
	st, err := from.Stats(ctx)
	if err != nil {
		return err
	}
	kept := make(map[store.ID]bool, len(has))
	for _, s := range has {
		kept[s.ID] = true
	}
	var left []error
	for _, s := range there {
		if s.Held || kept[s.ID] || !slices.Contains(came[j.direction()], s.ID) ||
			s.Volume != st.Store.VolumeID || !strings.HasPrefix(s.Name, j.Remote.Prefix) {
			continue
		}
		err := to.UnlinkSnapshot(ctx, s.Name, s.ID)
		// One that is another's to remove keeps none of the others.
		if errors.Is(err, remote.ErrForbidden) {
			left = append(left, err)
			continue
		}
		if err != nil {
			return err
		}
		r.Pruned = append(r.Pruned, s.Name)
		came[j.direction()] = slices.DeleteFunc(came[j.direction()], func(id store.ID) bool { return id == s.ID })
	}
	return errors.Join(left...)
}

// cameBefore are the snapshots that syncs brought before that was remembered, by the store where
// they were made. Between a store and its copy that says nothing.
func cameBefore(ctx context.Context, from, to remote.Node, there []remote.Snapshot) ([]store.ID, error) {
	sender, err := from.Stats(ctx)
	if err != nil {
		return nil, err
	}
	receiver, err := to.Stats(ctx)
	if err != nil {
		return nil, err
	}
	ids := []store.ID{}
	for _, s := range there {
		if s.Volume == sender.Store.VolumeID && s.Volume != receiver.Store.VolumeID {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}
