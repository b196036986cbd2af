package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/tools/serve"
)

// A target is a parsed [NAME=]SERVER[:DIR].
type target struct{ name, server, dir string }

func parseTarget(arg, defaultDir string) (target, error) {
	name, rest, named := strings.Cut(arg, "=")
	if !named {
		rest = arg
	}
	server, dir, _ := strings.Cut(rest, ":")
	if dir == "" {
		dir = defaultDir
	}
	if !named {
		name = server
	}
	if name == "" || server == "" {
		return target{}, fmt.Errorf("target %q is not [NAME=]SERVER[:DIR]", arg)
	}
	return target{name, server, dir}, nil
}

// commandFlags are the NAME=COMMAND flags of custom targets.
type commandFlags struct{ mount, umount, init, pid []string }

func (c *commandFlags) register(f *pflag.FlagSet) {
	f.StringArrayVar(&c.mount, "mount-cmd", nil, "`NAME=COMMAND` that mounts $DIR at $MNT and returns when it answers")
	f.StringArrayVar(&c.umount, "umount-cmd", nil, "`NAME=COMMAND` that unmounts $MNT (default umount)")
	f.StringArrayVar(&c.init, "init-cmd", nil, "`NAME=COMMAND` that makes a new filesystem in $DIR, which is empty")
	f.StringArrayVar(&c.pid, "pid-cmd", nil, "`NAME=COMMAND` that prints the daemon's process ID")
}

func (c *commandFlags) forTarget(name string) serve.Commands {
	of := func(values []string) string {
		for _, v := range values {
			if n, cmd, ok := strings.Cut(v, "="); ok && n == name {
				return cmd
			}
		}
		return ""
	}
	return serve.Commands{Mount: of(c.mount), Umount: of(c.umount), Init: of(c.init), PID: of(c.pid)}
}
