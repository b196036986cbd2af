package routine

import (
	"context"
	"testing"
	"time"
)

func TestEach(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, every time.Duration
		kicks        int
	}{
		{"ticks", time.Millisecond, time.Millisecond, 0},
		{"kicks", time.Hour, time.Hour, 3},
		{"the first comes sooner", 0, time.Millisecond, 0},
	} {
		kick, steps := make(chan struct{}), make(chan struct{})
		r := Start(func(ctx context.Context) {
			Each(ctx, c.first, c.every, kick, func() {
				select {
				case steps <- struct{}{}:
				case <-ctx.Done():
				}
			})
		})
		for i := range 3 {
			if i < c.kicks {
				kick <- struct{}{}
			}
			<-steps
		}
		r.End()
		select {
		case <-steps:
			t.Errorf("%s: it goes on after its end", c.name)
		default:
		}
	}
	var none *Routine
	none.End()
}
