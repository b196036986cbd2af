package graph

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
)

// The warning of encryption compares a snapshot with the one before. New bytes that look
// random are no sign: pictures, archives and disk images are such. What counts is that
// content which could be compressed is gone and bytes without order are in its place,
// in many files or in much of the data, at least as long as what they replace.

// A Texture is what the bytes of a file, or of a part of it, are like.
type Texture struct {
	Bytes   int64   // that are in no hole
	Order   float64 // of these: 1 is that of equal bytes, 0 that of random ones
	Ordered int64   // of these, those in blocks that encryption makes a difference to
}

// add adds bytes of a block.
func (c *Texture) add(bytes int64, order float64) {
	if sum := c.Bytes + bytes; sum > 0 {
		// The mean weighted by bytes, brought forward a step at a time, so that no block is kept.
		c.Order += (order - c.Order) * float64(bytes) / float64(sum)
		c.Bytes = sum
	}
	if ordered(order) {
		c.Ordered += bytes
	}
}

// A Loss is a file that was changed or removed between two snapshots.
type Loss struct {
	Path    string
	Removed bool
	Size    int64 // of the whole file, before
	Was     int64 // bytes with order, of the whole file, before
	Lost    Texture
	Now     int64   // size afterwards of the file that took its place
	New     Texture // what took the place of Lost
}

// Bounds of Alarm. Order of text is some 0.45, of programs 0.25, of what is compressed or
// encrypted at most 0.03. An encryption of every fourth piece of 16 bytes takes a third of it.
const (
	leastOrder = 0.1  // a content with less was not compressible to begin with
	mostOrder  = 0.9  // one with more is zeroes and the like
	orderLost  = 0.3  // the share of its order that a content loses with an encryption in parts
	lostShare  = 0.5  // of the bytes with order in a file
	randomly   = 0.04 // order up to which a file looks random as a whole
	keptSize   = 0.95 // of the size; archivers and encoders make files smaller, encryption does not

	alarmShare = 0.1     // of all files, or of the data
	alarmOf    = 0.5     // of the files, or of the bytes, that were lost
	alarmFiles = 10      // files at least
	alarmBytes = 1 << 20 // or bytes at least
)

// ordered reports whether encryption makes a difference to content of an order.
func ordered(order float64) bool { return order >= leastOrder && order <= mostOrder }

// could reports whether the content is one that encryption makes a difference to.
func (c Texture) could() bool { return c.Bytes > 0 && ordered(c.Order) }

// scrambled reports whether a file looks encrypted in its place.
func (l *Loss) scrambled() bool {
	return l.New.Bytes > 0 && l.New.Order <= l.Lost.Order*(1-orderLost) && float64(l.Now) >= keptSize*float64(l.Size)
}

// wholly reports whether most of the bytes with order in a file are gone. A film that comes to lie
// in a disk image where a guest has removed text takes less, as does what encrypts the beginnings
// of files; the latter shows in how many there are.
func (l *Loss) wholly() bool { return float64(l.Lost.Ordered) >= lostShare*float64(l.Was) }

// A tally adds losses up.
type tally struct{ files, bytes int64 }

func (t *tally) add(bytes int64) { t.files, t.bytes = t.files+1, t.bytes+bytes }

// most reports whether part is most of t.
func (t tally) most(part tally) bool {
	return float64(part.files) >= alarmOf*float64(t.files) || float64(part.bytes) >= alarmOf*float64(t.bytes)
}

