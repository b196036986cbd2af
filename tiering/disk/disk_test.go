package disk_test

import (
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/disktest"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// The disks behave alike where nothing fails; tiering/s3 runs the same for buckets.
func TestConformance(t *testing.T) {
	t.Run("os", func(t *testing.T) { disktest.Conform(t, disk.OS(), filepath.Join(t.TempDir(), "a", "b")) })
	t.Run("fault", func(t *testing.T) { disktest.Conform(t, faultdisk.New(), "/a/b") })
}
