// Package carrier brings the commits of a volume to its mirrors, by the rules of package mirror.
// Package mirrored opens the one that writes, a node's agent the others.
//
// A node has a copy of the volume in a directory, which is a store's. While another node writes, it
// is a Replica, which takes what comes. With Promote it becomes a Writer, and the directory is
// opened as a store, which recovers as after a power cut:
//
//	empty, or a store --[OpenReplica]--> Replica --[Promote]--> Writer, with the store open
//
// What is copied is physical: the segments' files byte for byte, and the rows of each commit, so
// the rows' locations hold on every node. Of files a Capture notes what was changed; the store
// gives the rows to its Follower, when they are durable here and nobody was told of them (R2, R3).
//
// A copy that connects is first sent the files that differ, while commits go on. The next commit
// then brings what was noted meanwhile, and its rows; or all rows, if the copy lacks more than that
// one. Commits wait while all rows are sent.
//
// Lock order:
//
//	Writer.swapping   one change of the record at a time; held over the register's answer
//	  Writer.mu       over no call but the rules
//	Capture.mu        over the rename of a file, and nothing else that takes time
//	Replica.mu        one frame at a time; held over what it writes to the disk and answers, and by
//	                  Promote over the register's answer
package carrier
