package remote

import (
	"context"
	"errors"
	"testing"
)

// What ends with a cancelled context ends with the reason of who cancelled it; all else keeps its
// own error.
func TestEnded(t *testing.T) {
	cause, broke := errors.New("the client has left"), errors.New("the disk broke")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, c := range []struct {
		ctx       context.Context
		err, want error
	}{
		{cancelled, context.Canceled, cause},
		{cancelled, broke, broke},
		{t.Context(), broke, broke},
		{t.Context(), context.Canceled, context.Canceled},
	} {
		if got := ended(c.ctx, c.err); !errors.Is(got, c.want) {
			t.Errorf("%v became %v, want %v", c.err, got, c.want)
		}
	}
}
