package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/store/handle"
)

// FormatVersion is the store format that this code writes. Every older one
// stays readable.
const FormatVersion = 1

// idScheme names how block IDs are made: BLAKE3-256 of the plain bytes.
const idScheme = "blake3-256"

// A Config is what is fixed for a store's life when it is made.
type Config struct {
	Chunker     chunk.Config `json:"chunker"`
	Compression string       `json:"compression"` // "s2" or "none", for new blocks
	SegmentSize int64        `json:"segment_size"`
	VolumeID    string       `json:"volume_id"` // 32 hex digits
	// Compressed: the tables of the database are compressed, which those of older stores are not.
	// In the superblock it is a feature, not a field.
	Compressed bool `json:"-"`
	// Mirrored: the store is a copy of a cluster's volume, and each commit goes to the others.
	// Likewise a feature.
	Mirrored bool `json:"-"`
}

// DefaultConfig returns the settings of a store made without any flag: keyed
// content-defined blocks of 64 KiB on average, S2 compression, 64 MiB segments.
func DefaultConfig() Config {
	var id [16]byte
	rand.Read(id[:])
	return Config{
		Chunker:     chunk.Default(),
		Compression: "s2",
		SegmentSize: 64 << 20,
		Compressed:  true,
		VolumeID:    hex.EncodeToString(id[:]),
	}
}

// FitSegmentSize returns the segment size for a new store at dir, which need not
// exist: 64 MiB, and on a small disk 1/64 of it, so that there is room for the
// copy that it takes to get one out of use.
func FitSegmentSize(dir string) (int64, error) {
	total, err := diskSize(dir)
	for errors.Is(err, os.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		total, err = diskSize(dir)
	}
	size := int64(64 << 20)
	for size > 1<<20 && size > total/64 {
		size /= 2
	}
	return size, err
}

// volume is VolumeID as bytes.
func (c Config) volume() (id [16]byte) {
	b, _ := hex.DecodeString(c.VolumeID) // Validate has seen that it decodes
	copy(id[:], b)
	return id
}

// Validate reports the first setting that no store can have.
func (c Config) Validate() error {
	if _, err := chunk.New(c.Chunker); err != nil {
		return fmt.Errorf("%w: chunker: %v", ErrConfig, err)
	}
	if c.Compression != "s2" && c.Compression != "none" {
		return fmt.Errorf("%w: compression %q: choose s2 or none", ErrConfig, c.Compression)
	}
	if c.SegmentSize < 1<<20 || c.SegmentSize > 1<<30 {
		return fmt.Errorf("%w: segment size %d: choose 1 MiB to 1 GiB", ErrConfig, c.SegmentSize)
	}
	if id, err := hex.DecodeString(c.VolumeID); err != nil || len(id) != 16 {
		return fmt.Errorf("%w: volume ID %q is not 32 hex digits", ErrConfig, c.VolumeID)
	}
	return nil
}

// superblock is the content of quarxfs.json.
type superblock struct {
	config.Head
	Required []string `json:"required_features"`
	IDScheme string   `json:"id_scheme"`
	Config
	config.Sum
}

var superblockFile = config.File{Name: "quarxfs.json", Magic: "quarxfs store", Version: FormatVersion, Strange: ErrNotStore, Next: errs.NextRestore}

// featureLog: commits are in a log in front of the database. A program that does not
// know it would open the database without the last of them. Stores that were made
// before have the log and not the feature.
const featureLog = "commit-log"

// featureTar: files are cut by chunk.FastCDCTar. A program that does not know that way would take
// its name for damage.
const featureTar = "chunker-fastcdc-v2-tar"

// featureCluster: Config.Mirrored. A program that does not know it would make commits that the
// other copies lack, and the register would go on calling these in sync.
const featureCluster = "cluster"

// featureTables: Config.Compressed. A program that does not know it would take the tables for
// damaged.
const featureTables = "tables-snappy"

// knownFeatures lists the required features that this code understands.
var knownFeatures = []string{featureLog, featureTar, featureTables, featureCluster}

func newSuperblock(c Config) *superblock {
	required := []string{featureLog}
	if c.Chunker.Name == chunk.FastCDCTar {
		required = append(required, featureTar)
	}
	if c.Compressed {
		required = append(required, featureTables)
	}
	if c.Mirrored {
		required = append(required, featureCluster)
	}
	return &superblock{Required: required, IDScheme: idScheme, Config: c}
}

