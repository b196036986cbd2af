// Package tiering keeps blocks where they belong: decompressed in RAM while in
// use, and on disk in segments.
//
// A Set is one store's tiers. Append puts a record at the end of the hot tier's
// active segment and tells its Location, which the caller's index remembers;
// Get brings the plain bytes back and checks them (I2). The Set knows no
// references: what may go is said with Remove.
//
// The states of a segment, and what moves it on:
//
//	next -> active -> retired -> sealed -> gone
//	     [Append]  [full, or a   [sealer]  [Remove]
//	                write failed]
//
// The first three are .open files, the fourth is a .seg file. Open turns what a
// crash left back into one of these states.
//
// Locks, outer ones first. writer.syncing and row.opening, of one segment
// each, are held over I/O:
//
//	writer.syncing   one fdatasync of a segment at a time
//	  tier.mu        the open segments
//	    table.mu     every segment's file handle
//	row.opening      a segment's file is opened once
//	  table.mu
//	flights.mu       reads under way
//	windows.mu       what was read ahead from a cold tier
//	coldTier.mu      whether the cold tier can be reached
package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// The Tiers of a Location.
const (
	Hot       uint8 = 0
	Cold      uint8 = 1
	tierCount       = 2
)

// tierShift is where in a segment's number its tier is. So numbers are never
// the same in two tiers, and those of one can be given while the other cannot
// be reached.
const tierShift = 40

// TierOf returns the tier of a segment, by its number.
func TierOf(number uint64) uint8 { return tierOf(number) }

func tierOf(number uint64) uint8 { return uint8(min(number>>tierShift, 255)) }

// A Location says where a record is. It stays valid until its segment is
// removed.
type Location struct {
	Tier    uint8
	Segment uint64
	Offset  uint32
	Length  uint32 // of the whole record, its header included
}

// A Record is a block in the form in which it is stored: Payload is its RawLen
// plain bytes as Codec leaves them.
type Record struct {
	ID      [32]byte
	Kind    segment.Kind
	Codec   segment.Codec
	RawLen  uint32
	Payload []byte
}

// Length is how many bytes it takes in a segment.
func (r Record) Length() int64 { return segment.HeaderSize + int64(len(r.Payload)) }

// Options are what a Set is made from.
type Options struct {
	// HotDir is the hot tier's directory; it is made if missing.
	HotDir string
	// Cold is the cold tier; nil means none.
	Cold *ColdOptions
	// SegmentSize is when a segment is full, in bytes; 0 means 64 MiB. A
	// record that is larger gets a segment of its own.
	SegmentSize int64
	// CacheBytes limits the RAM cache; 0 means none.
	CacheBytes int64
	// Logger; nil means none.
	Logger *slog.Logger
	// Verify, if set, says whether plain bytes are those that id names. It
	// runs once for each read from disk.
	Verify func(kind segment.Kind, id [32]byte, plain []byte) bool
	// FS; nil means the operating system.
	FS disk.FS
	// ReadOnly leaves the directories as they are: what a crash left is told apart in memory
	// only, and nothing can be appended or removed. Other Sets may have them open in the same
	// way.
	ReadOnly bool
	// Stamp says how many commits of the owner's are durable now. If set, segments are stamped with
	// it: see Set.Stamp.
	Stamp func() Stamp
	// Numbers are the highest that segments have had, by tier: a number is not given again, though
	// its file is gone.
	Numbers [2]uint64
	// OpenFiles limits the sealed segments held open for reading; 0 means 512.
	OpenFiles int

	refuse  error         // of a tier that is another store's; or nil
	windows *atomic.Int64 // bytes that reading ahead in the cold tier may take
}

const (
	defaultSegmentSize = 64 << 20
	defaultOpenFiles   = 512
)

