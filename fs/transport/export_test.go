package transport

// Spoil has the kernel refuse the entries of the processors of which spoils says so.
func (o *Options) Spoil(spoils func(cpu int) bool) { o.spoils = spoils }