// Alarm says why a snapshot looks as if files had been encrypted since the one before,
// which had so many files and bytes of data; or "". losses are what was changed or
// removed, made what looks random and was added, by size. It is a pure function.
func Alarm(before Totals, losses []Loss, made []int64) string {
	var changed, scrambled, removed tally // of what could be encrypted
	much := int64(0)                      // bytes of files that lost most of their order
	var was, is Texture
	var example string
	var gone []*Loss
	for i := range losses {
		l := &losses[i]
		// Compressed or sparse content tells nothing: encryption leaves it as random as it was.
		if !l.Lost.could() {
			continue
		}
		if l.Removed {
			removed.add(l.Lost.Bytes)
			gone = append(gone, l)
			continue
		}
		changed.add(l.Lost.Bytes)
		if l.scrambled() {
			scrambled.add(l.Lost.Bytes)
			if l.wholly() {
				much += l.Lost.Bytes
			}
			was.add(l.Lost.Bytes, l.Lost.Order)
			is.add(l.New.Bytes, l.New.Order)
			example = cmp.Or(example, l.Path)
		}
	}
	renamed := matchSizes(gone, made)
	// A few files that became random among many that did not are somebody's archives.
	if !changed.most(scrambled) {
		scrambled, much, example = tally{}, 0, ""
	}
	if removed.most(renamed.tally) {
		scrambled.files, much = scrambled.files+renamed.files, much+renamed.bytes
		was.add(renamed.bytes, renamed.order)
		is.add(renamed.bytes, 0)
		example = cmp.Or(example, renamed.example)
	}
	// Many small files, or few with much of the data: a disk image is one file.
	many := scrambled.files >= alarmFiles && float64(scrambled.files) >= alarmShare*float64(before.Files)
	if !many && (much < alarmBytes || float64(much) < alarmShare*float64(before.Data)) {
		return ""
	}
	return fmt.Sprintf("in %d of %d files bytes with order were replaced by ones that look random "+
		"(%.1f bits a byte became %.1f), %q among them; encryption by malware looks like this",
		scrambled.files, before.Files, bitsOf(was.Order), bitsOf(is.Order), example)
}

// bitsOf returns the entropy of long content with an order.
func bitsOf(order float64) float64 { return 8 * (1 - order) }

// renamedFiles are removed files in whose place there seem to be others.
type renamedFiles struct {
	tally
	order   float64
	example string
}

// matchSizes finds for each removed file one that looks random and is as long or a little
// longer: a header and padding is what encryption adds.
func matchSizes(gone []*Loss, made []int64) (m renamedFiles) {
	gone, made = slices.Clone(gone), slices.Clone(made)
	slices.SortFunc(gone, func(a, b *Loss) int { return cmp.Compare(a.Size, b.Size) })
	slices.Sort(made)
	var lost Texture
	for _, l := range gone {
		// Both are sorted: what is too short for this file is too short for all that follow.
		for len(made) > 0 && made[0] < l.Size {
			made = made[1:]
		}
		if len(made) == 0 {
			break
		}
		// Too long for this one, but perhaps not for the next.
		if made[0] > l.Size+max(4096, l.Size/16) {
			continue
		}
		made = made[1:]
		m.add(l.Lost.Bytes)
		lost.add(l.Lost.Bytes, l.Lost.Order)
		m.example = cmp.Or(m.example, l.Path)
	}
	m.order = lost.Order
	return m
}

// Suspect is Alarm for two snapshots of a volume. Only what differs is read, and of files
// their vertices only. Errors: those of reading.
func Suspect(ctx context.Context, src Blocks, before, after *Snapshot) (string, error) {
	if t := after.Totals; t.New == 0 || float64(max(t.Written, t.New)) < alarmShare/2*float64(min(before.Totals.Data, t.Data)) {
		return "", nil // too little was written, whatever it was
	}
	s := suspicion{ctx: ctx, src: src, gone: make(map[string]*Difference)}
	if _, err := Diff(ctx, src, before, after, nil, s.difference); err != nil {
		return "", err
	}
	losses, made, err := s.replaced()
	if err != nil {
		return "", err
	}
	return Alarm(before.Totals, losses, made), nil
}

// A suspicion gathers what an alarm is about.
type suspicion struct {
	ctx    context.Context
	src    Blocks
	losses []Loss
	made   []*Difference
	gone   map[string]*Difference // by path
}

func (s *suspicion) difference(d *Difference) error {
	if d.Mode&syscall.S_IFMT != syscall.S_IFREG || s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	switch d.Change {
	case Added:
		s.made = append(s.made, d)
	case Removed:
		s.gone[d.Path] = d
	case Modified:
		return s.compare(d.Path, d, d)
	}
	return nil
}

