package termlog

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	var b strings.Builder
	h := New(&b)
	log := slog.New(h)
	log.Info("is not for the terminal")
	log.Warn("plain")
	log.With("dir", "/cold").Error("it is away", "err", errors.New("first line\nsecond"))
	log.Warn("cut off", "segment", "segment 01", "bytes", 32)
	h.Stop()
	log.Error("too late")
	want := "quarxfs: warning: plain\n" +
		"quarxfs: error: it is away (dir /cold): first line second\n" +
		"quarxfs: warning: cut off (segment 01, bytes 32)\n"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
