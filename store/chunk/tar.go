package chunk

import "math"

// A tar archive is headers with the members' bytes behind them, all at multiples of 512 bytes.
// ustar, pax and GNU tar mark a header by "ustar" and a checksum. FastCDCTar gives headers blocks
// of their own:
//
//	header | member's bytes, cut by FastCDC | padding, header | member's bytes | ...
//
// Less than a 64th of Avg between two headers stays with them. So whatever the bytes, a block of
// headers has others about it that are at least so long: that bounds how many blocks, and
// extents, a file can have.
//
// A longer member has the blocks that the same file has outside of the archive, and a header
// that has changed costs a block of some hundred bytes. Nothing but cuts depends on what a
// header says: an archive that is damaged, or a file that only looks like one, is bytes that are
// cut elsewhere.

const (
	sector = 512
	// tarAhead is how far behind a cut a header may stand that moves it: there is padding of less
	// than a sector before it, and it is one itself.
	tarAhead = 2 * sector
	// minTar is the least Min with archives: padding and a header are no longer.
	minTar = 2 * sector
	// memberShare is how much smaller than Avg a member is that is no block of its own.
	memberShare = 64
)

// Fields of a header.
const (
	tarSize     = 124 // 12 octal digits
	tarChecksum = 148 // 8 octal digits
	tarType     = 156 // a letter
	tarMagic    = 257 // "ustar"
)

// padded is how much room n bytes take in an archive.
func padded(n int) int { return (n + sector - 1) &^ (sector - 1) }

// least is how long what is before a header is at least to be a block of its own.
func (c *Chunker) least() int { return c.config.Avg / memberShare }

// cutTar is Cut with archives.
func (c *Chunker) cutTar(off int64, data []byte) (n int, final bool) {
	from := int(-off & (sector - 1)) // the next place for a header
	// Up to Min first: FastCDC would go through the members behind a short one each time.
	at, end, known := findHeader(data, 0, from, c.config.Min)
	if at >= 0 && end < c.least() {
		return c.cutHeaders(at, data)
	}
	if at >= 0 {
		return end, true
	}
	n, final = c.cutFastCDC(data)
	if known {
		at, end, known = findHeader(data, 0, from+padded(c.config.Min-from), n+sector)
	}
	if at >= 0 && end < n && end >= c.least() {
		return end, true
	}
	return n, final && known
}

// findHeader looks for a header at from, a sector behind it, and so on before to. It returns
// where it is, or -1, and where the bytes before it end without their padding, but not before
// start. known is false if data ended first.
func findHeader(data []byte, start, from, to int) (at, end int, known bool) {
	for at = from; at < to; at += sector {
		if at+sector > len(data) {
			return -1, 0, false
		}
		if isHeader(data[at:]) {
			end = at
			for end > max(start, at-sector+1) && data[end-1] == 0 {
				end--
			}
			return at, end, true
		}
	}
	return -1, 0, true
}

// cutHeaders is for a block with a header at at and nothing before it that is a block of its
// own. It takes the headers that follow with no such thing between them: of directories, links,
// empty and short files, and those by which pax and GNU tar say more of the next. It ends with
// the last that begins before Min.
func (c *Chunker) cutHeaders(at int, data []byte) (n int, final bool) {
	for {
		n = at + sector
		if more := padded(moreOf(data[at:n])); n+more <= c.config.Min {
			n += more
		}
		next, end, known := findHeader(data, n, n, n+c.least()+sector)
		switch {
		case !known:
			return min(n, len(data)), false
		case next < 0 || end-n >= c.least():
			return n, true
		case next+sector > c.config.Min:
			return min(end, c.config.Max), true
		}
		at = next
	}
}

// moreOf returns how many bytes behind a header say more of a member, and are none of a file.
func moreOf(header []byte) int {
	switch header[tarType] {
	case 'x', 'g', 'L', 'K':
		if size, ok := octal(header[tarSize : tarSize+12]); ok && size < math.MaxInt32 {
			return int(size)
		}
	}
	return 0
}

// isHeader reports whether the sector at the beginning of p is a header.
func isHeader(p []byte) bool {
	p = p[:sector]
	if string(p[tarMagic:tarMagic+5]) != "ustar" {
		return false
	}
	want, ok := octal(p[tarChecksum : tarChecksum+8])
	sum := int64(8 * ' ') // which the checksum itself counts as
	for _, b := range p {
		sum += int64(b)
	}
	for _, b := range p[tarChecksum : tarChecksum+8] {
		sum -= int64(b)
	}
	return ok && sum == want
}

// octal reads digits with spaces before them and a space, a zero byte or nothing behind.
func octal(p []byte) (n int64, ok bool) {
	for len(p) > 0 && p[0] == ' ' {
		p = p[1:]
	}
	for i, b := range p {
		switch {
		case '0' <= b && b <= '7':
			n = n<<3 | int64(b-'0')
		case b == ' ' || b == 0:
			return n, i > 0
		default:
			return 0, false
		}
	}
	return n, len(p) > 0
}
