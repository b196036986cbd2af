package sim

import (
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// Rules are what nodes decide by: those of package mirror, and the order of work that whoever
// carries them out must keep. A mutation changes one of them, and the explorer must notice.
type Rules struct {
	Take        func(c mirror.Copy, frame mirror.Epoch, before, commit mirror.Position) mirror.Verdict
	TakeSeed    func(c mirror.Copy, frame mirror.Epoch, log mirror.Log) mirror.Verdict
	Promote     func(mirror.Copy, mirror.Record, mirror.Vow, time.Duration) (mirror.Copy, mirror.Record, mirror.Reason)
	Begin       func(mirror.Copy, mirror.Record) (mirror.Writer, bool)
	Count       func(mirror.Writer, mirror.Member) (mirror.Writer, bool)
	Join        func(mirror.Writer, mirror.Member) (mirror.Record, bool)
	Welcome     func(mirror.Writer, mirror.Member, uint64, mirror.Log) (mirror.Writer, mirror.Greeting)
	Answered    func(mirror.Writer, mirror.Member, uint64, mirror.Epoch, mirror.Position) mirror.Writer
	Learn       func(mirror.Writer, mirror.Record) mirror.Writer
	MayServe    func(w mirror.Writer, now time.Duration) bool
	MayDestroy  func(mirror.Writer, mirror.Index) bool
	SegmentBase func(mirror.Epoch) uint64
	Begun       func(now time.Duration) mirror.Vow

	Order
}

// An Order says where the order of work is not as it has to be: no function decides by these rules.
type Order struct {
	Keep         bool // not a rule: messages are kept that cannot matter as long as all rules are
	SendEarly    bool // the writer sends what it has not synced
	AnswerEarly  bool // a copy answers for what it has not synced
	RecordsFirst bool // a copy writes a commit's record before it has synced the segments
	LeaveAlone   bool // the writer stops counting a member by itself
	LeaveUnnamed bool // it does so with one that it does not know to be named
	SwapAnyway   bool // the register is changed though it is not as it was read
	GrantLate    bool // a vow counts from when the answer came
	AckOlder     bool // the writer acknowledges before it has made a commit itself
	PromiseLate  bool // a copy promises its own epoch when it begins to write
}

// Product are the rules as they are.
func Product() Rules {
	return Rules{
		Take: mirror.Copy.Take, TakeSeed: mirror.Copy.TakeSeed, Promote: mirror.Promote, Begin: mirror.Begin,
		Count: mirror.Writer.Count, Join: mirror.Writer.Join, Welcome: mirror.Writer.Welcome, Answered: mirror.Writer.Answered, Learn: mirror.Writer.Learn,
		MayServe: mirror.Writer.MayServe, MayDestroy: mirror.Writer.MayDestroy,
		SegmentBase: mirror.SegmentBase, Begun: mirror.Begun,
	}
}
