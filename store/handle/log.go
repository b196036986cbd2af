package handle

import (
	"context"
	"log/slog"
)

// Log returns a logger that says everything as Shown.
func Log(l *slog.Logger) *slog.Logger { return slog.New(shownLog{l.Handler()}) }

type shownLog struct{ slog.Handler }

func (h shownLog) Handle(ctx context.Context, r slog.Record) error {
	shown := slog.NewRecord(r.Time, r.Level, Shown(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		shown.AddAttrs(shownAttr(a))
		return true
	})
	return h.Handler.Handle(ctx, shown)
}

func (h shownLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	shown := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		shown[i] = shownAttr(a)
	}
	return shownLog{h.Handler.WithAttrs(shown)}
}

func (h shownLog) WithGroup(name string) slog.Handler { return shownLog{h.Handler.WithGroup(name)} }

func shownAttr(a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindString {
		return slog.String(a.Key, Shown(a.Value.String()))
	}
	if err, ok := a.Value.Any().(error); ok {
		return slog.Any(a.Key, ShownError(err))
	}
	return a
}
