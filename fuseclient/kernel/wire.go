package kernel

import (
	"encoding/binary"
	"syscall"
)

// The parts of the FUSE protocol that the transport reads itself; all else is
// decoded by go-fuse. Integers are in the machine's byte order.

// Opcodes that the transport tells apart.
const (
	opLookup      = 1
	opForget      = 2
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opGetXattr    = 22
	opListXattr   = 23
	opInit        = 26
	opReadDir     = 28
	opCreate      = 35
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReadDirPlus = 44
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
	case opLookup, opSymlink, opMknod, opMkdir, opLink, opCreate:
		if len(body) < entryOutBytes {
			return g
		}
		if node := e.Uint64(body); node != 0 {
			g.nodes = []uint64{node}
			if h.op == opCreate {
				g.opened = node
			}
		}
	case opReadDirPlus:
		for len(body) >= entryOutBytes+direntBytes {
			if node := e.Uint64(body); node != 0 {
				g.nodes = append(g.nodes, node)
			}
			d := body[entryOutBytes:]
			size := entryOutBytes + (direntBytes+uint32At(d, direntNameAt)+7)&^7
			if size > len(body) {
				break
			}
			body = body[size:]
		}
	}
	return g
}
