package store

import (
	"fmt"
	"sync"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// memory has the blocks that a store which is open for reading only is given, so that what is in
// rows can be looked at as a tree of vertices, too. They stay until the store is closed: the same
// tree is mostly asked for again, and nothing changes meanwhile. It has its own mutex, under which
// nothing else is taken.
type memory struct {
	sync.Mutex
	blocks map[ID]memoryBlock
	bytes  int64
}

type memoryBlock struct {
	kind  tiering.Kind
	plain []byte
}

// maxMemory bounds the blocks in memory, in bytes.
const maxMemory = 512 << 20

func (m *memory) put(kind tiering.Kind, id ID, plain []byte) error {
	m.Lock()
	defer m.Unlock()
	if m.blocks == nil {
		return ErrReadOnly // nobody has asked for a tree
	}
	if _, ok := m.blocks[id]; ok {
		return nil
	}
	if m.bytes+int64(len(plain)) > maxMemory {
		return fmt.Errorf("%w: its tree takes more than %d bytes of memory", ErrReadOnly, int64(maxMemory))
	}
	// A copy: a caller of Put may use its buffer again.
	m.blocks[id] = memoryBlock{kind, append([]byte(nil), plain...)}
	m.bytes += int64(len(plain))
	return nil
}

func (m *memory) get(id ID) (memoryBlock, bool) {
	m.Lock()
	defer m.Unlock()
	b, ok := m.blocks[id]
	return b, ok
}

// putInMemory is Put of a store that is open for reading only. Blocks that the store has are not
// kept twice.
func (bs *blocks) putInMemory(kind tiering.Kind, plain []byte) (ID, error) {
	id := vertex.Sum(kind, plain)
	if _, err := bs.db.Get(blockKey(keyBlock, id)); err == nil {
		return id, nil
	}
	return id, bs.memory.put(kind, id, plain)
}

// CutInMemory has the participant of a store that is open for reading only save what it has, as a
// commit does, but into memory: blocks that are put from now on, and rows.
func (cm *committer) CutInMemory() error {
	cm.commitMu.Lock()
	defer cm.commitMu.Unlock()
	cm.memory.Lock()
	if cm.memory.blocks == nil {
		cm.memory.blocks = make(map[ID]memoryBlock)
	}
	cm.memory.Unlock()
	if err := cm.flush(); err != nil {
		return err
	}
	cm.updateLock.Lock()
	defer cm.updateLock.Unlock()
	return cm.participant.Cut()
}
