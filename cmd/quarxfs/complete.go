package main

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// What a shell offers for an argument follows from the word that stands for it in the usage
// line, and for the value of a flag from its type, or the word in its help. Only the daemon of a
// mounted store is asked: no store is opened or locked because somebody pressed a key, and
// whatever fails offers nothing.

// completeTime is how long a key press waits for the daemon.
var completeTime = 300 * time.Millisecond

// completeMost is how many words are offered at most.
const completeMost = 1000

// An offer lists what a word can be. Of a path, prefix is what has been typed of it.
type offer func(ctx context.Context, c *remote.Client, prefix string, add func(string) error) error

// offers are by the words of usage lines. A word that is not here is a new name, or a file
// of this machine, which the shell knows how to complete.
var offers = map[string][]offer{
	"A":                      {offerSnapshots}, // of snapshot diff
	"B":                      {offerSnapshots},
	"BLOCK|PATH":             {offerObjects, offerSnapshotPath, offerLive},
	"FROM":                   {offerSnapshots, offerObjects, offerSnapshotPath, offerLive},
	"NEWPATH":                {offerLive},
	"OBJECT":                 {offerObjects},
	"OBJECT|PATH|SNAPSHOT":   {offerSnapshots, offerObjects, offerSnapshotPath, offerLive},
	"PATH":                   {offerLive},
	"PATH|SNAP|OBJECT":       {offerSnapshots, offerObjects, offerSnapshotPath, offerLive},
	"REMOTE":                 {offerRemotes},
	"SNAPSHOT":               {offerSnapshots},
	"SNAPSHOT[:PATH]":        {offerSnapshots, offerSnapshotPath},
	"TARGET":                 {offerLive},
	"TO":                     {offerSnapshots, offerObjects, offerSnapshotPath, offerLive},
	"TOKEN":                  {offerTokens},
	"[REMOTE:]SNAPSHOT:PATH": {offerSnapshots, offerSnapshotPath},
}

// onThisMachine are the words that can be a file or directory of this machine.
var onThisMachine = []string{"STORE", "FILE", "DIR", "MOUNTPOINT", "PATH", "TARGET"}

// shellCompletes reports whether the shell may offer files for a word.
func shellCompletes(name string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return r == '|' || r == ':' || r == '[' || r == ']' }),
		func(part string) bool { return slices.Contains(onThisMachine, part) }) && !strings.HasSuffix(name, "SNAPSHOT:PATH") && name != "SNAPSHOT[:PATH]"
}

// complete is cobra's ValidArgsFunction of all commands.
func complete(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	all := words(c)
	from, dir := 0, ""
	if len(all) > 0 && all[0].name == storeWord && all[0].optional {
		switch {
		case len(args) == 0: // STORE, or what follows it
			// What follows STORE first, as STORE is mostly left out where one stands in a mount.
			if found, how := completeWord(c.Context(), all[1:], 0, "", typed); len(found) > 0 {
				return found, how
			}
			return nil, cobra.ShellCompDirectiveDefault
		case isStoreSoon(c.Context(), args[0]):
			dir = args[0]
		default:
			from = 1
		}
	}
	return completeWord(c.Context(), all, len(args)+from, dir, typed)
}

// isStoreSoon is isStore, but for a mount that hangs.
func isStoreSoon(ctx context.Context, arg string) bool {
	is, err := asked(ctx, completeTime, nil, func() (bool, error) { return isStore(arg), nil })
	return err == nil && is
}

// completeWord offers what the n-th of the words can be.
func completeWord(ctx context.Context, all []word, n int, dir, typed string) ([]string, cobra.ShellCompDirective) {
	if len(all) > 0 && n >= len(all) && all[len(all)-1].many {
		n = len(all) - 1
	}
	if n >= len(all) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return offered(ctx, all[n].name, dir, typed)
}

