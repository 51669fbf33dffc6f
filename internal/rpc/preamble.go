package rpc

import (
	"encoding/binary"
	"fmt"

	"agentdrive/internal/errs"
)

// ClusterID identifies a cluster for good. It is drawn at random when the
// cluster is formed.
type ClusterID [16]byte

// String is the id in hexadecimal.
func (c ClusterID) String() string { return fmt.Sprintf("%x", c[:]) }

// Preamble is what the dialer of a Raft connection says first. On the wire it
// has a fixed size, integers big endian:
//
//	offset  size
//	     0     4  magic, bytes AD 52 46 54
//	     4     1  version, 1
//	     5     4  group
//	     9    16  cluster id
//	    25     4  sender's server id
//
// The accepting side answers with one byte: answerWelcome, or the reason for
// refusing, after which it closes. The magic's first byte is no ASCII, so
// that neither HTTP/2 ("PRI ") nor TLS (16 hex) can be taken for it.
type Preamble struct {
	Group   uint32
	Cluster ClusterID
	Sender  uint32
}

const (
	preambleMagic   = "\xadRFT"
	preambleVersion = 1
	preambleSize    = 29
	http2Start      = "PRI " // of the HTTP/2 connection preface
	httpGet         = "GET " // of an HTTP/1.1 request
	peekSize        = 4      // all starts
)

// AppendPreamble appends the wire form of p to dst.
func AppendPreamble(dst []byte, p Preamble) []byte {
	dst = append(dst, preambleMagic...)
	dst = append(dst, preambleVersion)
	dst = binary.BigEndian.AppendUint32(dst, p.Group)
	dst = append(dst, p.Cluster[:]...)
	return binary.BigEndian.AppendUint32(dst, p.Sender)
}

// DecodePreamble reads exactly one preamble. errs.Corrupt for a wrong size or
// magic, errs.Version for a version this program does not know.
func DecodePreamble(b []byte) (Preamble, error) {
	var p Preamble
	if len(b) != preambleSize {
		return p, errs.E("rpc.preamble", errs.Corrupt, fmt.Sprintf("%d bytes instead of %d", len(b), preambleSize), nil)
	}
	if string(b[:4]) != preambleMagic {
		return p, errs.E("rpc.preamble", errs.Corrupt, fmt.Sprintf("magic is %x", b[:4]), nil)
	}
	if b[4] != preambleVersion {
		return p, errs.E("rpc.preamble", errs.Version, fmt.Sprintf("version %d, this program knows %d", b[4], preambleVersion), nil).
			WithHint("run the same version of agentdrive on all servers")
	}
	p.Group = binary.BigEndian.Uint32(b[5:])
	copy(p.Cluster[:], b[9:25])
	p.Sender = binary.BigEndian.Uint32(b[25:])
	return p, nil
}

// The answers to a preamble. Append only.
const (
	answerWelcome  = 0
	answerVersion  = 1
	answerCluster  = 2
	answerGroup    = 3
	answerShutdown = 4
)

// answerError turns an answer into what the dialer returns.
func answerError(answer byte, addr string, p Preamble) error {
	switch answer {
	case answerWelcome:
		return nil
	case answerVersion:
		return errs.E("rpc.raft.dial", errs.Version, fmt.Sprintf("%s does not know preamble version %d", addr, preambleVersion), nil).
			WithHint("run the same version of agentdrive on all servers")
	case answerCluster:
		return errs.E("rpc.raft.dial", errs.Mismatch, fmt.Sprintf("%s belongs to another cluster than %s", addr, p.Cluster), nil).
			WithHint("compare the cluster ids of both data directories; one of the addresses is wrong")
	case answerGroup:
		return errs.E("rpc.raft.dial", errs.Unavailable, fmt.Sprintf("%s does not serve group %d now", addr, p.Group), nil)
	case answerShutdown:
		return errs.E("rpc.raft.dial", errs.Unavailable, addr+" is shutting down", nil)
	}
	return errs.E("rpc.raft.dial", errs.Corrupt, fmt.Sprintf("%s answered the preamble with byte %d", addr, answer), nil)
}
