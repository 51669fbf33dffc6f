// Package rules holds the POSIX rules of the namespace as functions of
// attributes, so that they stand once: the servers execute every operation with
// them (package tree), and a client that holds leases executes its own with
// them before the servers hear of it. Both get the same attributes from the
// same state, operation and time.
//
// No function has a memory, a clock or an effect besides the attributes it is
// given. Checks change nothing. Effects must follow the checks of their
// operation and cannot fail, with the exception of SetAttr, which does both.
//
// # An operation, step by step
//
// The order of the checks is that of Linux. Where an inode must be found first
// (errs.Stale, errs.NotExist), that is the caller's.
//
//	Make    CheckMake, parent, CheckDir, name; taken: Existing; free: CheckLive, Born, Made
//	Link    CheckName, inode, parent, CheckDir, name, CheckLink; Linked
//	Unlink  CheckName, parent, CheckDir, name, CheckUnlink; Unlinked
//	Rmdir   CheckName, parent, CheckDir, name, CheckRmdir; Unlinked
//	Rename  CheckRename, CheckName(old), parents, CheckDir, old name, new name, CheckNew,
//	        loops (caller), Move.Nothing, Move.Check; Move.Apply
//	SetAttr inode, SetAttr
//	Write   inode, CheckWrite; Wrote
//	Xattr   inode, CheckXattrWrite; Xattred
//
// # Times
//
// now is the time of the operation in Unix nanoseconds. ctime grows with each
// change of an inode and mtime with each change of content or entries, strictly
// and whatever the clock says (Later). A client puts the same now into its log
// record; the servers then execute the record with it.
//
// # What rules do not know
//
// Attr.Bytes: it follows from the extents. Access modes and supplementary
// groups: the kernel of the caller checks them.
package rules
