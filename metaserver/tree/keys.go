package tree

import (
	"encoding/binary"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"
)

// First bytes of keys. Integers in keys are big endian, so that bytewise order
// is numeric order.
const (
	// Owned by this package.
	prefixInode      = 'I' // layer, ino -> inode
	prefixEntry      = 'D' // layer, dir, hash63(name), name -> entry
	prefixExtent     = 'E' // layer, content, last byte of the range -> extent
	prefixXattr      = 'A' // layer, ino, name -> value too large for the inode
	prefixParent     = 'K' // layer, ino, parent -> links there; inodes of several links
	prefixOrphan     = 'O' // layer, ino -> orphan
	prefixUnresolved = 'U' // layer, ino -> empty: orphans whose pins are not known
	prefixPin        = 'P' // session, layer, ino -> empty: orphans of a session
	prefixQueue      = 'Q' // layer, kind, id -> debt
	prefixCounter    = 'N' // layer -> counters
	prefixBlock      = 'B' // block -> BlockRec
	prefixRepair     = 'X' // server, block -> repair
	prefixFreed      = 'F' // Raft index, block -> freed
	prefixTotals     = 'T' // -> totals of the repair list

	// PrefixFeed is reserved for the change feed.
	PrefixFeed = 'J'
	// PrefixLayer to PrefixCluster belong to package metaserver/state.
	PrefixLayer   = 'L'
	PrefixDrive   = 'V'
	PrefixSession = 'S'
	PrefixReply   = 'R'
	PrefixCluster = 'C'
	// and the lower-case letters.
)

// key builds a key from a prefix and integers, with room for a name.
func key(prefix byte, ints ...uint64) []byte {
	k := make([]byte, 1, 1+8*len(ints)+32)
	k[0] = prefix
	for _, v := range ints {
		k = binary.BigEndian.AppendUint64(k, v)
	}
	return k
}

// keysEnd returns the smallest key above all keys that start with k, or nil.
func keysEnd(k []byte) []byte {
	end := append([]byte(nil), k...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// keyInt reads the i-th integer of a key.
func keyInt(k []byte, i int) uint64 {
	at := 1 + 8*i
	if len(k) < at+8 {
		return 0
	}
	return binary.BigEndian.Uint64(k[at:])
}

func (s Space) inodeKey(ino meta.Ino) []byte {
	return key(prefixInode, uint64(s.Layer), uint64(ino))
}

func (s Space) entryKey(dir meta.Ino, name string) []byte {
	return append(key(prefixEntry, uint64(s.Layer), uint64(dir), meta.NameCookie(name)), name...)
}

// extentKey addresses an extent by its last byte: one forward scan from a
// position then meets the extent that covers it first, however long it is.
func (s Space) extentKey(content, last uint64) []byte {
	return key(prefixExtent, uint64(s.Layer), content, last)
}

func (s Space) xattrKey(ino meta.Ino, name string) []byte {
	return append(key(prefixXattr, uint64(s.Layer), uint64(ino)), name...)
}

func (s Space) parentKey(ino, parent meta.Ino) []byte {
	return key(prefixParent, uint64(s.Layer), uint64(ino), uint64(parent))
}

func (s Space) orphanKey(ino meta.Ino) []byte {
	return key(prefixOrphan, uint64(s.Layer), uint64(ino))
}

func (s Space) unresolvedKey(ino meta.Ino) []byte {
	return key(prefixUnresolved, uint64(s.Layer), uint64(ino))
}

func (s Space) pinKey(session meta.SessionID, ino meta.Ino) []byte {
	return key(prefixPin, uint64(session), uint64(s.Layer), uint64(ino))
}

// Kinds of debts, in the order in which they are paid.
const (
	debtDrop    = 1 // the whole layer
	debtSession = 2 // pins of a session that ended
	debtTrim    = 3 // dead extents inside a living file
	debtContent = 4 // all extents under a content id
	debtXattrs  = 5 // records A| of a dead inode
)

func (s Space) debtKey(kind uint8, id uint64) []byte {
	k := append(key(prefixQueue, uint64(s.Layer)), kind)
	return binary.BigEndian.AppendUint64(k, id)
}

// splitDebtKey is the inverse of debtKey.
func splitDebtKey(k []byte) (kind uint8, id uint64, ok bool) {
	if len(k) != 1+8+1+8 {
		return 0, 0, false
	}
	return k[9], binary.BigEndian.Uint64(k[10:]), true
}

func (s Space) counterKey() []byte { return key(prefixCounter, uint64(s.Layer)) }

func blockKey(id chunk.BlockID) []byte { return append([]byte{prefixBlock}, id[:]...) }

func repairKey(server chunk.ServerID, id chunk.BlockID) []byte {
	k := binary.BigEndian.AppendUint32([]byte{prefixRepair}, uint32(server))
	return append(k, id[:]...)
}

func freedKey(index uint64, id chunk.BlockID) []byte {
	return append(key(prefixFreed, index), id[:]...)
}

func totalsKey() []byte { return []byte{prefixTotals} }
