package daemon

import (
	"context"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd of the process's state; without systemd it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("systemd was not told", "state", state, "err", err)
	}
}

// watchdog tells systemd that the process is well, as often as it wants to know:
// whenever alive returns, and once ctx has ended without asking, since what it
// does to leave has deadlines of its own. Without WatchdogSec it does nothing.
func watchdog(ctx context.Context, log *slog.Logger, alive func() error) {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	// Two may be missed before systemd ends the process.
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		var err error
		if ctx.Err() == nil {
			err = alive()
		}
		if err != nil {
			// Without the message systemd ends the process and starts it anew.
			log.Error("not well", "err", err)
		} else {
			notify(log, sd.SdNotifyWatchdog)
		}
		<-tick.C
	}
}
