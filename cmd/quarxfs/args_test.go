package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls fn for each command, with the words that lead to it.
func everyCommand(c *cobra.Command, path []string, fn func(c *cobra.Command, path []string)) {
	fn(c, path)
	for _, sub := range c.Commands() {
		everyCommand(sub, append(path[:len(path):len(path)], sub.Name()), fn)
	}
}

// parsersText is what a user should not read.
var parsersText = regexp.MustCompile(`strconv|parse|invalid syntax|arg\(s\)|panic|pflag|cobra|goroutine|unknown shorthand|none of the others|%!`)

// TestWrongCalls calls every command wrongly in each way that there is: without
// arguments, with one too many, with a flag that is none and with a bad value of each flag.
func TestWrongCalls(t *testing.T) {
	t.Setenv(storeVariable, "")
	t.Chdir(t.TempDir())
	wrong := func(path []string, want string, args ...string) {
		t.Helper()
		args = append(path[:len(path):len(path)], args...)
		out, code := quarxfs(t, nil, args...)
		if code != exitCode(errUsage) || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d, %q, want %q", args, code, out, want)
		}
		if bad := parsersText.FindString(out); bad != "" || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("%q: %q: %q", args, out, bad)
		}
	}
	everyCommand(newRoot(), nil, func(c *cobra.Command, path []string) {
		wrong(path, "there is no flag --soup", "--soup")
		if c.HasSubCommands() {
			wrong(path, "there is no command", "soup")
			return
		}
		if c.RunE == nil {
			return // a topic of the help
		}
		all, most, many := words(c), []string(nil), false
		var missing []string
		for _, w := range all {
			most = append(most, w.name)
			many = many || w.many
			if !w.optional {
				missing = append(missing, w.name)
			}
		}
		if len(missing) > 0 {
			wrong(path, "missing; usage: quarxfs "+strings.Join(path, " "))
			for _, name := range missing {
				wrong(path, name)
			}
		}
		if !many {
			wrong(path, `"one-more" is one argument too many; usage: `, append(most, "one-more")...)
		}
		for i := range most {
			args := slices.Clone(most)
			args[i] = ""
			wrong(path, fmt.Sprintf("argument %d is empty", i+1), args...)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			name := "--" + f.Name
			if f.Value.Type() == "string" && !slices.Contains(mayBeEmpty, f.Name) {
				wrong(path, name, append(slices.Clone(most), name+"=")...)
			}
			switch f.Value.Type() {
			case "bool":
				wrong(path, name, name+"=soup")
			case "string", "list":
				wrong(path, name+" needs a value", append(most, name)...)
			default:
				for _, bad := range []string{"soup", "", "1e99x", "99999999999999999999999999"} {
					wrong(path, name, name+"="+bad)
				}
			}
		})
	})
}

// TestHelpIsComplete: whoever runs a command wrongly is shown an example.
func TestHelpIsComplete(t *testing.T) {
	everyCommand(newRoot(), []string{"quarxfs"}, func(c *cobra.Command, path []string) {
		if c.HasSubCommands() || c.Hidden || c.RunE == nil || len(words(c)) == 0 {
			return
		}
		if !strings.HasPrefix(firstExample(c), strings.Join(path, " ")) {
			t.Errorf("%s: its first example is %q", strings.Join(path, " "), firstExample(c))
		}
	})
}

// TestSuggestions: what is misspelt, or has another name in other programs, is proposed.
func TestSuggestions(t *testing.T) {
	t.Chdir(t.TempDir())
	for args, want := range map[string]string{
		"snaphot":             "do you mean snapshot?",
		"snapshto create":     "do you mean snapshot?",
		"snapshot creat":      "do you mean create?",
		"snapshot delete x":   "do you mean rm?",
		"snapshot ls":         "do you mean list?",
		"tier rm":             "do you mean remove?",
		"token delete":        "do you mean revoke?",
		"rollback monday":     "snapshot rollback",
		"unmount m":           "do you mean umount?",
		"verify":              "do you mean scrub or fsck?",
		"stat":                "do you mean stats?",
		"STATS":               "do you mean stats?",
		"soup":                "see quarxfs --help",
		"mount --int s m":     "do you mean --init?",
		"mount --memroy 1GiB": "do you mean --memory?",
		"stats --jsn":         "do you mean --json?",
		"snapshot rm --yes x": "there is no flag --yes; usage: quarxfs snapshot rm",
		"help snapshot diif":  "do you mean diff?",
	} {
		if out, code := quarxfs(t, nil, strings.Fields(args)...); code != 2 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %q, want %q", args, code, out, want)
		}
	}
}

// TestStoreMayBeLeftOut: an argument is STORE where it can be nothing else or is a store.
func TestStoreMayBeLeftOut(t *testing.T) {
	t.Setenv(storeVariable, "")
	t.Chdir(t.TempDir())
	for _, name := range []string{"files", "other"} {
		if out, code := quarxfs(t, nil, "init", name); code != 0 {
			t.Fatal(out)
		}
	}
	root := newRoot()
	arranged := func(line string) (string, error) {
		c, args, err := root.Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		args, err = arrange(c, args)
		return strings.Join(args, ","), err
	}
	type row struct{ line, want string } // the arguments; after "!", a part of the error
	check := func(rows []row) {
		t.Helper()
		for _, r := range rows {
			got, err := arranged(r.line)
			part, bad := strings.CutPrefix(r.want, "!")
			if bad && (err == nil || !strings.Contains(err.Error(), part)) || !bad && (err != nil || got != r.want) {
				t.Errorf("%s: %q, %v, want %q", r.line, got, err, r.want)
			}
		}
	}
	always := []row{
		{"stats", ""},
		{"stats files", "files"},
		{"snapshot create files", "files"},
		{"snapshot create files monday", "files,monday"},
		{"snapshot create monday files", "!do you mean quarxfs snapshot create files monday?"},
		{"snapshot restore a:b files c", "!do you mean quarxfs snapshot restore files a:b c?"},
		{"snapshot rm files", "!SNAPSHOT is missing"},
		{"snapshot rm files monday", "files,monday"},
		{"snapshot rm monday", ",monday"},
		{"graph path files a", "!TO is missing"},
		{"graph path a b", ",a,b"},
		{"tier drain cold", ",cold"},
		{"tier drain files", `!"cold" is missing`},
		{"tier add warm dir", `!"warm" stands where "cold" is wanted`},
		{"mount m files", "!do you mean quarxfs mount files m?"},
		{"mount files", "!MOUNTPOINT is missing"},
		{"put files -", "files,-"},
	}
	check(always)
	check([]row{ // there is no store to be found
		{"du nowhere", "nowhere"},
		{"snapshot create monday", "monday"},
	})
	t.Setenv(storeVariable, "other")
	check(always)
	check([]row{
		{"snapshot create monday", ",monday"},
		{"snapshot create ./monday", "./monday"},
		{"snapshot diff monday tuesday", ",monday,tuesday"},
		{"snapshot rm monday tuesday", ",monday,tuesday"},
		{"du dir", ",dir"},
		{"put file", ",file"},
		{"sync push nas monday", ",nas,monday"},
		{"tier demote a b/c", ",a,b/c"},
	})
}