// replaced takes together what was removed and added under a name that goes on from the old
// one or has its stem, and looks at the content of the rest.
func (s *suspicion) replaced() (losses []Loss, made []int64, err error) {
	stems := make(map[string]string, len(s.gone))
	for p := range s.gone {
		// Of several files with a stem one is found, which is enough for a guess.
		stems[stem(p)] = p
	}
	for _, d := range s.made {
		if old := s.former(d.Path, stems); old != nil {
			// Each removed file stands for one new one, else a copy would count the loss again.
			delete(s.gone, old.Path)
			if err := s.compare(old.Path, old, d); err != nil {
				return nil, nil, err
			}
			continue
		}
		c, err := s.content(d.now, d.Size)
		if err != nil {
			return nil, nil, err
		}
		// What has order is no encryption of anything, whatever its size.
		if c.Bytes > 0 && c.Order <= randomly {
			made = append(made, d.Size)
		}
	}
	for p, d := range s.gone {
		c, err := s.content(d.was, d.Before)
		if err != nil {
			return nil, nil, err
		}
		s.losses = append(s.losses, Loss{Path: p, Removed: true, Size: d.Before, Lost: c})
	}
	slices.SortFunc(s.losses, func(a, b Loss) int { return strings.Compare(a.Path, b.Path) })
	return s.losses, made, nil
}

// former returns what was removed and may be what has a new name now: report.txt of
// report.txt.locked, or of report.locked.
func (s *suspicion) former(name string, stems map[string]string) *Difference {
	for i := len(name) - 1; i > 0 && name[i] != '/'; i-- {
		if c := name[i]; c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80 {
			continue // an ending begins with a sign
		}
		if d := s.gone[name[:i]]; d != nil {
			// The longest name that goes on from an old one is found first, as it is the likeliest.
			return d
		}
	}
	return s.gone[stems[stem(name)]]
}

// stem is a path without its ending.
func stem(p string) string { return strings.TrimSuffix(p, path.Ext(p)) }

// compare notes what of a file's bytes, at the same offsets, was replaced by what.
func (s *suspicion) compare(name string, before, after *Difference) error {
	l := Loss{Path: name, Size: before.Before, Now: after.Size}
	whole, err := s.content(before.was, before.Before)
	if err != nil {
		return err
	}
	l.Was = whole.Ordered
	ranges, err := DiffFiles(s.ctx, s.src, before.was, before.Before, after.now, after.Size, nil)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		// What was added behind the old end took the place of nothing.
		end := min(r.Off+r.Len, before.Before)
		if err := s.add(&l.Lost, before.was, before.Before, r.Off, end); err != nil {
			return err
		}
		if err := s.add(&l.New, after.now, after.Size, r.Off, end); err != nil {
			return err
		}
	}
	if l.Lost.Bytes > 0 {
		s.losses = append(s.losses, l)
	}
	return nil
}

// content looks at a file as a whole.
func (s *suspicion) content(l Link, size int64) (c Texture, err error) {
	err = s.add(&c, l, size, 0, size)
	return c, err
}

// add adds the bytes of a file from an offset up to an end.
func (s *suspicion) add(c *Texture, l Link, size, from, end int64) error {
	if from >= end {
		return nil
	}
	return FileSpansFrom(s.ctx, s.src, l, size, from, func(x Span) error {
		// Spans come in order, so nothing behind this one is of the range.
		if x.Off >= end {
			return store.ErrStop
		}
		if x.Hole {
			return nil
		}
		e, err := s.src.Lookup(x.ID)
		if err != nil {
			return err
		}
		c.add(min(x.End(), end)-x.Off, orderOf(e.EntropyBits(), int(e.Raw)))
		return s.ctx.Err()
	})
}

// orderOf returns how far the entropy of a block, in bits a byte, is below that of as many
// random bytes, as a share of the latter.
func orderOf(bits float64, length int) float64 {
	random := randomBits(length)
	if random == 0 {
		return 1
	}
	return max(0, 1-bits/random)
}

// randomBits returns the mean entropy of so many random bytes. It is below 8, and much so
// for few: not all values come equally often. (Counts of values are Poisson's.)
func randomBits(length int) float64 {
	if length < 2 {
		return 0
	}
	n := float64(length)
	if length >= 4096 {
		// For many bytes the first term of the bias of Miller and Madow is exact enough.
		return 8 - 255/(2*n*math.Ln2)
	}
	mean := n / 256
	p, sum := math.Exp(-mean)*mean, 0.0 // of a value that comes once
	for c := 2.0; c < 10*mean+20; c++ {
		p *= mean / c
		sum += p * c * math.Log2(c)
	}
	return math.Log2(n) - 256*sum/n
}
