package chunk

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// Names of the ways to cut. They are part of a store's format.
const (
	FastCDC    = "fastcdc-v1.0.0"
	FastCDCTar = "fastcdc-v2-tar" // as FastCDC, and at the members of tar archives
	Fixed      = "fixed"
)

// Limits of a Config. A block has to fit one segment record.
const (
	MinFastCDC = 64
	MaxFastCDC = 16 << 20
	MinFixed   = 4 << 10
	MaxFixed   = 4 << 20
	KeySize    = 32
)

// ErrConfig is what every error of New wraps.
var ErrConfig = errors.New("chunker config")

// A Config says how to cut. It is fixed when a store is made: another Config
// cuts the same bytes elsewhere, and nothing would deduplicate any more.
type Config struct {
	Name string `json:"name"`          // FastCDCTar, FastCDC or Fixed
	Min  int    `json:"min"`           // bytes; for Fixed the same as Avg
	Avg  int    `json:"avg"`           // bytes, a power of two
	Max  int    `json:"max"`           // bytes; for Fixed the same as Avg
	Key  []byte `json:"key,omitempty"` // empty or KeySize bytes; keeps block lengths from telling which known files a store holds
}

// Default returns the Config of a new store, with a fresh random key.
func Default() Config {
	key := make([]byte, KeySize)
	rand.Read(key) // crypto/rand.Read never fails: it ends the program instead
	return Config{Name: FastCDCTar, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10, Key: key}
}

func (c Config) validate() error {
	switch c.Name {
	case FastCDC, FastCDCTar:
		return c.validateFastCDC()
	case Fixed:
		if c.Avg < MinFixed || c.Avg > MaxFixed || c.Avg&(c.Avg-1) != 0 {
			return fmt.Errorf("%w: fixed size %d is not a power of two from %d to %d", ErrConfig, c.Avg, MinFixed, MaxFixed)
		}
		return nil
	}
	return fmt.Errorf("%w: unknown name %q, want %q, %q or %q", ErrConfig, c.Name, FastCDCTar, FastCDC, Fixed)
}

func (c Config) validateFastCDC() error {
	least := MinFastCDC
	if c.Name == FastCDCTar {
		least = minTar
	}
	switch {
	case c.Min < least:
		return fmt.Errorf("%w: min %d is under %d", ErrConfig, c.Min, least)
	case c.Max > MaxFastCDC:
		return fmt.Errorf("%w: max %d is over %d", ErrConfig, c.Max, MaxFastCDC)
	case c.Min >= c.Avg || c.Avg >= c.Max:
		return fmt.Errorf("%w: want min < avg < max, got %d, %d, %d", ErrConfig, c.Min, c.Avg, c.Max)
	case c.Avg&(c.Avg-1) != 0:
		return fmt.Errorf("%w: avg %d is not a power of two", ErrConfig, c.Avg)
	case len(c.Key) != 0 && len(c.Key) != KeySize:
		return fmt.Errorf("%w: key has %d bytes, want none or %d", ErrConfig, len(c.Key), KeySize)
	}
	return nil
}

// A Chunker cuts byte streams into blocks. It never changes once made, so any
// number of goroutines may share it.
type Chunker struct {
	config       Config
	maskS, maskL uint64 // before and from Avg on; more bits set = cuts are rarer
	gear         [256]uint64
}

// New returns a Chunker. The error wraps ErrConfig and says what is wrong.
func New(config Config) (*Chunker, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.Name == Fixed {
		return &Chunker{config: Config{Name: Fixed, Min: config.Avg, Avg: config.Avg, Max: config.Avg}}, nil
	}
	config.Key = append([]byte(nil), config.Key...)
	c := &Chunker{config: config, gear: gearTable(config.Key)}
	c.maskS, c.maskL = masks(config)
	return c, nil
}

// Config returns what New got; for Fixed with Min and Max set to Avg and no
// key. The caller must not change the key.
func (c *Chunker) Config() Config { return c.config }

// Min returns the least length of a block, except for the last of a stream.
// With Fixed a block that starts off the grid may be shorter as well, with
// FastCDCTar one that is a header or ends before one.
func (c *Chunker) Min() int { return c.config.Min }

// Avg returns the length that blocks of random data tend to.
func (c *Chunker) Avg() int { return c.config.Avg }

// Max returns the greatest length of a block.
func (c *Chunker) Max() int { return c.config.Max }

// Window returns how many bytes Cut may have to see for a cut that is final.
func (c *Chunker) Window() int {
	if c.config.Name == FastCDCTar {
		return c.config.Max + tarAhead + c.least()
	}
	return c.config.Max
}

// Cut returns the length n of the block that starts at data[0], which is byte
// off of its file; 0 only where data is empty. One of two things holds:
//
//  1. final: the block ends there whatever bytes follow data.
//  2. Not final: more bytes could move the cut. At the end of a stream the block
//     ends there, and the next Cut is asked of what is left.
//
// Cut does not allocate and never looks past the first Window bytes. With so
// many the cut is final.
func (c *Chunker) Cut(off int64, data []byte) (n int, final bool) {
	switch c.config.Name {
	case Fixed:
		n = c.config.Avg - int(off&int64(c.config.Avg-1))
		if len(data) < n {
			return len(data), false
		}
		return n, true
	case FastCDCTar:
		return c.cutTar(off, data)
	}
	return c.cutFastCDC(data)
}
