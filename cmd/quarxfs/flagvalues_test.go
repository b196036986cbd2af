package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
)

// TestFlagValues gives each type of flag what it takes and what it does not, which is
// refused in words of ours.
func TestFlagValues(t *testing.T) {
	var s byteSize
	var rate byteSize
	var n int
	var f, share float64
	var d time.Duration
	var list []string
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	sizeVar(flags, sizeFlag{to: &s, least: 4 << 10, most: 1 << 20}, "size", "")
	rateVar(flags, &rate, "rate", "")
	numberVar(flags, &n, -1, 100, "number", "")
	numberVar(flags, &f, 0.5, most, "real", "")
	percentVar(flags, &n, "percent", "")
	shareVar(flags, &share, 0.95, "share", "")
	timeVar(flags, timeFlag{to: &d, least: time.Second, zero: "none"}, "time", "")
	listVar(flags, &list, "list", "", "")
	for _, c := range []struct {
		flag, value string
		want        string // of the flag afterwards; after "!", a part of the error
	}{
		{"size", "64KiB", "64 KiB"}, {"size", "65536", "64 KiB"}, {"size", "20", "!20 what?"}, {"size", "1KiB", "!from 4.0 KiB to 1.0 MiB"},
		{"size", "2MiB", "!from 4.0 KiB"}, {"size", "many", "!give a size such as"}, {"size", "-1", "!give a size"}, {"size", "0", "!give a size"},
		{"size", "", "!give a size"}, {"size", "99999999999999999999", "!too much"},
		{"rate", "20MiB", "20 MiB"}, {"rate", "0", "0"}, {"rate", "20", "!20 what?"}, {"rate", "5000000", "!5000000 what?"},
		{"number", "-1", "-1"}, {"number", "100", "100"}, {"number", "101", "!from -1 to 100"}, {"number", "1.5", "!whole number"}, {"number", "x", "!whole number"},
		{"real", "0.5", "0.5"}, {"real", "NaN", "!a number"}, {"real", "1e999", "!a number"}, {"real", "0", "!at least 0.5"},
		{"percent", "90", "90"}, {"percent", "85%", "85"}, {"percent", "0", "!from 1 to 100"}, {"percent", "%", "!from 1 to 100"},
		{"share", "0.5", "0.5"}, {"share", "50%", "0.5"}, {"share", "96%", "!from 0 to 0.95 or a percentage such as 50%"}, {"share", "NaN", "!percentage"}, {"share", "half", "!percentage"},
		{"time", "90s", "1m30s"}, {"time", "7d", "168h"}, {"time", "0", "0"}, {"time", "0s", "0"}, {"time", "5", "!5 what?"}, {"time", "soon", "!such as 30s"},
		{"time", "-1h", "!at least 1s"}, {"time", "10ms", "!at least 1s"}, {"time", "1e99d", "!such as 30s"},
		{"list", "a,b", "a,b"}, {"list", `c"`, `a,b,c"`},
	} {
		err := flags.Lookup(c.flag).Value.Set(c.value)
		part, bad := strings.CutPrefix(c.want, "!")
		switch got := flags.Lookup(c.flag).Value.String(); {
		case bad && (err == nil || !strings.Contains(err.Error(), part)):
			t.Errorf("--%s %q: %v, want %q", c.flag, c.value, err, part)
		case !bad && (err != nil || got != c.want):
			t.Errorf("--%s %q: %q, %v, want %q", c.flag, c.value, got, err, c.want)
		}
	}
	if m := machineMemory(); m < daemon.MinMemory || m == math.MaxInt64 {
		t.Errorf("this machine has %v", m)
	}
}
