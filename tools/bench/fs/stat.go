package main

import (
	"math"
	"slices"
)

// A spread describes some rounds' figures.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is all NaN for no figures.
func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(figures))
	mid := s[len(s)/2]
	if len(s)%2 == 0 {
		mid = (mid + s[len(s)/2-1]) / 2
	}
	return spread{Median: mid, Min: s[0], Max: s[len(s)-1]}
}

// percent is half the range from least to most, relative to the median.
func (s spread) percent() float64 {
	if s.Median == 0 {
		return 0
	}
	return 100 * (s.Max - s.Min) / 2 / s.Median
}
