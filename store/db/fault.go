package db

import "fmt"

// ErrUnreadable says that the disk did not give back a part of a table. It is ErrCorrupt.
var ErrUnreadable = fmt.Errorf("%w: the disk does not give it back", ErrCorrupt)

// catchFault, deferred, makes an error of a page fault that the disk did not
// answer: Badger maps its tables. The goroutine must have SetPanicOnFault.
// What Badger held while it read stays held, which keeps a file until the end.
func catchFault(err *error) {
	r := recover()
	if r == nil {
		return
	}
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("%w: no page at %#x of a mapped table", ErrUnreadable, fault.Addr())
}
