package db

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog hands Badger's messages to slog. What Badger calls information is
// debugging to the user of a filesystem.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(format string, args ...any)   { l.print(slog.LevelError, format, args) }
func (l badgerLog) Warningf(format string, args ...any) { l.print(slog.LevelWarn, format, args) }
func (l badgerLog) Infof(format string, args ...any)    { l.print(slog.LevelDebug, format, args) }

// Debugf drops the message: Badger formats several for each commit.
func (l badgerLog) Debugf(string, ...any) {}

func (l badgerLog) print(level slog.Level, format string, args []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.log.Log(context.Background(), level, "badger: "+text)
}
