package snapread

// Memory returns how many bytes of blocks are kept in memory, and how many may be.
func (c *BlockCache) Memory() (used, limit int64) {
	c.ram.CleanUp()
	return int64(c.ram.WeightedSize()), int64(c.ram.GetMaximum())
}