// offered is what a word can be that begins as typed, in the store that an argument names.
func offered(ctx context.Context, name, arg, typed string) ([]string, cobra.ShellCompDirective) {
	how := cobra.ShellCompDirectiveDefault
	if !shellCompletes(name) {
		how = cobra.ShellCompDirectiveNoFileComp
	}
	if (word{name: name}).literal() {
		return []string{name}, how
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	list, err := asked(ctx, completeTime, nil, func() ([]string, error) { return ask(ctx, offers[name], arg, typed), nil })
	if err != nil { // a mount that hangs
		return nil, how
	}
	if slices.ContainsFunc(list, func(s string) bool { return strings.HasSuffix(s, "/") || strings.HasPrefix(s, ":") }) {
		how |= cobra.ShellCompDirectiveNoSpace
	}
	return list, how
}

// errEnough ends a listing of which nothing more is offered.
var errEnough = errors.New("there are enough")

// ask asks the daemon of a store.
func ask(ctx context.Context, from []offer, arg, typed string) []string {
	if len(from) == 0 {
		return nil
	}
	to, err := locateAt(arg)
	// Another machine is not asked because somebody pressed a key.
	if err != nil || isURL(to.dir) {
		return nil
	}
	// Only a daemon is asked: to open a store takes its lock, and time.
	client := daemon.Client(to.dir, to.device)
	defer client.Close()
	var list []string
	add := func(s string) error {
		if strings.HasPrefix(s, typed) && safeToType(s) && !slices.Contains(list, s) {
			list = append(list, s)
		}
		if len(list) == completeMost {
			return errEnough
		}
		return nil
	}
	for _, offer := range from {
		_ = offer(ctx, client, typed, add) // nothing is offered then
	}
	return list
}

// safeToType reports whether a shell takes a word as it is offered: the others are left out.
func safeToType(s string) bool {
	return utf8.ValidString(s) && !strings.HasPrefix(s, "-") && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune("'\"\\$&|;<>()*?[]#`!", r)
	})
}

func offerSnapshots(ctx context.Context, c *remote.Client, _ string, add func(string) error) error {
	return c.ListSnapshots(ctx, func(s remote.Snapshot) error { return add(s.Name) })
}

func offerObjects(ctx context.Context, c *remote.Client, prefix string, add func(string) error) error {
	return c.ListObjects(ctx, remote.Page{}, func(o remote.Object) error {
		if o.Name > prefix && !strings.HasPrefix(o.Name, prefix) {
			return errEnough // they come in the order of their names
		}
		return add(o.Name)
	})
}

func offerRemotes(ctx context.Context, c *remote.Client, _ string, add func(string) error) error {
	set, err := c.Settings(ctx)
	for _, r := range set.Remotes {
		err = errors.Join(err, add(r.Name))
	}
	return err
}

func offerTokens(ctx context.Context, c *remote.Client, _ string, add func(string) error) error {
	return c.ListTokens(ctx, func(t config.Token) error { return add(t.Name) })
}

// offerSnapshotPath lists the directory of a snapshot in which SNAPSHOT:PATH is.
func offerSnapshotPath(ctx context.Context, c *remote.Client, prefix string, add func(string) error) error {
	snapshot, in, ok := strings.Cut(prefix, ":")
	if !ok || snapshot == "" {
		return nil
	}
	dir, _ := path.Split(in)
	return c.Show(ctx, snapshot+":"+strings.Trim(dir, "/"), func(it remote.ShowItem) error {
		p := it.Part
		if p == nil || p.Role != graph.Content {
			return nil
		}
		name := snapshot + ":" + dir + p.Name
		if p.Block != nil && p.Block.Kind == store.KindTree.String() {
			name += "/"
		}
		return add(name)
	})
}

// offerLive lists the directory of the live tree in which :PATH is. Other paths are
// this machine's, and the shell's business.
func offerLive(ctx context.Context, c *remote.Client, prefix string, add func(string) error) error {
	in, ok := strings.CutPrefix(prefix, ":")
	if !ok {
		return nil
	}
	dir, _ := path.Split(in)
	return c.Show(ctx, "/"+strings.Trim(dir, "/"), func(it remote.ShowItem) error {
		if it.Part == nil || it.Part.Name == "" {
			return nil
		}
		return add(":" + dir + it.Part.Name)
	})
}

// A chooser is the value of a flag that takes one of a few words.
type chooser interface{ choices() []string }

// completeFlags has the values of a command's flags completed.
func completeFlags(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name, _ := pflag.UnquoteUsage(f)
		name = strings.ToUpper(name)
		var fn cobra.CompletionFunc
		if v, ok := f.Value.(chooser); ok && len(v.choices()) > 0 {
			fn = func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				before := typed[:strings.LastIndexByte(typed, ',')+1] // of a list
				var all []string
				for _, choice := range v.choices() {
					if strings.HasPrefix(before+choice, typed) {
						all = append(all, before+choice)
					}
				}
				return all, cobra.ShellCompDirectiveNoFileComp
			}
		} else if offers[name] != nil {
			fn = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				dir := ""
				if len(args) > 0 && isStoreSoon(c.Context(), args[0]) {
					dir = args[0]
				}
				return offered(c.Context(), name, dir, typed)
			}
		} else if f.Value.Type() != "bool" && name != "DIRECTORY" && !shellCompletes(name) {
			fn = cobra.NoFileCompletions
		}
		if fn != nil {
			_ = c.RegisterFlagCompletionFunc(f.Name, fn) // fails only if it has one
		}
	})
}

// unquoteUsages takes the marks of help out of flags' usages, which completion shows as they are.
func unquoteUsages(c *cobra.Command) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) })
	for _, sub := range c.Commands() {
		unquoteUsages(sub)
	}
}
