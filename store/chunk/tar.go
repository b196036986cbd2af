package chunk

// A tar archive is headers with the members' bytes behind them, all at multiples of 512 bytes.
// ustar, pax and GNU tar mark a header by "ustar" and a checksum. FastCDCTar gives headers blocks
// of their own:
//
//	header | member's bytes, cut by FastCDC | padding, header | member's bytes | ...
//
// So a member has the blocks that the same file has outside of the archive, and a header that has
// changed costs a block of some hundred bytes. Nothing but cuts depends on what a header says: an
// archive that is damaged, or a file that only looks like one, is bytes that are cut elsewhere.

const (
	sector = 512
	// tarAhead is how far behind a cut a header may stand that moves it: there is padding of less
	// than a sector before it, and it is one itself.
	tarAhead = 2 * sector
	// minTar is the least Min with archives: padding and a header are no longer.
	minTar = 2 * sector
)

// Fields of a header.
const (
	tarSize     = 124 // 12 octal digits
	tarChecksum = 148 // 8 octal digits
	tarType     = 156 // a letter
	tarMagic    = 257 // "ustar"
)

// cutTar is Cut with archives.
func (c *Chunker) cutTar(off int64, data []byte) (n int, final bool) {
	pad := int(-off & (sector - 1)) // to the next place for a header
	if pad+sector <= len(data) && isHeader(data[pad:]) && IsZero(data[:pad]) {
		return c.cutHeaders(pad, data)
	}
	// Up to Min first: FastCDC would go through the members behind a short one each time.
	end, known := memberEnd(data, pad, c.config.Min)
	if known && end > 0 {
		return end, true
	}
	n, final = c.cutFastCDC(data)
	if known {
		end, known = memberEnd(data, pad+(c.config.Min-pad+sector-1)&^(sector-1), n+sector)
	}
	if known && end > 0 && end < n {
		return end, true
	}
	return n, final && known
}

// memberEnd looks for a header at from, a sector behind it, and so on before to. It returns where
// the bytes before the header's padding end, or 0 for none; known is false if data ended first.
func memberEnd(data []byte, from, to int) (end int, known bool) {
	for at := from; at < to; at += sector {
		if at+sector > len(data) {
			return 0, false
		}
		if isHeader(data[at:]) {
			end = at
			for end > max(0, at-sector+1) && data[end-1] == 0 {
				end--
			}
			return end, true
		}
	}
	return 0, true
}

// cutHeaders is for a block that begins with padding up to at and a header there. It takes the
// headers that follow without bytes of a member between them: of directories, links and empty
// files, and those by which pax and GNU tar say more of the next. But it is no longer than Min.
func (c *Chunker) cutHeaders(at int, data []byte) (n int, final bool) {
	for {
		n = at + sector
		size, ok := octal(data[at+tarSize : at+tarSize+12])
		if !ok || size > int64(c.config.Min) {
			return n, true
		}
		switch data[at+tarType] {
		case 'x', 'g', 'L', 'K': // these bytes are of the archive, not of a file
			at = n + (int(size)+sector-1)&^(sector-1)
		default:
			if size > 0 {
				return n, true
			}
			at = n
		}
		switch {
		case at+sector > c.config.Min:
			return n, true
		case at+sector > len(data):
			return n, false
		case !isHeader(data[at:]):
			return n, true
		}
	}
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
