package owner

import (
	"errors"
	"log/slog"
	"os"
	"syscall"

	"github.com/quarxtor/quarxfs/store/handle"
)

// EnterPath has this process act in a store's directory with the rights of its owner, until
// leave, where the caller is root and the store somebody else's; see Enter. It is called
// before a store is opened, made or rebuilt, which is at inside then.
func EnterPath(dir string, log *slog.Logger) (inside string, leave func() error, err error) {
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return dir, func() error { return nil }, nil // nothing to be careful of; opening says so
	}
	if err != nil {
		return "", nil, err
	}
	back, warning, err := Enter(d)
	if err != nil {
		return "", nil, errors.Join(err, d.Close())
	}
	if warning != "" {
		log.Warn(warning)
	}
	return d.Join(), func() error { return errors.Join(back(), d.Close()) }, nil
}
