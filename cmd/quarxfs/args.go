package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/store"
)

// A word is one argument in the usage line of a command.
type word struct {
	name     string
	optional bool // in brackets
	many     bool // followed by ...
}

// storeWord is the argument that may be left out where a store can be found.
const storeWord = "STORE"

// literal reports a word that stands for itself.
func (w word) literal() bool { return strings.ToLower(w.name) == w.name }

// couldBe reports whether an argument can be meant by the word, by its form alone:
// what is no path has a name that could be that of a file.
func (w word) couldBe(arg string) bool {
	for _, of := range []string{"PATH", "FILE", "DIR", "BLOCK", "OBJECT", "URL", "TARGET"} {
		if strings.Contains(w.name, of) {
			return true
		}
	}
	return arg != "." && arg != ".." && !strings.Contains(arg, "/")
}

// words are the arguments that a command takes. Its usage line is the only place
// that says so.
func words(c *cobra.Command) []word {
	var all []word
	for _, field := range strings.Fields(c.Use)[1:] {
		var w word
		if w.optional = strings.HasPrefix(field, "[") && strings.HasSuffix(field, "]"); w.optional {
			field = field[1 : len(field)-1]
		}
		w.name, w.many = strings.CutSuffix(field, "...")
		all = append(all, w)
	}
	return all
}

// teach has a command and all below it check what they are given. A command whose
// STORE may be left out always gets one: "" is the store that can be found.
func teach(c *cobra.Command) {
	for _, sub := range c.Commands() {
		teach(sub)
	}
	// Before RunE, so that what excludes each other is said before what is missing.
	c.Args = exclusiveFlags
	if c.HasSubCommands() && c.HasParent() {
		c.RunE = runGroup
		return
	}
	completeFlags(c)
	if c.ValidArgsFunction == nil && c.HasParent() {
		c.ValidArgsFunction = complete
	}
	if inner := c.RunE; inner != nil && c.HasParent() {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := refuseEmpty(c, args); err != nil {
				return err
			}
			args, err := asked(c.Context(), hangTime, args, func() ([]string, error) { return arrange(c, args) })
			if err != nil {
				return err
			}
			return endable(c, func() error { return inner(c, args) })
		}
	}
}

// mayBeEmpty are the flags of which "" says something: no text, from the beginning, always.
var mayBeEmpty = []string{"message", "prefix", "after", "hours"}

// refuseEmpty reports an empty argument or flag: a variable of the shell's most likely that is not
// set. Taken for what is left out, it would mean all, or the current directory.
func refuseEmpty(c *cobra.Command, args []string) (err error) {
	if i := slices.Index(args, ""); i >= 0 {
		return usageErrorf(c, "argument %d is empty; is a variable not set?", i+1)
	}
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" && !slices.Contains(mayBeEmpty, f.Name) {
			err = usageErrorf(c, "--%s is empty; is a variable not set?", f.Name)
		}
	})
	return err
}

// arrange checks the arguments of a command, and puts "" where STORE was left out.
//
// One that could be STORE or the next word is STORE if it is a store, a mountpoint or a URL, or
// cannot be the other, or there is no store to be found: a name is not
// taken for a path that happens to be there.
func arrange(c *cobra.Command, args []string) ([]string, error) {
	all := words(c)
	least, most := 0, len(all)
	for _, w := range all {
		if !w.optional {
			least++
		}
		if w.many {
			most = max(len(args), most)
		}
	}
	switch {
	case len(args) > most:
		return nil, usageErrorf(c, "%q is one argument too many", args[most])
	case len(args) < least:
		return nil, missing(c, all, args)
	case len(all) == 0 || all[0].name != storeWord || !all[0].optional:
		return args, checkOrder(c, all, args)
	case least == 0 && len(args) == 0:
		return []string{""}, nil
	}
	// As many arguments as there are words leave no doubt; otherwise the first one has to say what
	// it is.
	given := len(args) == len(all) && !all[len(all)-1].many
	switch {
	case given:
	case len(args) == least: // there is no room for STORE
		if isStore(args[0]) {
			return nil, missing(c, all, args)
		}
	default:
		given = isStore(args[0]) || len(all) == 1 || !all[1].couldBe(args[0]) || !canFindStore(args[0])
	}
	if !given {
		args = append([]string{""}, args...)
	}
	return args, checkOrder(c, all, args)
}

// missing names the arguments that are wanted behind those that are there.
func missing(c *cobra.Command, all []word, args []string) error {
	// A single argument that is a store is STORE, and what is missing comes behind it.
	if len(args) > 0 && all[0].name == storeWord && all[0].optional && isStore(args[0]) {
		args = args[1:]
	}
	var names []string
	for _, w := range all {
		switch {
		case w.optional:
		case w.literal():
			names = append(names, strconv.Quote(w.name))
		default:
			names = append(names, w.name)
		}
	}
	names = names[len(args):]
	verb := "is"
	if len(names) > 1 {
		verb = "are"
	}
	return usageErrorf(c, "%s %s missing", strings.Join(names, " and "), verb)
}

