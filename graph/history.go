package graph

import "time"

// A HistoryPoint is a snapshot in the history of a store.
type HistoryPoint struct {
	Name    string    `json:"name"`
	ID      ID        `json:"id"`
	Created time.Time `json:"created"`
	Totals
	Dedup      float64 `json:"dedup_ratio"`     // of the store: bytes that refer to each byte of data; 0: none
	NewDedup   float64 `json:"new_dedup_ratio"` // bytes written for each byte that was new; 0: nothing was
	NewEntropy float64 `json:"new_entropy"`     // bits a byte, 0 to 8
	Alarm      string  `json:"alarm,omitempty"` // see Suspect
	Fault      string  `json:"fault,omitempty"` // why it cannot be read; then there are no figures, and Created is when its name was set
}

// NewHistoryPoint reads a snapshot's totals.
func NewHistoryPoint(name string, id ID, s *Snapshot) HistoryPoint {
	t := s.Totals
	return HistoryPoint{
		Name: name, ID: id, Created: time.Unix(s.Created.Sec, int64(s.Created.Nsec)).UTC(), Totals: t,
		Dedup: quotient(t.Referenced, t.Unique), NewDedup: quotient(t.Written, t.New), NewEntropy: float64(t.Entropy) / 1000,
	}
}

func quotient(a, b int64) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}
