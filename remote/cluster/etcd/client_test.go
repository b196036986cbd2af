package etcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A read is asked again while a member hangs, and no more often than there are members.
func TestHedged(t *testing.T) {
	refused := errors.New("refused")
	hangs := func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	says := func(err error) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return 7, err }
	}
	for _, test := range []struct {
		name    string
		members []func(context.Context) (int, error) // in the order in which they are asked
		err     error
		took    time.Duration
	}{
		{"the first answers", []func(context.Context) (int, error){says(nil)}, nil, 0},
		{"the first refuses", []func(context.Context) (int, error){says(refused)}, refused, 0},
		{"the first hangs", []func(context.Context) (int, error){hangs, says(nil)}, nil, hedgeAfter},
		{"two hang", []func(context.Context) (int, error){hangs, hangs, says(nil)}, nil, 2 * hedgeAfter},
		{"one hangs, one refuses", []func(context.Context) (int, error){hangs, says(refused), says(nil)}, nil, 2 * hedgeAfter},
		{"all hang", []func(context.Context) (int, error){hangs, hangs, hangs}, context.DeadlineExceeded, callTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := make(chan int, len(test.members)) // more than that would hang for good
				begun := time.Now()
				got, err := hedged(t.Context(), func(ctx context.Context) (int, error) {
					asked <- 0
					return test.members[len(asked)-1](ctx)
				})
				if !errors.Is(err, test.err) || err == nil && got != 7 {
					t.Errorf("%d, %v", got, err)
				}
				if took := time.Since(begun); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				if len(asked) != len(test.members) {
					t.Errorf("%d were asked", len(asked))
				}
			})
		})
	}
}
