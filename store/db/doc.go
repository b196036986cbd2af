// Package db keeps the rows of a store: an ordered map of byte strings in
// Badger, with a log of our own in front that makes commits durable.
//
// A row is changed in the active overlay, frozen by a commit, written to the
// log, and carried into Badger in the background:
//
//	Set, Delete, Apply -> active --[Freeze]--> frozen --[Write]--> logged --[applier]--> Badger
//	                                  ^           |
//	                                  +--[failed]-+
//
// Readers look at them in that order, so they always see the newest change,
// durable or not. Write makes a frozen overlay durable as a whole or not at
// all, whatever its size: it is one record of the log (commitLog). What Badger
// holds durably matters only when a log file is released; after a crash Open
// repeats every commit since.
//
// Badger runs in managed mode: the package hands out the timestamps. An
// ordinary Badger transaction waits, when it begins, for all commits under way,
// and so every reader would wait for the disk.
//
// Badger never compacts. Now and then all rows are copied into another Badger
// database, an instance, which then takes the place of the one in use (rewrite).
//
// Locks, outermost first:
//
//	compactor.running       one compaction at a time; held over I/O; only Close waits for it
//	    DB.writing          one Freeze or Write at a time; held over I/O, which is its purpose
//	        applier.mu      the rounds of the applier
//	            DB.mu       the overlays, the instance in use and the timestamp that goes with them; never over I/O
//	                DB.meter
//	            commitLog.mu    the states of the log files; never over I/O
//	Group.mu, spaceGuard.mu, ballast.mu stand alone
package db