// config returns the store's settings. The errors are ErrNewer and ErrDamaged.
func (sb *superblock) config() (Config, error) {
	for _, f := range sb.Required {
		if !slices.Contains(knownFeatures, f) {
			return Config{}, fmt.Errorf("%w: it needs the feature %q", ErrNewer, f)
		}
	}
	if sb.IDScheme != idScheme {
		return Config{}, fmt.Errorf("%w: it names blocks by %q", ErrNewer, sb.IDScheme)
	}
	if err := sb.Config.Validate(); err != nil {
		return Config{}, superblockFile.Damaged("has settings that no store can have (%v)", err)
	}
	c := sb.Config
	c.Compressed = slices.Contains(sb.Required, featureTables)
	c.Mirrored = slices.Contains(sb.Required, featureCluster)
	return c, nil
}

// ReadConfig reads the superblock of the store at dir without opening the
// store. The errors are ErrNotStore, ErrNewer and ErrDamaged.
func ReadConfig(dir string) (Config, error) {
	d, err := holdDir(dir)
	if err != nil {
		return Config{}, err
	}
	c, err := readConfig(d)
	return c, errors.Join(handle.ShownError(err), d.Close())
}

func holdDir(dir string) (*handle.Dir, error) {
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%s: %w", dir, ErrNotStore)
	}
	return d, err
}

// writable reports whether a store's directory, and the lock in it, can be written to:
// ErrUnwritable, with what the system says.
func writable(d *handle.Dir) error {
	for _, name := range []string{"", lockName} {
		err := unix.Faccessat(unix.AT_FDCWD, d.Join(name), unix.W_OK, unix.AT_EACCESS)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%s: %w: %w", d.Path(), ErrUnwritable, err)
		}
	}
	return nil
}

func readConfig(dir *handle.Dir) (c Config, err error) {
	var sb superblock
	err = superblockFile.Read(dir.Join(), &sb)
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNotStore
	}
	if errors.Is(err, ErrNotStore) && isUsed(dir.Join()) {
		err = superblockFile.Damaged("is missing, or is not the store's")
	}
	if err == nil {
		c, err = sb.config()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", dir.Path(), err)
	}
	return c, err
}

// isUsed reports whether there is what only a store that was opened has.
func isUsed(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, dbDir, "MANIFEST"))
	hot, herr := os.Lstat(filepath.Join(dir, hotDir))
	return err == nil && herr == nil && hot.IsDir()
}

// Init makes a store in dir, which must be missing or empty. The superblock is
// written last, so a directory is a store only when it is whole.
func Init(dir string, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if _, err := ReadConfig(dir); err == nil {
		return fmt.Errorf("%s: %w", dir, ErrExists)
	}
	_, none := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d, err := handle.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(handle.ShownError(fill(d, c)), d.Close()); err != nil {
		return err
	}
	// The directory was there, and so its name is durable.
	if none == nil {
		return nil
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

// begun reports whether an Init that was killed may have left an entry: the superblock comes last,
// so there is nothing in it that anybody could miss.
func begun(dir string, e os.DirEntry) bool {
	path := filepath.Join(dir, e.Name())
	switch e.Name() {
	case superblockFile.Name + ".tmp":
		return e.Type().IsRegular()
	case dbDir, hotDir:
		inside, err := os.ReadDir(path)
		return e.IsDir() && err == nil && len(inside) == 0
	}
	return false
}

// fill makes a store in a directory.
func fill(dir *handle.Dir, c Config) error {
	names, err := os.ReadDir(dir.Join())
	if err != nil {
		return err
	}
	for _, e := range names {
		if !begun(dir.Join(), e) {
			return fmt.Errorf("%s: %w", dir.Path(), ErrNotEmpty)
		}
	}
	if err := os.Chmod(dir.Join(), 0o700); err != nil {
		return err
	}
	for _, sub := range []string{dbDir, hotDir} {
		if err := os.Mkdir(dir.Join(sub), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	// Last: without it the rest is no store, and the next Init takes it over.
	return superblockFile.Write(dir.Join(), newSuperblock(c))
}
