package main

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/simulate"
)

// agree SIMULATION STATS SHARE checks that the first result of a simulation and
// the blocks of a store differ by no more than SHARE.
func cmdAgree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: agree SIMULATION STATS SHARE")
	}
	var r simulate.Report
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	var s remote.Stats
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &s))
	share, err := strconv.ParseFloat(args[2], 64)
	ts.Check(err)
	got, want := r.Results[0], s.Blocks["data"]
	for _, v := range []struct {
		what      string
		got, want int64
	}{{"blocks", got.Blocks, want.Count}, {"unique bytes", got.Unique, want.Raw}, {"stored bytes", got.Stored, want.Stored}} {
		if math.Abs(float64(v.got-v.want)) > share*float64(v.want) || v.want == 0 {
			ts.Fatalf("%d %s, and the store has %d", v.got, v.what, v.want)
		}
	}
}
