package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// The values of flags. Each type's Set says what may be given, in words that stand
// behind the flag's name; nothing of what a parser says reaches the user.

// A byteSize is an amount of bytes, such as 64KiB.
type byteSize int64

func (s byteSize) String() string {
	if s == 0 {
		return "0"
	}
	return humanize.IBytes(uint64(s))
}

// A sizeFlag is a flag of bytes from least to most. A number without a unit counts
// as bytes where that can be meant: not below least, and never in a rate.
type sizeFlag struct {
	to          *byteSize
	least, most byteSize
	zero        string // what 0 means, if it may be given although it is below least
	rate        bool
	example     string
}

// sizeVar adds a flag of bytes; its value so far is the default.
func sizeVar(f *pflag.FlagSet, v sizeFlag, name, usage string) {
	v.example, v.most = cmp.Or(v.example, "64KiB"), cmp.Or(v.most, math.MaxInt64)
	f.Var(&v, name, usage)
}

// rateVar adds a flag of bytes a second; 0 is no limit.
func rateVar(f *pflag.FlagSet, to *byteSize, name, usage string) {
	sizeVar(f, sizeFlag{to: to, least: 1, zero: "no limit", rate: true, example: "20MiB"}, name, usage)
}

// memoryVar adds a flag of memory, of which there is no more than the machine has.
func memoryVar(f *pflag.FlagSet, to *byteSize, least byteSize, name, usage string) {
	sizeVar(f, sizeFlag{to: to, least: least, most: max(least, machineMemory()), example: "512MiB"}, name, usage)
}

func (v *sizeFlag) String() string {
	if v.to == nil { // pflag asks a zero value
		return "0"
	}
	return v.to.String()
}

func (v *sizeFlag) Type() string { return "size" }

func (v *sizeFlag) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	plain := strings.TrimLeft(text, "0123456789") == "" && text != ""
	switch {
	case err != nil && plain, n > math.MaxInt64:
		return fmt.Errorf("that is too much; give %s", v.allowed())
	case err != nil:
		return fmt.Errorf("give %s", v.allowed())
	case plain && n == 0 && v.zero != "":
	case plain && n > 0 && (v.rate || byteSize(n) < v.least):
		return fmt.Errorf("%s what? Give a size with a unit, such as %s", text, v.example)
	case byteSize(n) < v.least || byteSize(n) > v.most:
		return fmt.Errorf("give %s", v.allowed())
	}
	*v.to = byteSize(n)
	return nil
}

func (v *sizeFlag) allowed() string {
	return "a size such as " + v.example + inBounds(v.least, v.most, v.zero, byteSize.String)
}

// inBounds says which values a flag takes, and what zero means.
func inBounds[T ~int64](least, most T, zero string, show func(T) string) (text string) {
	switch {
	case most != math.MaxInt64:
		text = fmt.Sprintf(", from %s to %s", show(least), show(most))
	case least > 1:
		text = ", at least " + show(least)
	}
	if zero != "" {
		text += "; 0: " + zero
	}
	return text
}

// machineMemory is the most that a flag of memory takes.
func machineMemory() byteSize {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return math.MaxInt64
	}
	return byteSize(uint64(info.Totalram) * uint64(info.Unit))
}

// A number is what flags of numbers have.
type number interface{ ~int | ~int64 | ~float64 }

// A numberFlag is a flag of a number from least to most.
type numberFlag[T number] struct {
	to          *T
	least, most T
	percent     bool // 50% may be given for 50
}

// numberVar adds a flag of a number; its value so far is the default.
func numberVar[T number](f *pflag.FlagSet, to *T, least, most T, name, usage string) {
	f.Var(&numberFlag[T]{to: to, least: least, most: most}, name, usage)
}

// percentVar adds a flag of whole per cents.
func percentVar(f *pflag.FlagSet, to *int, name, usage string) {
	f.Var(&numberFlag[int]{to: to, least: 1, most: 100, percent: true}, name, usage)
}

// most is the largest number of a flag that has no other bound.
const most = math.MaxInt32

func (v *numberFlag[T]) String() string {
	if v.to == nil {
		return "0"
	}
	return fmt.Sprint(*v.to)
}

func (v *numberFlag[T]) Type() string { return "number" }

func (v *numberFlag[T]) Set(text string) error {
	digits := text
	if v.percent {
		digits = strings.TrimSuffix(text, "%")
	}
	n, err := parseNumber[T](digits)
	if err != nil || !(n >= v.least && n <= v.most) { // not a NaN either
		return errors.New("give " + v.allowed())
	}
	*v.to = n
	return nil
}

func parseNumber[T number](text string) (T, error) {
	if whole := T(1) / 2; whole == 0 {
		n, err := strconv.ParseInt(text, 10, 64)
		return T(n), err
	}
	n, err := strconv.ParseFloat(text, 64)
	return T(n), err
}

