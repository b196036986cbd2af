package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/store/config"
)

// The commands, with what is below them, for which STORE may be a URL, and those that change
// nothing.
var (
	urlCommands = []string{
		"put", "get", "cat", "rm", "objects", "stats", "du", "list-files", "list-blocks", "graph", "snapshot list", "snapshot show", "snapshot diff",
	}
	lookingCommands = []string{
		"get", "cat", "objects", "stats", "du", "list-files", "list-blocks", "graph", "snapshot list", "snapshot show", "snapshot diff",
		"tier list", "tier status", "token list", "remote list", "sync status",
	}
)

// among tells whether a command, or one that it is below, is in a list.
func among(cmd *cobra.Command, list []string) bool {
	name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	return slices.ContainsFunc(list, func(c string) bool { return name == c || strings.HasPrefix(name, c+" ") })
}

// acceptURL refuses a URL where the command cannot use one.
func acceptURL(cmd *cobra.Command, url string) error {
	if among(cmd, urlCommands) {
		return nil
	}
	return fmt.Errorf("%w: %s does not work on a store at a URL: run it on the machine of %s", errUsage, cmd.CommandPath(), url)
}

func isURL(arg string) bool {
	return strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://")
}

// The variables that say whom to trust, and what to show, where STORE is a URL.
const (
	tokenVariable       = "QUARXFS_TOKEN"
	tokenFileVariable   = "QUARXFS_TOKEN_FILE"
	fingerprintVariable = "QUARXFS_FINGERPRINT"
	caVariable          = "QUARXFS_CA"
	certVariable        = "QUARXFS_CERT"
	keyVariable         = "QUARXFS_KEY"
)

// nodeAt is the node at a URL, as the environment describes it.
func nodeAt(url string) (config.Remote, error) {
	r := config.Remote{
		Name: config.NoRemote, URL: url, Fingerprint: os.Getenv(fingerprintVariable),
		TokenFile: os.Getenv(tokenFileVariable), CA: os.Getenv(caVariable), Cert: os.Getenv(certVariable), Key: os.Getenv(keyVariable),
	}
	if err := makeAbs(&r.TokenFile, &r.CA, &r.Cert, &r.Key); err != nil {
		return r, err
	}
	return r, r.Validate()
}

// makeAbs makes paths that are given absolute: a daemon has another directory than
// who starts it.
func makeAbs(paths ...*string) error {
	for _, path := range paths {
		if *path == "" {
			continue
		}
		abs, err := mounts.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	return nil
}

var urlHelp = `STORE may be the URL of a server, http://HOST:PORT or https://HOST:PORT, for these:
` + strings.Join(urlCommands, ", ") + `.
$QUARXFS_TOKEN or the file in $QUARXFS_TOKEN_FILE has the token; $QUARXFS_FINGERPRINT,
$QUARXFS_CA, $QUARXFS_CERT and $QUARXFS_KEY are as the flags of quarxfs remote add.`
