// Package buildinfo tells which build of the programs this is.
package buildinfo

import "runtime/debug"

// Version is what the Go toolchain knows: a release's tag, else the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
