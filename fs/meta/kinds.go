package meta

// Prefix starts the keys of all rows of a kind.
func Prefix(k Kind) []byte { return []byte{byte(k)} }
