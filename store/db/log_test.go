package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// testLogSize makes files of 16 blocks beside their headers.
const testLogSize = logStart + 16*blockSize

func openTestLog(t testing.TB, m *memDir) *commitLog {
	t.Helper()
	l, err := openLog(m, testLogSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.recover(); err != nil {
		t.Fatal(err)
	}
	if err := l.reset(0); err != nil {
		t.Fatal(err)
	}
	return l
}

// appendNumber appends a commit that holds number n and so many bytes more; it
// begins a file if one is free.
func appendNumber(l *commitLog, n, padding int) error {
	var o overlay
	o.set("n", binary.BigEndian.AppendUint64(nil, uint64(n)))
	for i := 0; padding > 0; i++ {
		o.set(fmt.Sprintf("padding%d", i), bytes.Repeat([]byte{byte(n)}, min(padding, MaxValue)))
		padding -= MaxValue
	}
	if room := recordRoom(o.bytes); !l.fits(room) && (l.cur == nil || !l.oversize(room)) {
		l.seal()
		if !l.begin() {
			return errNoFile
		}
	}
	return l.append(o.snapshot(), o.bytes)
}

var errNoFile = errors.New("no file is free")

// recoverNumbers returns the numbers of the commits that a replay would repeat.
func recoverNumbers(m *memDir) ([]int, error) {
	l, err := openLog(m, testLogSize)
	if err != nil {
		return nil, err
	}
	return numbersOf(l)
}

func numbersOf(l *commitLog) ([]int, error) {
	records, err := l.recover()
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, r := range records {
		payload, err := r.payload()
		if err != nil {
			return nil, err
		}
		err = eachChange(payload, func(key, value []byte) error {
			if string(key) == "n" {
				numbers = append(numbers, int(binary.BigEndian.Uint64(value)))
			} else if value[0] != byte(numbers[len(numbers)-1]) || value[len(value)-1] != value[0] {
				return errors.New("padding of another commit")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

// logModel works on a log and knows what must be found after a power cut.
type logModel struct {
	rng     *rand.Rand
	m       *memDir
	l       *commitLog
	acked   int // commits up to here were acknowledged
	begun   int // and up to here begun
	durable int // and up to here are durable elsewhere
}

var errCut = errors.New("power cut")

func (lm *logModel) padding() int {
	switch lm.rng.IntN(12) {
	case 0:
		return 40_000 + lm.rng.IntN(60_000) // more than a file, at times
	case 1:
		return 9 * blockSize
	case 2:
		return blockSize - recordHead - 40 + lm.rng.IntN(32)
	default:
		return lm.rng.IntN(9000)
	}
}

func (lm *logModel) step() error {
	if f := lm.l.sealed(); f != nil && lm.rng.IntN(4) == 0 {
		return lm.checkpoint(f)
	}
	lm.begun = lm.acked + 1
	err := appendNumber(lm.l, lm.begun, lm.padding())
	if errors.Is(err, errNoFile) {
		return lm.checkpoint(lm.l.sealed())
	}
	if err == nil {
		lm.acked = lm.begun
	}
	return err
}

func (lm *logModel) checkpoint(f *logFile) error {
	lm.durable = max(lm.durable, int(f.next)-1)
	return lm.l.release(f, 0)
}

// reopen recovers from a power cut, and says how that must end.
func (lm *logModel) reopen(m *memDir) error {
	l, err := openLog(m, testLogSize)
	if err != nil {
		return err
	}
	numbers, err := numbersOf(l)
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		if lm.durable < lm.acked {
			return fmt.Errorf("nothing found, acknowledged %d, durable elsewhere %d", lm.acked, lm.durable)
		}
		l.seq = uint64(lm.acked) + 1 // keeps numbers and sequences the same
	} else {
		for i, n := range numbers {
			if n != numbers[0]+i {
				return fmt.Errorf("gap: %v", numbers)
			}
		}
		last := numbers[len(numbers)-1]
		if numbers[0] > lm.durable+1 || last < lm.acked || last > lm.begun {
			return fmt.Errorf("found %d to %d, acknowledged %d, begun %d, durable elsewhere %d",
				numbers[0], last, lm.acked, lm.begun, lm.durable)
		}
		lm.acked = last
	}
	lm.m, lm.l = m, l
	lm.begun, lm.durable = lm.acked, lm.acked
	return l.reset(0)
}

// TestLogPowerCut cuts the power at random operations, over and over, also
// while it recovers, with disk errors in between.
func TestLogPowerCut(t *testing.T) {
	commits := 120
	if testing.Short() {
		commits = 50
	}
	for seed := range commits {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		lm := &logModel{rng: rng, m: newMemDir()}
		if err := lm.reopen(lm.m); err != nil {
			t.Fatal(seed, err)
		}
		for round := range 4 {
			left := rng.IntN(60)
			lm.m.before = func(string) error {
				if left--; left < 0 {
					return errCut
				}
				if rng.IntN(40) == 0 {
					return errDisk
				}
				return nil
			}
			for {
				err := lm.step()
				if errors.Is(err, errCut) {
					break
				}
				if err != nil && !errors.Is(err, errDisk) {
					t.Fatal(seed, round, err)
				}
			}
			if err := lm.cutAndReopen(); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
		}
	}
}

// cutAndReopen tries several images of the same cut, and goes on from one.
func (lm *logModel) cutAndReopen() error {
	before := *lm
	for _, p := range []float64{0, 1, 0.1, 0.9, 0.5} {
		*lm = before
		m := before.m.cut(lm.rng, p)
		// Once more, at some point of the recovery.
		left := lm.rng.IntN(6)
		m.before = func(string) error {
			if left--; left < 0 {
				return errCut
			}
			return nil
		}
		err := lm.reopen(m)
		if errors.Is(err, errCut) {
			err = lm.reopen(m.cut(lm.rng, p))
		}
		if err != nil {
			return fmt.Errorf("probability %v: %w", p, err)
		}
	}
	return nil
}

// TestLogDamage changes one byte of a log that nobody tore.
func TestLogDamage(t *testing.T) {
	// Five commits in the first file, which is full then, three in the second.
	fresh := func() *memDir {
		m := newMemDir()
		l := openTestLog(t, m)
		for n := 1; n <= 8; n++ {
			if err := appendNumber(l, n, 2*blockSize); err != nil {
				t.Fatal(err)
			}
		}
		if l.cur.index != 1 {
			t.Fatal("still in the first file")
		}
		return m
	}
	tests := []struct {
		name  string
		file  uint32
		at    []int
		found int    // commits
		says  string // or this
	}{
		{"nothing", 0, nil, 8, ""},
		{"a header slot", 0, []int{3}, 8, ""},
		{"both header slots", 1, []int{3, blockSize + 40}, 0, "LOG.1"},
		{"the first record's header", 0, []int{logStart + 5}, 0, "LOG.0 at offset 8192"},
		{"the first record's payload", 0, []int{logStart + 100}, 0, "LOG.0 at offset 8192"},
		{"a record's header", 0, []int{logStart + 3*blockSize}, 0, "LOG.0 at offset 20480"},
		{"the first file's last record", 0, []int{logStart + 12*blockSize + 60}, 0, "LOG.0 at offset 57344"},
		{"the second file's first record", 1, []int{logStart + 60}, 0, "LOG.1 at offset 8192"},
		{"the last record", 1, []int{logStart + 6*blockSize + 60}, 7, ""},
	}
	for _, test := range tests {
		m := fresh()
		for _, at := range test.at {
			m.names[logName(test.file)].data[at] ^= 4
		}
		numbers, err := recoverNumbers(m)
		if test.says != "" {
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v %v", test.name, numbers, err)
			}
			continue
		}
		if err != nil || len(numbers) != test.found {
			t.Errorf("%s: %v %v", test.name, numbers, err)
		}
	}
	for i := range uint32(2) {
		m := fresh()
		delete(m.names, logName(i))
		if _, err := recoverNumbers(m); !errors.Is(err, ErrCorrupt) {
			t.Errorf("without %s: %v", logName(i), err)
		}
	}
}

// TestLogForgery puts a record's exact bytes into a value, where a torn record
// lets a scan find it.
func TestLogForgery(t *testing.T) {
	m := newMemDir()
	l := openTestLog(t, m)
	forged := make([]byte, 40*blockSize)
	for off := 0; off < len(forged); off += blockSize {
		at := recordPos{index: 0, off: int64(logStart + off)} // all but the ID is easy to guess
		record{gen: 1, seq: 3}.encode(forged[off:], at)
	}
	if err := appendNumber(l, 1, 0); err != nil {
		t.Fatal(err)
	}
	var o overlay
	o.set("n", binary.BigEndian.AppendUint64(nil, 2))
	for shift := range 64 {
		o.set(fmt.Sprintf("x%03d", shift), append(make([]byte, shift), forged[:4000]...))
	}
	if err := l.append(o.snapshot(), o.bytes); err != nil {
		t.Fatal(err)
	}
	m.names[logName(0)].data[logStart+blockSize] ^= 1
	if numbers, err := recoverNumbers(m); err != nil || len(numbers) != 1 {
		t.Fatal(numbers, err)
	}
}

// TestLogGrows takes a record larger than a file, in several writes, and gives
// the room back.
func TestLogGrows(t *testing.T) {
	m := newMemDir()
	l := openTestLog(t, m)
	for n := 1; n <= 3; n++ {
		if err := appendNumber(l, n, (n-1)*2<<20); err != nil {
			t.Fatal(err)
		}
	}
	if numbers, err := recoverNumbers(m.cut(rand.New(rand.NewPCG(1, 1)), 0)); err != nil || len(numbers) != 3 {
		t.Fatal(numbers, err)
	}
	l.seal()
	if err := l.reset(0); err != nil {
		t.Fatal(err)
	}
	for name, f := range m.names {
		if len(f.data) != testLogSize {
			t.Errorf("%s has %d bytes", name, len(f.data))
		}
	}
}

// TestLogWrites: a small commit is one write of whole blocks and one sync.
func TestLogWrites(t *testing.T) {
	m := newMemDir()
	l := openTestLog(t, m)
	var ops []string
	m.before = func(op string) error {
		ops = append(ops, op)
		return nil
	}
	for n := range 8 {
		ops = nil
		if err := appendNumber(l, n, n*500); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(ops, " "); got != "write sync" {
			t.Fatal(got)
		}
	}
}
