// Package engine keeps blocks on one local disk: it implements chunk.Store
// over append-only segment files.
//
// # Directory
//
//	LOCK          held while a process has the store open
//	STORE         identity: cluster, server, format version
//	seg-00000001  segment files of Config.SegmentBytes, numbered from 1
//
// # Segment
//
//	0      segment header, twice (offsets 0 and 4096): state free or data,
//	       generation nonce, sequence number, size
//	8192   batches of records, each batch at a multiple of 4096
//	...    footer body: the index of the records, at a multiple of 4096
//	-4096  trailer: where the footer is, its checksum, the end of the data
//
// A segment file is written full of zeros and synced before its first use, so
// that appends change no file metadata and one fdatasync is one disk write.
// It goes free -> data (active, later sealed) -> free -> ... ; each passage to
// data draws a new random nonce, which every record and trailer carries, so
// nothing of an older life can be taken for a record. Exactly one segment is
// active. It is sealed (footer and trailer synced) before the next one is
// activated; sequence numbers ascend, so (sequence, offset) orders all records
// of the store: the log order.
//
// # Record
//
// A record is a header of one sector (512 bytes) and its data, padded to
// sectors. The header holds the kind, the nonce, its own offset, the offset
// at which its batch began, the id, the owner, the length, a CRC32C per 64 KiB
// of data and a CRC32C of itself (see record). A block record brings a block.
// A tombstone record, whose data are ids, takes away all earlier records of
// these blocks. The last record of a block in log order is the valid one.
//
// One batch is written at a time and synced before the next begins. So a
// record whose batch began at b proves that everything before b was on stable
// storage once: what fails its checks below the highest such b is damage, what
// fails above it is the torn tail of a batch that nobody was told about.
//
// # What is promised
//
// Put and Delete return nil after fdatasync. After a crash at any point every
// acknowledged Put that was not deleted is whole, every acknowledged Delete
// stays, and an unacknowledged operation happened or did not, per block.
// After a failed write or sync of the active segment nothing is known about
// it, so the store refuses changes (errs.IO) until it is opened again; reads
// go on.
//
// Damage found at open, by a read, by compaction or by Scrub is reported with
// file and offset; its block answers errs.Corrupt until it is put again (which
// replaces it) or deleted. Where a header itself is lost the id is unknown:
// then every unknown id answers errs.Corrupt instead of errs.NotExist, because
// absence can no longer be promised.
//
// # Locks, in order
//
//	fillMu   creation of segment files; held during I/O
//	scrubMu  the scrub cursor; held during I/O
//	queue.mu the request queue
//	mu       index, segment table, counters; never held during I/O
package engine
