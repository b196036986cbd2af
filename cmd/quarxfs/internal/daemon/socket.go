package daemon

import (
	"context"
	"os"
	"time"

	"github.com/quarxtor/quarxfs/store/routine"
)

// socketLook is how often a daemon looks whether its control socket is there. Its commands wait
// longer for the store, and so do not fail in between.
const socketLook = time.Second

// keepSocket makes the control socket again when somebody has removed it, or put something else in
// its place: without it the daemon cannot be asked, nor tell how it ended.
func (d *daemon) keepSocket(ctx context.Context) {
	warned := false
	for routine.Sleep(ctx, socketLook) == nil {
		if d.hasSocket() {
			warned = false
			continue
		}
		// The old one stays open for who is connected to it; it ends with the service.
		l, err := d.listen()
		if err == nil {
			d.control.Also(l)
			d.log.Warn("the control socket was gone, and was made again")
		} else if !warned { // once, as the store's directory may be gone for good
			d.log.Error("the control socket is gone, and cannot be made again: commands do not reach this daemon", "err", err)
			warned = true
		}
	}
}

// hasSocket returns whether the control socket's path leads to the socket that listen has made.
func (d *daemon) hasSocket() bool {
	var at os.FileInfo
	err := d.besides(func() (err error) {
		at, err = os.Lstat(d.socket)
		return err
	})
	return err == nil && os.SameFile(at, d.bound)
}
