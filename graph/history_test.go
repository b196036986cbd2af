package graph

import (
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

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
