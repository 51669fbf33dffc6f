package core

import (
	"github.com/tidwall/btree"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// node is what the client knows of one inode: its lease, and what may be
// believed under it.
type node struct {
	ino    meta.Ino
	lease  meta.LeaseKind
	attr   meta.Attr // true while attrOK and a lease is held; under LeaseWrite the only truth
	attrOK bool
}

// leases is the table of nodes.
type leases struct {
	table btree.Map[meta.Ino, *node]
	now   func() int64
}

// leaseOf tells what may be done with an inode locally right now: nothing
// while the session's validity is in doubt, and no more than is left while
// a recall is being answered.
func (c *Client) leaseOf(ino meta.Ino) meta.LeaseKind { return meta.LeaseNone }

// acquire asks for leases and calls fn when the answer is in the table, at
// once if all are held. What was refused is not there: fn looks with leaseOf.
// r, if any, is the request on whose behalf: cancelled, fn is not called.
func (c *Client) acquire(r *request, wants []meta.Grant, fn func(err error)) { fn(nil) }

// nodeOf returns the record of an inode, or nil.
func (c *Client) nodeOf(ino meta.Ino) *node {
	n, _ := c.leases.table.Get(ino)
	return n
}

// wallNow estimates the servers' wall clock, Unix nanoseconds.
func (c *Client) wallNow() int64 { return int64(c.now) }

// record is one delegated operation in the log. Its place is its seq; it is
// sent when it and all before it are ready.
type record struct {
	seq   uint64
	now   int64
	op    meta.Op
	ready bool
	inos  []meta.Ino      // that it changes: they stay pinned until it is durable
	done  func(err error) // it is durable, or the session ended
}

// logAppend gives a record the next place in the log.
func (c *Client) logAppend(r *record) {
	panic(errs.E("core.log", errs.Unsupported, "no lease allows a local operation yet", nil))
}

// logReady says that a record may be sent: the blocks it names are durable.
func (c *Client) logReady(r *record) { r.ready = true }

// afterLog sends the log up to seq at once and calls fn when it is durable, or
// with the error that lost it.
func (c *Client) afterLog(seq uint64, r *request, fn func(err error)) { fn(nil) }

// placeData gives all buffered data of a file its place in the log, so that
// records appended later come after it, and returns the last seq that belongs
// to the file (0: none is on its way).
func (c *Client) placeData(ino meta.Ino) uint64 { return 0 }