func (o Options) withDefaults() (Options, error) {
	if o.HotDir == "" {
		return o, errors.New("tiering: no hot directory")
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	// Offsets are of 32 bits.
	if o.SegmentSize < segment.FileHeaderSize || o.SegmentSize > maxSegmentSize {
		return o, fmt.Errorf("tiering: segment size %d is not from %d to %d", o.SegmentSize, segment.FileHeaderSize, maxSegmentSize)
	}
	if o.CacheBytes < 0 {
		return o, fmt.Errorf("tiering: cache of %d bytes", o.CacheBytes)
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = defaultOpenFiles
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = disk.OS()
		// The last line of defence: whatever is forgotten elsewhere fails with EROFS.
		if o.ReadOnly {
			o.FS = disk.ReadOnly()
		}
	}
	return o, nil
}

// A Set is the tiers of one store. Any number of goroutines may use it.
type Set struct {
	opts     Options
	log      *slog.Logger
	verify   func(kind segment.Kind, id [32]byte, plain []byte) bool
	hot      *tier
	cold     atomic.Pointer[coldTier]
	cache    cache
	flights  flights
	ahead    prefetcher
	counters counters
	ramCurve *curve
	hotCurve *curve
	hotSize  atomic.Int64 // that hotCurve is about
	close    func() error
}

// Open opens the tiers and recovers them from whatever a crash left: torn tails
// are cut off, half-sealed segments are sealed, half-removed ones are removed, all
// but for ReadOnly. The caller makes sure that no other Set has the directory open
// for writing, and calls Close.
func Open(o Options) (*Set, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	// One budget for all that opens with these options: the cold tier may come and go.
	o.windows = new(atomic.Int64)
	o.windows.Store(windowBudget(o.CacheBytes))
	s := &Set{log: o.Logger, verify: o.Verify}
	if s.hot, err = openTier(o, Hot, o.FS, o.HotDir); err != nil {
		return nil, fmt.Errorf("open hot tier: %w", err)
	}
	s.opts = o
	// Behind the hot tier, without which there is no store; a cold one may come later.
	if o.Cold != nil {
		s.cold.Store(openCold(o, *o.Cold))
	}
	s.cache = newCache(o.CacheBytes)
	s.ramCurve = newCurve(func() uint64 { return s.counters.ramHits.Load() + s.counters.ramMisses.Load() })
	s.ramCurve.limit(largestCurve * o.CacheBytes)
	s.hotCurve = newCurve(s.counters.fills.Load)
	s.flights.calls = map[[32]byte]*flight{}
	s.ahead.start(s)
	s.close = sync.OnceValue(s.shutdown)
	return s, nil
}

// Interrupt breaks off uploads to the cold tier, so that who waits for them returns and Close
// can be called.
func (s *Set) Interrupt() {
	if c := s.cold.Load(); c != nil {
		c.interrupt()
	}
}

// Close makes everything appended durable and releases the files; the active
// segment stays .open, for the next Open to go on with. Other calls must have
// returned; a later Append returns ErrClosed. A second Close returns what the first
// did.
func (s *Set) Close() error { return s.close() }

func (s *Set) shutdown() error {
	s.ahead.stop()
	s.flights.alone.Wait() // who began them has returned
	err := s.hot.close()
	if c := s.cold.Load(); c != nil {
		err = errors.Join(err, c.close(ErrClosed))
	}
	s.cache.close()
	return err
}

// Append stores a record in the hot tier. It keeps nothing of r. Either
//
//  1. it returns the record's Location: Get finds it there from now on, and it
//     survives a crash once a Sync that is called later has returned; or
//  2. it returns an error and the record is not stored. After a failed write the
//     segment is retired, and the next Append tries a new one.
func (s *Set) Append(r Record) (Location, error) { return s.AppendTo(Hot, r) }

// AppendTo is Append for any tier. What it stores in the cold tier survives a crash
// once a SyncCold has returned. ErrNoTier; ErrUnavailable.
func (s *Set) AppendTo(id uint8, r Record) (Location, error) {
	t, err := s.tier(id)
	if err != nil {
		return Location{}, fmt.Errorf("append: %w", err)
	}
	// Checked before a place is reserved, which a bad record would leave empty.
	h := segment.Header{
		Kind: r.Kind, Codec: r.Codec, ID: r.ID, RawLen: r.RawLen,
		StoredLen: uint32(len(r.Payload)), PayloadCRC: segment.Checksum(r.Payload),
	}
	if len(r.Payload) > segment.MaxRaw {
		return Location{}, fmt.Errorf("append: payload of %d bytes is over %d", len(r.Payload), segment.MaxRaw)
	}
	if err := h.Validate(); err != nil {
		return Location{}, fmt.Errorf("append: %w", err)
	}
	start := time.Now()
	loc, err := t.append(h, r.Payload)
	if err != nil {
		err = s.reached(t, err)
		id := r.ID // r itself would escape
		return Location{}, fmt.Errorf("append %x (%d bytes): %w", id[:6], len(r.Payload), err)
	}
	c := &s.counters.tiers[id]
	c.writes.Add(1)
	c.bytesWritten.Add(uint64(loc.Length))
	c.writeTime.Add(time.Since(start))
	return loc, nil
}

// Sync makes durable whatever Append stored in the hot tier before the call.
// Nobody who commits waits for a cold disk. When a segment
// cannot be synced it is lost: the operating system may have dropped the bytes
// that it could not write, so no later Sync can vouch for them. All other
// segments are synced nevertheless, but this Sync and all later ones return the
// error, until Forsake.
func (s *Set) Sync() error { return s.hot.sync() }

// Stamp notes beside what was appended to the hot tier how many commits are durable, by which an
// older copy of whatever knows the records' locations is recognized. A crash may lose it.
func (s *Set) Stamp() error { return s.hot.stamp() }

// LastStamp returns the last stamp of a segment; the zero one: it has none. ErrNotFound;
// ErrUnavailable.
func (s *Set) LastStamp(number uint64) (Stamp, error) {
	t, err := s.holder(number)
	if err != nil {
		return Stamp{}, err
	}
	stamp, err := t.lastStamp(number)
	return stamp, s.reached(t, err)
}

// Lost returns the segments that were lost since Open, forsaken ones too.
// Records in them that an earlier Sync covered are durable. The others can
// mostly still be read, and must be appended anew to become durable. A record
// whose Append returned late may be in a segment that is lost already.
func (s *Set) Lost() []uint64 { return s.hot.lost() }

// Forsake tells that the caller does not rely on what is not durable in these
// lost segments, so that Sync need not fail because of them any more.
func (s *Set) Forsake(segments []uint64) { s.hot.forsake(segments) }

// Harmed are the segments of the hot tier that somebody cut, removed or replaced beneath the Set,
// as far as writing to them, sealing or syncing them has shown. They are lost, also what was
// durable in them, and Forsake does not change that.
func (s *Set) Harmed() []Fault { return s.hot.harmed() }

// SegmentInfo describes a segment.
type SegmentInfo struct {
	Tier   uint8
	Number uint64
	Bytes  int64
	Sealed bool
}

// Payload is how much of the file may be records: a segment of one small record that is in use has
// nothing to give back.
func (i SegmentInfo) Payload() int64 {
	own := int64(segment.FileHeaderSize + 2*segment.StampSize) // one before the records, one behind
	if i.Sealed {
		own += segment.EntrySize + segment.TrailerSize
	}
	return max(0, i.Bytes-own)
}

// Segments returns all segments, in order of number. Those of a cold tier that
// cannot be reached are not among them.
func (s *Set) Segments() []SegmentInfo {
	list := s.hot.table.segments()
	if t, err := s.tier(Cold); err == nil {
		list = append(list, t.table.segments()...)
	}
	return list
}

// Remove removes a sealed segment and frees its space once reads under way are
// done. Blocks in RAM stay there. Errors: ErrNotFound; ErrOpen for a segment
// that is not sealed yet; those of the disk, after which the segment may or may
// not come back with the next Open.
func (s *Set) Remove(number uint64) error {
	t, err := s.holder(number)
	if err == nil {
		err = s.reached(t, t.remove(number))
	}
	if err != nil {
		return fmt.Errorf("remove segment %x: %w", number, err)
	}
	return nil
}

// Scan calls fn for every record of every segment, each segment's in order of
// offset, with its location and header. Payloads are not read: Read does that
// and checks them. Segments that cannot be read, in whole or part, do not stop
// the scan: their errors are returned, joined, at the end. hidden is ErrUnavailable
// when a cold tier was left out or broken off, which is no fault of any segment.
// An error of fn does stop the scan, and is returned as it is.
func (s *Set) Scan(fn func(loc Location, h segment.Header) error) (hidden, err error) {
	var damage []error
	for id := range uint8(tierCount) {
		t, err := s.tier(id)
		if err == nil {
			var stop bool
			if stop, err = t.scan(fn); stop {
				return nil, err
			}
			err = s.reached(t, err)
		}
		switch {
		case errors.Is(err, ErrUnavailable):
			hidden = err
		case err != nil && !errors.Is(err, ErrNoTier):
			// All that can be read is wanted, whatever cannot.
			damage = append(damage, err)
		}
	}
	return hidden, errors.Join(damage...)
}

// Get returns a block's plain bytes, from RAM or from the record at loc. The
// slice is shared: nobody may change it. One of these happens:
//
//  1. The bytes are those that id names (I2).
//  2. There is no such segment: ErrNotFound.
//  3. The record is not that block, or is damaged: ErrCorrupt, as a
//     *CorruptError.
//  4. The disk could not be read: its error.
//  5. It is in a cold tier that cannot be reached: ErrUnavailable.
//  6. The context ended while another goroutine was reading, or a cold tier: its error. The read
//     goes on, and who asks again joins it.
func (s *Set) Get(ctx context.Context, id [32]byte, loc Location) ([]byte, error) {
	if plain, ok := s.Cached(id); ok {
		return plain, nil
	}
	s.counters.ramMisses.Add(1)
	plain, err := s.flights.do(ctx, s, id, loc)
	if err == nil {
		s.ramCurve.use(&id, int64(weight(plain)))
	}
	return plain, err
}

// Cached returns a block's plain bytes if they are in RAM. The slice is shared.
func (s *Set) Cached(id [32]byte) ([]byte, bool) {
	plain, ok := s.cache.get(id)
	if ok {
		s.counters.ramHits.Add(1)
		s.ramCurve.use(&id, int64(weight(plain)))
	}
	return plain, ok
}

// ResizeRAM changes the limit of the RAM cache, and of what is read ahead beside it, in
// bytes. What is over it is dropped. A Set that was opened without a cache stays so.
func (s *Set) ResizeRAM(bytes int64) {
	s.cache.resize(bytes)
	s.opts.windows.Store(windowBudget(bytes))
}

// InRAM reports whether a block is in RAM. That is no use of it.
func (s *Set) InRAM(id [32]byte) bool { return s.cache.has(id) }

// WatchHot has Stats tell what hot tiers of half to eight times so many bytes would
// have answered of the reads that RAM did not; 0: nothing.
func (s *Set) WatchHot(bytes int64) {
	s.hotSize.Store(bytes)
	s.hotCurve.limit(largestCurve * bytes)
}

// Insert puts a block that is at hand into RAM, so that reading it back needs
// no disk. The Set takes the slice over: it must not change any more. All of its
// capacity counts as cached.
func (s *Set) Insert(id [32]byte, plain []byte) { s.cache.set(id, plain) }

// Prefetch reads a block into RAM in the background, if it is not there and the
// readers are not busy; otherwise it does nothing. It never blocks.
func (s *Set) Prefetch(id [32]byte, loc Location) { s.ahead.request(id, loc) }

// Preload is Prefetch that is done when it returns.
func (s *Set) Preload(id [32]byte, loc Location) { s.ahead.read(prefetch{id, loc}) }
