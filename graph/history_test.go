package graph

import (
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// point makes a snapshot of data MiB, of which written were written and fresh
// were new with an entropy.
func point(data, written, fresh int64, entropy float64) HistoryPoint {
	return HistoryPoint{
		Totals:   Totals{Data: data << 20, Written: written << 20, New: fresh << 20, Entropy: int64(entropy * 1000)},
		NewDedup: quotient(written, fresh), NewEntropy: entropy,
	}
}

func TestAlarm(t *testing.T) {
	usual := []HistoryPoint{point(100, 100, 60, 5), point(105, 10, 6, 5.2), point(106, 4, 2, 6)}
	for _, x := range []struct {
		name   string
		before []HistoryPoint
		p      HistoryPoint
		alarm  bool
	}{
		{"all files encrypted", usual, point(106, 106, 106, 7.99), true},
		{"a fifth encrypted", usual, point(106, 22, 21, 7.95), true},
		{"the first snapshot", nil, point(100, 100, 100, 7.99), false},
		{"after empty ones", []HistoryPoint{point(0, 0, 0, 0)}, point(100, 100, 100, 7.99), false},
		{"little of it", usual, point(106, 5, 5, 7.99), false},
		{"text", usual, point(206, 100, 100, 5.5), false},
		{"much was known", usual, point(206, 100, 50, 7.99), false},
		{"pictures as before", []HistoryPoint{point(100, 100, 100, 7.8)}, point(200, 100, 100, 7.97), false},
		{"nothing new", usual, point(106, 0, 0, 0), false},
		{"tiny", usual, HistoryPoint{Totals: Totals{Data: 1000, Written: 1000, New: 1000}, NewDedup: 1, NewEntropy: 7.99}, false},
		{"after a long time", append(append([]HistoryPoint{}, point(9000, 9000, 9000, 7.9)), manyOf(point(9000, 10, 10, 5), 8)...), point(9000, 9000, 9000, 7.99), true},
	} {
		why := Alarm(x.before, x.p)
		if (why != "") != x.alarm {
			t.Errorf("%s: %q", x.name, why)
		}
		if why != "" && !strings.Contains(why, "bits a byte") {
			t.Errorf("%s: %q says nothing", x.name, why)
		}
	}
	points := append(append([]HistoryPoint{}, usual...), point(106, 106, 106, 7.99), point(106, 1, 1, 7.99))
	Judge(points)
	for i, p := range points {
		if (p.Alarm != "") != (i == 3) {
			t.Errorf("point %d: %q", i, p.Alarm)
		}
	}
}

func manyOf(p HistoryPoint, n int) (list []HistoryPoint) {
	for range n {
		list = append(list, p)
	}
	return list
}

func TestNewHistoryPoint(t *testing.T) {
	s := Snapshot{Created: Time{Sec: 1000}, Totals: Totals{Referenced: 300, Unique: 100, Written: 50, New: 20, Entropy: 5500}}
	p := NewHistoryPoint("a", store.ID{1}, &s)
	if p.Dedup != 3 || p.NewDedup != 2.5 || p.NewEntropy != 5.5 || !p.Created.Equal(time.Unix(1000, 0)) || p.New != 20 {
		t.Errorf("%+v", p)
	}
	if p := NewHistoryPoint("b", store.ID{}, &Snapshot{}); p.Dedup != 0 || p.NewDedup != 0 {
		t.Errorf("%+v", p)
	}
}
