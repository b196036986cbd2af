package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// mount(8) and umount(8) call programs of these names, links to this one, for
// filesystems of type fuse.quarxfs.
const (
	mountHelper  = "mount." + mounts.FSType
	umountHelper = "umount." + mounts.FSType
)

// The exit codes of mount(8).
const (
	mountUsage       = 1
	mountInterrupted = 8
	mountFailure     = 32
)

// asHelper translates the arguments that mount(8) and umount(8) give to their
// helpers into those of a command; ok is false under any other name.
//
//	mount.fuse.quarxfs STORE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//	umount.fuse.quarxfs DIR [-flnrv] [-N NAMESPACE] [-t TYPE]
//
// Where the helpers are not installed, mount(8) calls fuse's own, and that this program by the name
// that follows "fuse." in the type, with the same arguments: quarxfs STORE DIR -o OPTIONS. No
// command has a slash in its name.
func asHelper(argv []string) (args []string, ok bool, err error) {
	switch filepath.Base(argv[0]) {
	case mountHelper:
		args, err = mountHelperArgs(argv[1:])
	case umountHelper:
		args, err = umountHelperArgs(argv[1:])
	default:
		if len(argv) < 3 || !strings.Contains(argv[1], "/") || !strings.HasPrefix(argv[2], "/") {
			return argv[1:], false, nil
		}
		args, err = mountHelperArgs(argv[1:])
	}
	return args, true, err
}

func mountHelperArgs(argv []string) ([]string, error) {
	words, flags, err := helperWords(argv)
	if err == nil && len(words) != 2 {
		err = fmt.Errorf("%w: %s takes a store and a directory; it is called by mount -t %s", errUsage, mountHelper, mounts.FSType)
	}
	if err != nil {
		return nil, err
	}
	// Behind -- nothing is a flag, as a store's name may begin with a dash.
	args := []string{"mount"}
	for _, o := range flags['o'] {
		args = append(args, "-o", o)
	}
	if len(flags['f']) > 0 {
		args = append(args, "--dry-run")
	}
	return append(args, append([]string{"--"}, words...)...), nil
}

func umountHelperArgs(argv []string) ([]string, error) {
	words, flags, err := helperWords(argv)
	if err == nil && len(words) != 1 {
		err = fmt.Errorf("%w: %s takes a directory; it is called by umount", errUsage, umountHelper)
	}
	if err != nil {
		return nil, err
	}
	args := []string{"umount"}
	if len(flags['f'])+len(flags['l']) > 0 {
		args = append(args, "--force")
	}
	return append(args, "--", words[0]), nil
}

// helperWords parts the words of a helper's command line from its flags.
func helperWords(argv []string) (words []string, flags map[byte][]string, err error) {
	flags = make(map[byte][]string)
	for len(argv) > 0 {
		arg := argv[0]
		argv = argv[1:]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			words = append(words, arg)
			continue
		}
		// Letters may be joined, and a value joined to its letter: -sfo ro and -oro.
		for i := 1; i < len(arg); i++ {
			c, value := arg[i], ""
			if strings.IndexByte("oNt", c) >= 0 {
				if value = arg[i+1:]; value == "" {
					if len(argv) == 0 {
						return nil, nil, fmt.Errorf("%w: -%c needs a value", errUsage, c)
					}
					value, argv = argv[0], argv[1:]
				}
				i = len(arg)
			} else if strings.IndexByte("sfnvlr", c) < 0 {
				return nil, nil, fmt.Errorf("%w: -%c is not known", errUsage, c)
			}
			flags[c] = append(flags[c], value)
		}
	}
	return words, flags, nil
}

// helperCode turns an exit code into one of mount(8).
func helperCode(code int) int {
	switch code {
	case exitOK:
		return exitOK
	// mount(8) and its callers know these and no others.
	case exitCode(errUsage):
		return mountUsage
	case exitInterrupted:
		return mountInterrupted
	}
	return mountFailure
}

// setOption sets the flag of a command that a mount option is named after:
// commit_interval=10s is --commit-interval 10s. known is false if there is none.
func setOption(cmd *cobra.Command, option string) (known bool, err error) {
	name, value, given := strings.Cut(option, "=")
	f := cmd.Flags().Lookup(strings.ReplaceAll(name, "_", "-"))
	// Flags that are hidden are for this program's own use.
	if f == nil || f.Hidden || f.Annotations[notAnOption] != nil || f.Name == "help" {
		return false, nil
	}
	if !given {
		if value = f.NoOptDefVal; value == "" {
			return true, fmt.Errorf("%w: mount option %q needs a value: %s=VALUE", errUsage, name, name)
		}
	}
	if err := cmd.Flags().Set(f.Name, value); err != nil {
		return true, errors.Join(fmt.Errorf("%w: mount option %q", errUsage, option), err)
	}
	return true, nil
}

// notAnOption marks flags that are no mount options.
const notAnOption = "not-an-option"
