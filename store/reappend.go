package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/quarxtor/quarxfs/tiering"
)

// A location is where a reappended block is now.
type location struct {
	loc   tiering.Location
	codec tiering.Codec
}

// reappendRounds is how often a commit tries to bring its blocks onto the disk
// before it fails and leaves them to the next.
const reappendRounds = 3

// syncSegments makes the blocks of the frozen changes durable (I1). When a
// segment cannot be synced, those of its blocks that no commit has covered yet
// are appended to another one, so that a fault which passes costs nothing. A
// block that was committed was synced before, and stays where it is.
func (cm *committer) syncSegments() error {
	for round := 0; ; round++ {
		err := cm.tiers.Sync()
		reappended, reappendErr := cm.reappend()
		if reappendErr != nil {
			return errors.Join(err, reappendErr)
		}
		if err == nil && reappended == 0 {
			return nil
		}
		if round == reappendRounds {
			return errors.Join(err, fmt.Errorf("%d blocks could not be made durable", reappended))
		}
	}
}

// reappend appends the frozen changes' new blocks that are in lost segments
// anew, and returns how many those were.
func (cm *committer) reappend() (int, error) {
	numbers := cm.tiers.Lost()
	if len(numbers) == 0 {
		return 0, nil
	}
	lost := make(map[uint64]bool, len(numbers))
	for _, n := range numbers {
		lost[n] = true
	}
	reappended := 0
	for id, c := range cm.frozen {
		if c.move != nil && lost[c.move.to.loc.Segment] {
			// The block stays where it is.
			c.move = nil
			cm.frozen[id] = c
		}
		if !c.fresh {
			continue
		}
		e, err := cm.index.Lookup(id)
		if err != nil {
			return reappended, err
		}
		if p, ok := cm.moved[id]; ok {
			e.Loc = p.loc
		}
		if !lost[e.Loc.Segment] {
			continue
		}
		if err := cm.move(id, e); err != nil {
			return reappended, err
		}
		reappended++
	}
	// The blocks of changes after the cut are looked at by their own commit.
	cm.tiers.Forsake(numbers)
	if reappended > 0 {
		cm.log.Warn("blocks of segments that could not be synced were written anew", "blocks", reappended)
	}
	return reappended, nil
}

// move appends a block anew. What is read back is checked against its ID.
func (cm *committer) move(id ID, e Entry) error {
	plain, err := cm.tiers.Get(context.Background(), id, e.Loc)
	if err != nil {
		return fmt.Errorf("read block %s back: %w", id.Short(), err)
	}
	codec, loc, err := cm.appender.appendRecord(e.Kind, id, plain)
	if err != nil {
		return err
	}
	if cm.moved == nil {
		cm.moved = make(map[ID]location)
	}
	cm.moved[id] = location{loc, codec}
	return nil
}
