// Package db keeps the rows of a store: an ordered map of byte strings in
// Badger, with the changes since the last commit held in memory above it.
//
// A row is changed in the active overlay, frozen by a commit, written:
//
//	Set, Delete, Apply -> active --[Freeze]--> frozen --[Write]--> Badger
//	                                  ^            |
//	                                  +--[failed]--+
//
// Readers look at the three in that order, so they always see the newest
// change, durable or not. Write makes a frozen overlay durable as a whole or
// not at all, whatever its size.
//
// Badger runs in managed mode: the package hands out the timestamps. An
// ordinary Badger transaction waits, when it begins, for all commits under way,
// and so every reader would wait for the disk.
//
// Locks, outermost first:
//
//	DB.writing      one Freeze or Write at a time; held over I/O, which is its purpose
//	    DB.mu       the overlays and the timestamp that goes with them; never over I/O
//	        DB.readers, DB.meter
//	Group.mu, gate.mu, ballast.mu stand alone
package db
