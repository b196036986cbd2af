package volume

import (
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
)

const (
	// smallFile is up to how many bytes a file is read with one request, so that
	// the kernel cannot read ahead in it.
	smallFile = 128 << 10
	// prefetchSpan is how many inode numbers are looked at ahead of a reader: 16
	// files, since a new file takes a number for its name as well.
	prefetchSpan = 32
)

// A prefetcher brings the blocks of small files into RAM while the files before
// them are read: grep -r, tar and cp -r read a tree in the order in which it was
// made, which is that of inode numbers.
type prefetcher struct {
	v       *Volume
	mu      sync.Mutex
	last    meta.Ino // read last
	inOrder int      // files read in order
	reach   meta.Ino // numbers below are taken care of
	spans   chan inodeSpan
}

// An inodeSpan is the numbers from <= ino < to.
type inodeSpan struct{ from, to meta.Ino }

// reads notes that a small file is being read from its beginning.
func (p *prefetcher) reads(ino meta.Ino) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ino <= p.last || ino-p.last > readAheadGap {
		p.inOrder, p.reach = 0, 0
	}
	p.last = ino
	if p.inOrder++; p.inOrder < 3 {
		return
	}
	p.reach = max(p.reach, ino+1)
	if p.reach-ino > prefetchSpan/2 {
		return
	}
	select {
	case p.spans <- inodeSpan{p.reach, ino + prefetchSpan}:
		p.reach = ino + prefetchSpan
	default: // busy with one that the reader has caught up with
	}
}

func (p *prefetcher) passed(ino meta.Ino) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ino <= p.last
}

// run does what the prefetcher asks for.
func (p *prefetcher) run() {
	defer p.v.life.stopped.Done()
	for {
		select {
		case <-p.v.life.stop:
			return
		case s := <-p.spans:
			for ino := s.from; ino < s.to; ino++ {
				if !p.passed(ino) {
					p.file(ino)
				}
			}
		}
	}
}

// file brings a small file's blocks into RAM, if its inode is there, as
// it is when the directory was listed. Who reads it is told of errors.
func (p *prefetcher) file(ino meta.Ino) {
	n, _ := p.v.table.cached(ino)
	if n == nil {
		return
	}
	defer n.release()
	for _, s := range p.smallSpans(n) {
		if !s.hole {
			p.v.store.Preload(s.ext.ID)
		}
	}
}

func (p *prefetcher) smallSpans(n *node) []readSpan {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isSmall() || n.reaping || n.attr.IsLazy() || len(n.dirty)+len(n.flushing) > 0 {
		return nil
	}
	list, err := p.v.files.readSpans(n, 0, int(n.attr.Size))
	if err != nil {
		return nil
	}
	return list
}

// isSmall reports whether the node is a file that is read with one request. n.mu
// is held.
func (n *node) isSmall() bool { return n.isReg() && !n.frozen && n.attr.Size <= smallFile }
