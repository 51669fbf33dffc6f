package kernel

import (
	"bytes"
	"encoding/binary"
	"math"
	"syscall"
	"time"
)

// The parts of the FUSE protocol that the transport reads itself; all else is
// decoded by go-fuse. Integers are in the machine's byte order.

// resent marks the number of a request that the kernel delivers again.
const resent = uint64(1) << 63

// Opcodes that the transport tells apart.
const (
	opLookup      = 1
	opForget      = 2
	opGetAttr     = 3
	opSetAttr     = 4
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opSetXattr    = 21
	opGetXattr    = 22
	opListXattr   = 23
	opInit        = 26
	opReadDir     = 28
	opSetLockWait = 33
	opCreate      = 35
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReadDirPlus = 44
	opRename2     = 45
	opTmpfile     = 51
	opStatx       = 52
	opCount       = 64 // above all opcodes
)

// Notifications: messages without a request, told apart by their error field.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyIncEpoch   = 8
)

// Sizes and places of fields, bytes.
const (
	inHeaderBytes  = 40
	outHeaderBytes = 16
	writeInBytes   = 80  // struct fuse_in_header and fuse_write_in
	maxOutStruct   = 288 // largest structure of a reply
	readSizeAt     = 56  // fuse_read_in.size
	xattrSizeAt    = 40  // fuse_getxattr_in.size
	ioctlSizeAt    = 68  // fuse_ioctl_in.out_size
	interruptedAt  = 40  // fuse_interrupt_in.unique
	direntNameAt   = 16  // fuse_dirent.namelen

	renameDirAt    = 40     // fuse_rename_in.newdir
	setAttrValidAt = 40     // fuse_setattr_in.valid
	setAttrSize    = 1 << 3 // FATTR_SIZE
	writeOffAt     = 48     // fuse_write_in.offset
	writeSizeAt    = 56     // fuse_write_in.size
)

// header is what the transport needs of struct fuse_in_header.
type header struct {
	op     uint32
	unique uint64
	node   uint64
	pid    uint32
}

func parseHeader(b []byte) header {
	e := binary.NativeEndian
	return header{op: e.Uint32(b[4:]), unique: e.Uint64(b[8:]), node: e.Uint64(b[16:]), pid: e.Uint32(b[32:])}
}

func uint32At(b []byte, at int) int {
	if len(b) < at+4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b[at:]))
}

// replyRoom is how many bytes the reply to a request may take.
func replyRoom(op uint32, in []byte) int {
	n := outHeaderBytes + maxOutStruct
	switch op {
	case opRead, opReadDir, opReadDirPlus:
		n += uint32At(in, readSizeAt)
	case opGetXattr, opListXattr:
		n += uint32At(in, xattrSizeAt)
	case opIoctl:
		n += uint32At(in, ioctlSizeAt)
	}
	return n
}

// errorReply makes a reply without a body.
func errorReply(unique uint64, errno syscall.Errno) []byte {
	b := make([]byte, outHeaderBytes)
	e := binary.NativeEndian
	e.PutUint32(b, outHeaderBytes)
	e.PutUint32(b[4:], uint32(-int32(errno)))
	e.PutUint64(b[8:], unique)
	return b
}

// gift lists the references that a reply hands to the kernel: one lookup for
// each of nodes, and an open handle of opened unless it is 0.
type gift struct {
	nodes  []uint64
	opened uint64
}

// parseGift reads them off a reply as it will be written, so that what is
// counted is what the kernel is told.
func parseGift(h header, reply []byte) gift {
	var g gift
	e := binary.NativeEndian
	if len(reply) < outHeaderBytes || e.Uint32(reply[4:]) != 0 {
		return g
	}
	body := reply[outHeaderBytes:]
	switch h.op {
	case opOpen:
		g.opened = h.node
	case opLookup, opSymlink, opMknod, opMkdir, opLink, opCreate, opTmpfile:
		if len(body) < entryOutBytes {
			return g
		}
		if node := e.Uint64(body); node != 0 {
			g.nodes = []uint64{node}
			if h.op == opCreate || h.op == opTmpfile {
				g.opened = node
			}
		}
	case opReadDirPlus:
		eachDirent(body, func(entry, _ []byte) {
			if node := e.Uint64(entry); node != 0 {
				g.nodes = append(g.nodes, node)
			}
		})
	}
	return g
}

// valid is a lifetime inside a reply.
type valid struct{ sec, nsec []byte }

func (v *valid) clear() {
	if v != nil {
		clear(v.sec)
		clear(v.nsec)
	}
}

