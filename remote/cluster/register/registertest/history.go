package registertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// A request is what a client asked of one key.
type request struct {
	key    string
	commit bool   // or a get
	value  string // to put, no other request has it; empty: to delete
	on     int64  // the revision that the commit is conditional on; below 0: none
}

// An answer is what it was told.
type answer struct {
	err      error // nil, ErrNotFound, ErrConflict or ErrUncertain
	value    string
	revision int64
}

// A keyState is what a key has. The revision of a change whose answer was lost is known once
// somebody has read it.
type keyState struct {
	value    string // empty: there is none
	revision int64
	unknown  bool  // the revision is not known
	above    int64 // it, and that of all later changes, is above this one
}

func (s keyState) allows(r request) bool {
	if r.on <= 0 {
		return r.on < 0 || s.value == ""
	}
	return s.value != "" && !s.unknown && s.revision == r.on
}

// step returns what the key may have after the request was answered so; nothing: it cannot have
// been.
func (s keyState) step(r request, a answer) []any {
	if !r.commit {
		switch {
		case errors.Is(a.err, register.ErrNotFound) && s.value == "":
			return []any{s}
		case a.err == nil && a.value == s.value && (s.revision == a.revision || s.unknown && a.revision > s.above):
			return []any{keyState{value: s.value, revision: a.revision, above: a.revision}}
		}
		return nil
	}
	switch {
	case errors.Is(a.err, register.ErrConflict) && !s.allows(r):
		return []any{s}
	case errors.Is(a.err, register.ErrUncertain):
		after := []any{s}
		if s.allows(r) {
			after = append(after, keyState{value: r.value, unknown: r.value != "", above: s.above})
		}
		return after
	case a.err == nil && r.value == "" && s.value == "" && s.allows(r) && a.revision >= s.above:
		return []any{s} // nothing has changed, so the revision may be the last one
	case a.err == nil && s.allows(r) && a.revision > s.above:
		next := keyState{value: r.value, revision: a.revision, above: a.revision}
		if r.value == "" {
			next.revision = 0
		}
		return []any{next}
	}
	return nil
}

var keyModel = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(request).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byKey {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() []any { return []any{keyState{}} },
	Step: func(state, input, output any) []any { return state.(keyState).step(input.(request), output.(answer)) },
}).ToModel()

// A History is what clients asked and were told.
type History struct {
	ops []porcupine.Operation
}

// Linearizable reports whether there is one order of all requests, each between its call and its
// answer, in which a register would have given these answers.
func (h History) Linearizable() bool { return porcupine.CheckOperations(keyModel, h.ops) }

// Count returns how many requests were answered in that way.
func (h History) Count(err error) int {
	count := 0
	for _, op := range h.ops {
		if errors.Is(op.Output.(answer).err, err) {
			count++
		}
	}
	return count
}

// Record lets each client send so many requests for a few keys, all at the same time, and returns
// their history. between is called by the first client before each of its requests; what it does to
// the register is what the others are in the middle of.
func Record(t *testing.T, clients []register.Register, requests int, between func(request int)) History {
	t.Helper()
	begin := time.Now()
	all := make([][]porcupine.Operation, len(clients))
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(len(clients))
	for id, client := range clients {
		wg.Go(func() {
			r := recorder{client: client, id: id, begin: begin, random: rand.New(rand.NewPCG(uint64(id), 1)), seen: make(map[string]int64)}
			ready.Done()
			ready.Wait()
			for i := range requests {
				// A register in memory is so quick that one client would be done before the next.
				time.Sleep(time.Duration(r.random.IntN(50)) * time.Microsecond)
				if id == 0 {
					between(i)
				}
				if err := r.send(t.Context(), i); err != nil {
					t.Errorf("client %d, request %d: %v", id, i, err)
					return
				}
			}
			all[id] = r.ops
		})
	}
	wg.Wait()
	return History{slices.Concat(all...)}
}

// A recorder is one client of a history.
type recorder struct {
	client register.Register
	id     int
	begin  time.Time
	random *rand.Rand
	seen   map[string]int64 // the last revision of each key
	ops    []porcupine.Operation
}

func (r *recorder) send(ctx context.Context, i int) error {
	q := request{key: fmt.Sprintf("history/%d", r.random.IntN(2)), on: -1}
	if q.commit = r.random.IntN(3) > 0; q.commit {
		if r.random.IntN(8) > 0 {
			q.value = fmt.Sprintf("%d-%d", r.id, i)
		}
		if r.random.IntN(5) > 0 {
			q.on = r.seen[q.key]
		}
	}
	op := porcupine.Operation{ClientId: r.id, Input: q, Call: int64(time.Since(r.begin))}
	a := r.ask(ctx, q)
	op.Output, op.Return = a, int64(time.Since(r.begin))
	switch {
	case a.err == nil:
		r.seen[q.key] = a.revision
		if q.commit && q.value == "" {
			r.seen[q.key] = 0
		}
	case errors.Is(a.err, register.ErrNotFound):
		r.seen[q.key] = 0
	case errors.Is(a.err, register.ErrConflict):
		r.seen[q.key] = 0 // so that not all commits to come fail as well
	case errors.Is(a.err, register.ErrUncertain):
		op.Return = math.MaxInt64 // it may be done at any time from now on
		defer r.waitFor(ctx)
	case errors.Is(a.err, register.ErrUnavailable):
		// Nothing was done: if it was, others see a value that nobody has written.
		r.waitFor(ctx)
		return nil
	default:
		return a.err
	}
	r.ops = append(r.ops, op)
	return nil
}

func (r *recorder) ask(ctx context.Context, q request) answer {
	if !q.commit {
		e, err := r.client.Get(ctx, q.key)
		return answer{err, string(e.Value), e.Revision}
	}
	t := register.Txn{Delete: []string{q.key}}
	if q.value != "" {
		t = register.Txn{Put: []register.Entry{{Key: q.key, Value: []byte(q.value)}}}
	}
	if q.on >= 0 {
		t.If = []register.Condition{{Key: q.key, Revision: q.on}}
	}
	revision, err := r.client.Commit(ctx, t)
	return answer{err: err, revision: revision}
}

// waitFor waits until the register answers. Else one outage would make so many requests that may
// have been done that their order cannot be found.
func (r *recorder) waitFor(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := r.client.Get(ctx, "history/wait"); !errors.Is(err, register.ErrUnavailable) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