func (v *numberFlag[T]) allowed() string {
	what := "a whole number"
	if T(1)/2 != 0 {
		what = "a number"
	}
	if v.percent {
		return fmt.Sprintf("%s of per cent, from %v to %v", what, v.least, v.most)
	}
	if float64(v.most) >= most {
		return fmt.Sprintf("%s, at least %v", what, v.least)
	}
	return fmt.Sprintf("%s from %v to %v", what, v.least, v.most)
}

// A shareFlag is a flag of a part of a whole: 0.5 or 50%.
type shareFlag struct {
	to   *float64
	most float64
}

// shareVar adds a flag of a share up to most; its value so far is the default.
func shareVar(f *pflag.FlagSet, to *float64, most float64, name, usage string) {
	f.Var(&shareFlag{to, most}, name, usage)
}

func (v *shareFlag) String() string {
	if v.to == nil {
		return "0"
	}
	return fmt.Sprint(*v.to)
}

func (v *shareFlag) Type() string { return "share" }

func (v *shareFlag) Set(text string) error {
	digits, isPercent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if isPercent {
		n /= 100
	}
	if err != nil || !(n >= 0 && n <= v.most) {
		return fmt.Errorf("give a number from 0 to %v or a percentage such as 50%%", v.most)
	}
	*v.to = n
	return nil
}

// A timeFlag is a flag of a length of time from least to most.
type timeFlag struct {
	to          *time.Duration
	least, most time.Duration
	zero        string // what 0 means, if it may be given although it is below least
}

// timeVar adds a flag of a length of time; its value so far is the default.
func timeVar(f *pflag.FlagSet, v timeFlag, name, usage string) {
	v.most = cmp.Or(v.most, math.MaxInt64)
	f.Var(&v, name, usage)
}

func (v *timeFlag) String() string {
	if v.to == nil || *v.to == 0 {
		return "0"
	}
	return inUnits(*v.to)
}

func (v *timeFlag) Type() string { return "duration" }

func (v *timeFlag) Set(text string) error {
	d, err := parseTime(text)
	bare := strings.Trim(text, "0123456789.") == "" && text != ""
	switch {
	case d == 0 && err == nil && v.zero != "":
	case err != nil && bare:
		return fmt.Errorf("%s what? Give a time with a unit, such as 30s, 10m, 1h or 7d", text)
	case err != nil || d < v.least || d > v.most:
		return errors.New("give " + v.allowed())
	}
	*v.to = d
	return nil
}

// inUnits shows a time as people write it, such as 1h and not 1h0m0s. parseTime reads it.
func inUnits(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-len("0s")]
		}
	}
	return text
}

// parseTime understands days as well as what Go does.
func parseTime(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		const longest = float64(math.MaxInt64 / (24 * time.Hour))
		if err != nil || !(n >= -longest && n <= longest) {
			return 0, errors.New("not a number of days")
		}
		return time.Duration(n * float64(24*time.Hour)), nil
	}
	return time.ParseDuration(text)
}

func (v *timeFlag) allowed() string {
	return "a time such as 30s, 10m, 1h or 7d" + inBounds(v.least, v.most, v.zero, inUnits)
}

// A choiceFlag is a flag of one of a few words.
type choiceFlag struct {
	to *string
	of []string
}

// choiceVar adds a flag of one of a few words, which its help names; its value so far is
// the default.
func choiceVar(f *pflag.FlagSet, to *string, of []string, name, usage string) {
	f.Var(&choiceFlag{to, of}, name, usage+": "+either(of))
}

// either names the words of which one is to be chosen.
func either(of []string) string {
	last := len(of) - 1
	return strings.Join(of[:last], ", ") + " or " + of[last]
}

func (v *choiceFlag) String() string {
	if v.to == nil {
		return ""
	}
	return *v.to
}

func (v *choiceFlag) Type() string { return "choice" }

func (v *choiceFlag) choices() []string { return v.of }

func (v *choiceFlag) Set(text string) error {
	if !slices.Contains(v.of, text) {
		return errors.New("choose " + either(v.of))
	}
	*v.to = text
	return nil
}

// A listFlag is a flag of words between commas, which may be given several times. The
// first takes the place of the default.
type listFlag struct {
	to    *[]string
	of    []string
	given bool
}

// listVar adds a flag of words; its value so far is the default.
// Words of others than of, if that is given, are refused.
func listVar(f *pflag.FlagSet, to *[]string, name, short, usage string, of ...string) {
	f.VarP(&listFlag{to: to, of: of}, name, short, usage)
}

func (v *listFlag) String() string {
	if v.to == nil {
		return ""
	}
	return strings.Join(*v.to, ",")
}

func (v *listFlag) Type() string { return "list" }

func (v *listFlag) choices() []string { return v.of }

func (v *listFlag) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if len(v.of) > 0 && text != "" && !slices.Contains(v.of, one) {
			return fmt.Errorf("choose %s, with commas between", either(v.of))
		}
	}
	if !v.given {
		*v.to, v.given = nil, true
	}
	if text != "" {
		*v.to = append(*v.to, strings.Split(text, ",")...)
	}
	return nil
}