// shorten takes d off, but nothing below zero.
func (v *valid) shorten(d time.Duration) {
	if v == nil {
		return
	}
	e := binary.NativeEndian
	left := joinTime(e.Uint64(v.sec), e.Uint32(v.nsec))
	sec, nsec := splitTime(max(0, left-int64(d)))
	e.PutUint64(v.sec, sec)
	e.PutUint32(v.nsec, nsec)
}

// locksDir are the requests during which the kernel holds the lock of the
// directory they name for them alone.
var locksDir = [opCount]bool{
	opSetAttr: true, opSymlink: true, opMknod: true, opMkdir: true, opUnlink: true, opRmdir: true,
	opRename: true, opLink: true, opSetXattr: true, opCreate: true, opRename2: true, opTmpfile: true,
}

// life is what a reply lets the kernel believe for a while: that a name of a
// directory stands for a node (0: for nothing), and the node's attributes.
type life struct {
	dir   uint64
	name  []byte
	node  uint64
	entry *valid // nil: none
	attr  *valid
}

// nameAt is where the name stands in requests that are answered with an entry.
var nameAt = map[uint32]int{
	opLookup: inHeaderBytes, opSymlink: inHeaderBytes, opMknod: inHeaderBytes + 16, opMkdir: inHeaderBytes + 8,
	opLink: inHeaderBytes + 8, opCreate: inHeaderBytes + 16, opTmpfile: inHeaderBytes + 16,
}

// eachLife visits the lifetimes of a reply.
func eachLife(h header, in, reply []byte, visit func(life)) {
	e := binary.NativeEndian
	if len(reply) < outHeaderBytes || e.Uint32(reply[4:]) != 0 {
		return
	}
	body := reply[outHeaderBytes:]
	at, named := nameAt[h.op]
	switch {
	case h.op == opGetAttr || h.op == opSetAttr || h.op == opStatx:
		if len(body) >= 12 {
			visit(life{node: h.node, attr: &valid{body[:8], body[8:12]}})
		}
	case named:
		if len(body) >= entryOutBytes && len(in) >= at {
			name, _, _ := bytes.Cut(in[at:], []byte{0})
			visit(entryLife(h.node, name, body))
		}
	case h.op == opReadDirPlus:
		eachDirent(body, func(entry, name []byte) { visit(entryLife(h.node, name, entry)) })
	}
}

// entryLife reads struct fuse_entry_out.
func entryLife(dir uint64, name, b []byte) life {
	return life{
		dir: dir, name: name, node: binary.NativeEndian.Uint64(b),
		entry: &valid{b[16:24], b[32:36]}, attr: &valid{b[24:32], b[36:40]},
	}
}

// eachDirent visits the entries of a READDIRPLUS reply.
func eachDirent(body []byte, visit func(entry, name []byte)) {
	for len(body) >= entryOutBytes+direntBytes {
		d := body[entryOutBytes:]
		n := uint32At(d, direntNameAt)
		if n > len(d)-direntBytes {
			return
		}
		visit(body[:entryOutBytes], d[direntBytes:direntBytes+n])
		size := entryOutBytes + (direntBytes+n+7)&^7
		if size > len(body) {
			return
		}
		body = body[size:]
	}
}

// notification makes a message of ours to the kernel.
func notification(code uint32, body ...[]byte) []byte {
	b := make([]byte, outHeaderBytes)
	for _, x := range body {
		b = append(b, x...)
	}
	e := binary.NativeEndian
	e.PutUint32(b, uint32(len(b)))
	e.PutUint32(b[4:], code)
	return b
}

// invalInodeMessage tells to forget a node's attributes and, unless pages is
// nil, that range of its pages. A length of 0 means to the end.
func invalInodeMessage(node uint64, pages *span) []byte {
	off, n := uint64(math.MaxUint64), uint64(0) // -1: attributes alone
	if pages != nil {
		off = pages.off
		if pages.end != endless {
			n = pages.end - pages.off
		}
	}
	b := make([]byte, 24)
	e := binary.NativeEndian
	e.PutUint64(b, node)
	e.PutUint64(b[8:], off)
	e.PutUint64(b[16:], n)
	return notification(notifyInvalInode, b)
}

// invalEntryMessage tells to forget a name of a directory.
func invalEntryMessage(dir uint64, name string) []byte {
	b := make([]byte, 16)
	e := binary.NativeEndian
	e.PutUint64(b, dir)
	e.PutUint32(b[8:], uint32(len(name)))
	return notification(notifyInvalEntry, b, []byte(name), []byte{0})
}
