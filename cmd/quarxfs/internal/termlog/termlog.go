// Package termlog shows log records to who has typed a command: a line of words each, without
// time and keys.
package termlog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
)

// A Handler writes records from slog.LevelWarn on to a terminal. Others are what a log is for.
//
//	quarxfs: warning: the end of a segment was cut off (segment 0000000000000001, bytes 32)
type Handler struct {
	w     io.Writer
	attrs []slog.Attr
	quiet *atomic.Bool
}

// New returns a Handler that writes to w.
func New(w io.Writer) *Handler { return &Handler{w: w, quiet: new(atomic.Bool)} }

// Stop ends the writing, also by Handlers that were made from this one.
func (h *Handler) Stop() { h.quiet.Store(true) }

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && !h.quiet.Load()
}

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	if h.quiet.Load() {
		return nil
	}
	why := ""
	var about []string
	add := func(a slog.Attr) bool {
		v := strings.TrimSpace(a.Value.Resolve().String())
		switch {
		case a.Key == "err":
			why = ": " + v
		// A value that begins with its key, as a segment's does, needs no key.
		case strings.HasPrefix(v, a.Key):
			about = append(about, v)
		default:
			about = append(about, a.Key+" "+v)
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	level := "warning"
	if r.Level >= slog.LevelError {
		level = "error"
	}
	line := r.Message + why
	if len(about) > 0 {
		line = fmt.Sprintf("%s (%s)%s", r.Message, strings.Join(about, ", "), why)
	}
	// One line, whatever an error says.
	_, err := fmt.Fprintf(h.w, "quarxfs: %s: %s\n", level, strings.Join(strings.Fields(line), " "))
	return err
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(with.attrs[:len(with.attrs):len(with.attrs)], attrs...)
	return &with
}

// WithGroup implements slog.Handler. Groups have no names here.
func (h *Handler) WithGroup(string) slog.Handler { return h }