// checkOrder reports arguments that stand in each other's places.
func checkOrder(c *cobra.Command, all []word, args []string) error {
	for i, w := range all {
		if w.literal() && i < len(args) && args[i] != w.name {
			return usageErrorf(c, "%q stands where %q is wanted", args[i], w.name)
		}
	}
	if len(args) < 2 || !strings.HasPrefix(all[0].name, storeWord) || args[0] == "" {
		return nil
	}
	if _, err := locate(args[0]); !errors.Is(err, store.ErrNotStore) {
		return nil // what else is wrong with it is said when it is opened
	}
	// Swapped arguments are the likeliest reason why the first one is no store.
	at := slices.IndexFunc(args, isStore)
	if all[0].name != storeWord {
		at = slices.IndexFunc(args, isStoreDir) // a mountpoint is wanted there
	}
	if at < 1 {
		return nil
	}
	right := slices.Concat([]string{args[at]}, args[:at], args[at+1:])
	text := fmt.Sprintf("no store is %q, but %q is one: do you mean %s?", args[0], args[at],
		strings.Join(append([]string{c.CommandPath()}, quoted(right)...), " "))
	return coded{Code: exitCode(store.ErrNotStore), Text: text}
}

// quoted are arguments as a shell takes them.
func quoted(args []string) []string {
	list := make([]string, len(args))
	for i, a := range args {
		if list[i] = a; a == "" || strings.ContainsAny(a, " \t\n'\"\\$&|;<>()*?[]#~`!") {
			list[i] = "'" + strings.ReplaceAll(printable(a), "'", `'\''`) + "'"
		}
	}
	return list
}

func isStoreDir(arg string) bool {
	if arg == "" {
		return false
	}
	_, err := store.ReadConfig(arg)
	return err == nil || !errors.Is(err, store.ErrNotStore) && !errors.Is(err, errNotDir)
}

// canFindStore reports whether there is a store without STORE: the one that can be found, or the
// one whose mount an argument that is no store itself leads into.
func canFindStore(arg string) bool {
	if _, err := locate(""); err == nil {
		return true
	}
	_, err := findStorePath(arg)
	return err == nil
}

// runGroup runs where the name of a command is wanted.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}

func unknownCommand(c *cobra.Command, name string) error {
	var known, below []string
	for _, sub := range c.Commands() {
		if sub.Hidden {
			continue
		}
		known = append(known, sub.Name())
		for _, one := range sub.Commands() {
			if one.Name() == name {
				below = append(below, sub.Name()+" "+name)
			}
		}
	}
	hint := fmt.Sprintf("see %s --help", c.CommandPath())
	if near := append(nearest(name, known), below...); len(near) > 0 {
		hint = "do you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("%w: there is no command %q; %s", errUsage, strings.TrimPrefix(c.CommandPath()+" "+name, c.Root().Name()+" "), hint)
}

// usageErrorf is an error that ends with the right call.
func usageErrorf(c *cobra.Command, format string, args ...any) error {
	text := fmt.Sprintf(format, args...) + "; usage: " + c.UseLine()
	if example := firstExample(c); example != "" {
		text += ", as in: " + example
	}
	return fmt.Errorf("%w: %s", errUsage, text)
}

func firstExample(c *cobra.Command) string {
	line, _, _ := strings.Cut(c.Example, "\n")
	return strings.TrimSpace(line)
}

// flagError says what is wrong with a flag, in the words of its type.
func flagError(c *cobra.Command, err error) error {
	// pflag has a type for each fault: its texts, which name parsers and types of Go, never reach
	// the user.
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name, short := unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames()
		if short != "" {
			return usageErrorf(c, "there is no flag -%s", name)
		}
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				known = append(known, f.Name)
			}
		})
		if near := nearest(name, known); len(near) > 0 {
			return usageErrorf(c, "there is no flag --%s; do you mean --%s?", name, strings.Join(near, " or --"))
		}
		return usageErrorf(c, "there is no flag --%s", name)
	}
	if want, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usageErrorf(c, "--%s needs a value: %s", want.GetFlag().Name, strings.ReplaceAll(want.GetFlag().Usage, "`", ""))
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		why := bad.Unwrap().Error()
		if bad.GetFlag().Value.Type() == "bool" {
			why = fmt.Sprintf("it takes no value; leave it out, or give --%s=false", bad.GetFlag().Name)
		}
		return fmt.Errorf("%w: --%s %q: %s", errUsage, bad.GetFlag().Name, bad.GetValue(), why)
	}
	if bad, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return usageErrorf(c, "%q is no flag", bad.GetSpecifiedFlag())
	}
	return usageErrorf(c, "%v", err)
}

// exclusiveFlags reports flags that exclude each other, as MarkFlagsMutuallyExclusive says. It
// runs before cobra's own check, whose words are a program's.
func exclusiveFlags(c *cobra.Command, _ []string) error {
	in := make(map[string]string) // group -> the flag of it that was given
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		for _, group := range f.Annotations["cobra_annotation_mutually_exclusive"] {
			if other := in[group]; other != "" && err == nil {
				err = usageErrorf(c, "--%s and --%s exclude each other", other, f.Name)
			}
			in[group] = f.Name
		}
	})
	return err
}
