package graph

import (
	"fmt"
	"math"
	"time"
)

// A HistoryPoint is a snapshot in the history of a store.
type HistoryPoint struct {
	Name    string    `json:"name"`
	ID      ID        `json:"id"`
	Created time.Time `json:"created"`
	Totals
	Dedup      float64 `json:"dedup_ratio"`     // of the store: bytes that refer to each byte of data; 0: none
	NewDedup   float64 `json:"new_dedup_ratio"` // bytes written for each byte that was new; 0: nothing was
	NewEntropy float64 `json:"new_entropy"`     // bits a byte, 0 to 8
	Alarm      string  `json:"alarm,omitempty"` // see Alarm
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

// Judge sets the alarms of points, which are in order of time.
func Judge(points []HistoryPoint) {
	for i := range points {
		points[i].Alarm = Alarm(points[:i], points[i])
	}
}

// Bounds of Alarm. Encrypted or compressed bytes have an entropy of 7.9 and more
// in blocks of 4 KiB; text has 4 to 6, programs 5.5 to 6.5.
const (
	alarmEntropy = 7.5     // bits a byte, of what is new
	alarmRise    = 1.0     // over what was new before
	alarmShare   = 0.1     // of all data, that is new
	alarmBytes   = 1 << 20 // that are new
	alarmDedup   = 1.2     // bytes written for each that is new
	alarmPoints  = 8       // snapshots that are looked back at
)

// Alarm says why a snapshot looks as if its files had been encrypted, or "": much
// of the data is new, hardly anything of what was written was known, and its
// entropy is that of random bytes, while what was new in the snapshots before had
// a much lower one. before are the snapshots before it, the newest last. It is a
// pure function.
func Alarm(before []HistoryPoint, p HistoryPoint) string {
	var bytes, bits float64
	for _, b := range before[max(0, len(before)-alarmPoints):] {
		bytes += float64(b.New)
		bits += float64(b.New) * b.NewEntropy
	}
	if bytes == 0 {
		return "" // nothing to compare it with
	}
	usual := bits / bytes
	share := quotient(p.New, p.Data)
	switch {
	case p.New < alarmBytes, share < alarmShare:
	case p.NewEntropy < alarmEntropy, p.NewEntropy < usual+alarmRise:
	case p.NewDedup > alarmDedup:
	default:
		return fmt.Sprintf("%.0f %% of the data is new and looks random: %.2f bits a byte, where %.2f was usual, and hardly any of it was known; encryption by malware looks like this",
			math.Min(100, share*100), p.NewEntropy, usual)
	}
	return ""
}
