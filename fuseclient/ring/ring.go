// Package ring keeps the log of a mount in memory that outlives its process: a
// memfd. Whoever holds the descriptor, a holder process or the next daemon, can
// read what was answered to the kernel and not yet made durable by the servers.
//
// A record is appended before its reply is written. It carries the number of
// the kernel's request (bit 63 cleared: RESEND sets it) and the result, so that
// a request which is delivered again gets the same answer and is not executed
// twice. DESIGN.md has the format and the argument.
package ring

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// Kind says what a record stands for.
type Kind uint8

// The kinds of records.
const (
	Local Kind = 1 // a delegated operation; Seq is its place in the log
	Sync  Kind = 2 // an operation of the servers; Seq is its operation id
)

// Record is one answered request. Op and Result are encodings of the wire
// format; the ring does not look into them.
type Record struct {
	Kind   Kind
	Unique uint64 // of the kernel's request, bit 63 cleared; 0 = not of a request
	Seq    uint64
	Op     []byte
	Result []byte
}

const (
	magic      = 0x31474e4952444741 // "AGDRING1", little endian
	headerSize = 4096
	recordHead = 40 // length, crc, state, kind, unique, seq, length of Op
	align      = 8

	// MinSize is the smallest ring, in bytes.
	MinSize = 64 << 10
	// MaxSize is the largest ring, in bytes.
	MaxSize = 1 << 30

	stateLive = 1
	stateDone = 2
	statePad  = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Ring is a FIFO of records in shared memory. Safe for concurrent use in one
// process; two processes must not write to it at the same time.
//
// head and tail count bytes since the beginning and never wrap; the place of a
// byte is its count modulo the size.
type Ring struct {
	mu     sync.Mutex // guards the mapping and what follows; a leaf
	fd     int
	mem    []byte
	data   []byte
	size   uint64
	places map[Kind]map[uint64]uint64 // Seq -> offset of the record, live ones
}

// Create makes an empty ring of at least size bytes in a new memfd.
func Create(size int) (*Ring, error) {
	if size < MinSize || size > MaxSize {
		return nil, errs.E("ring.create", errs.Invalid, fmt.Sprintf("%d bytes, allowed are %d to %d", size, MinSize, MaxSize), nil)
	}
	size = (size + headerSize - 1) &^ (headerSize - 1)
	fd, err := unix.MemfdCreate("agentdrive-log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, errs.E("ring.create", errs.Other, "memfd_create", err)
	}
	if err := unix.Ftruncate(fd, int64(headerSize+size)); err != nil {
		return nil, closeWith(fd, errs.E("ring.create", errs.Other, "ftruncate", err))
	}
	// Its length is fixed from here: nobody can make a reader fault.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, closeWith(fd, errs.E("ring.create", errs.Other, "seal", err))
	}
	r, err := mapRing(fd, headerSize+size)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(r.mem[8:], uint64(size))
	binary.LittleEndian.PutUint64(r.mem[0:], magic)
	return r, nil
}

func closeWith(fd int, err error) error {
	unix.Close(fd) // nothing was written: its error tells nothing
	return err
}

func mapRing(fd, n int) (*Ring, error) {
	mem, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, closeWith(fd, errs.E("ring.map", errs.Other, "mmap", err))
	}
	return &Ring{fd: fd, mem: mem, data: mem[headerSize:], size: uint64(n - headerSize),
		places: map[Kind]map[uint64]uint64{Local: {}, Sync: {}}}, nil
}

// Open maps a ring that another process made; the ring owns fd from now on. A
// ring that is damaged is refused: errs.Corrupt.
func Open(fd int) (*Ring, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, closeWith(fd, errs.E("ring.open", errs.Other, "fstat", err))
	}
	if st.Size < headerSize+MinSize || st.Size > headerSize+MaxSize {
		return nil, closeWith(fd, errs.E("ring.open", errs.Corrupt, fmt.Sprintf("%d bytes are no ring", st.Size), nil))
	}
	r, err := mapRing(fd, int(st.Size))
	if err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint64(r.mem[0:]) != magic || binary.LittleEndian.Uint64(r.mem[8:]) != r.size {
		return nil, r.refuse("its header is none of a ring")
	}
	bad := r.each(func(at uint64, rec Record, state uint32) bool {
		if state == stateLive {
			r.places[rec.Kind][rec.Seq] = at
		}
		return true
	})
	if bad != nil {
		return nil, r.refuse(bad.Error())
	}
	return r, nil
}

func (r *Ring) refuse(msg string) error {
	err := errs.E("ring.open", errs.Corrupt, msg, nil)
	if cerr := r.Close(); cerr != nil {
		return errs.E("ring.open", errs.Corrupt, msg, cerr)
	}
	return err
}

// Close unmaps the ring and closes its descriptor; the memory lives on while
// another process has it.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return nil
	}
	err := unix.Munmap(r.mem)
	if cerr := unix.Close(r.fd); err == nil {
		err = cerr
	}
	r.mem, r.data = nil, nil
	if err != nil {
		return errs.E("ring.close", errs.Other, "", err)
	}
	return nil
}

// FD is the descriptor to hand to a holder; it stays the ring's.
func (r *Ring) FD() int { return r.fd }

func (r *Ring) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&r.mem[at])) }

func (r *Ring) head() uint64     { return atomic.LoadUint64(r.word(16)) }
func (r *Ring) tail() uint64     { return atomic.LoadUint64(r.word(24)) }
func (r *Ring) setHead(v uint64) { atomic.StoreUint64(r.word(16), v) }
func (r *Ring) setTail(v uint64) { atomic.StoreUint64(r.word(24), v) }

// Used tells how many bytes are taken, Size how many there are.
func (r *Ring) Used() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return 0
	}
	return int(r.tail() - r.head())
}

// Size is the room for records in bytes.
func (r *Ring) Size() int { return int(r.size) }

// Append adds a record. errs.NoSpace: the ring is full, and the caller waits
// until the log moves. The record counts from the moment the tail moves: a
// process that dies before leaves the ring as it was.
func (r *Ring) Append(rec Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return errs.E("ring.append", errs.Expired, "the ring is closed", nil)
	}
	n := (recordHead + uint64(len(rec.Op)) + uint64(len(rec.Result)) + align - 1) &^ (align - 1)
	tail := r.tail()
	at := tail % r.size
	pad := uint64(0)
	if at+n > r.size {
		pad = r.size - at
	}
	if n > r.size/2 || tail+pad+n-r.head() > r.size {
		return errs.E("ring.append", errs.NoSpace, "the log ring is full", nil)
	}
	if pad > 0 {
		// Offsets and lengths are multiples of align, so the words fit.
		binary.LittleEndian.PutUint32(r.data[at:], uint32(pad))
		if pad >= recordHead {
			binary.LittleEndian.PutUint32(r.data[at+8:], statePad)
		}
		at = 0
	}
	b := r.data[at : at+n]
	binary.LittleEndian.PutUint32(b[0:], uint32(n))
	binary.LittleEndian.PutUint32(b[8:], stateLive)
	b[12], b[13], b[14], b[15] = byte(rec.Kind), 0, 0, 0
	binary.LittleEndian.PutUint64(b[16:], rec.Unique)
	binary.LittleEndian.PutUint64(b[24:], rec.Seq)
	binary.LittleEndian.PutUint32(b[32:], uint32(len(rec.Op)))
	binary.LittleEndian.PutUint32(b[36:], uint32(len(rec.Result)))
	m := copy(b[recordHead:], rec.Op)
	copy(b[recordHead+m:], rec.Result)
	binary.LittleEndian.PutUint32(b[4:], checksum(b))
	r.setTail(tail + pad + n)
	r.places[rec.Kind][rec.Seq] = tail + pad
	return nil
}

// checksum covers everything but the length of a record's slot, the sum
// itself, and the state, which changes in place.
func checksum(b []byte) uint32 {
	n := recordHead + uint64(binary.LittleEndian.Uint32(b[32:])) + uint64(binary.LittleEndian.Uint32(b[36:]))
	return crc32.Update(crc32.Checksum(b[12:recordHead], castagnoli), castagnoli, b[recordHead:n])
}

// DoneUpTo gives back the local records up to and including a place in the
// log: the servers have them.
func (r *Ring) DoneUpTo(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return
	}
	for s, at := range r.places[Local] { // each is marked by itself: order does not matter
		if s <= seq {
			r.done(Local, s, at)
		}
	}
	r.advance()
}

// Done gives one record back.
func (r *Ring) Done(k Kind, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.places[k][seq]; ok && r.mem != nil {
		r.done(k, seq, at)
		r.advance()
	}
}

func (r *Ring) done(k Kind, seq, at uint64) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.data[at%r.size+8])), stateDone)
	delete(r.places[k], seq)
}

// advance moves the head over what is done.
func (r *Ring) advance() {
	for head := r.head(); head < r.tail(); {
		at := head % r.size
		n := uint64(binary.LittleEndian.Uint32(r.data[at:]))
		if r.size-at >= recordHead && binary.LittleEndian.Uint32(r.data[at+8:]) == stateLive {
			return
		}
		head += n
		r.setHead(head)
	}
	r.rewind()
}

// rewindAt is how far an empty ring is filled before it begins again at the
// front: a log that is never long touches little memory.
const rewindAt = 1 << 20

// rewind pads an empty ring to its end, so that the next record stands at the
// front.
func (r *Ring) rewind() {
	tail := r.tail()
	at := tail % r.size
	if r.head() != tail || at < rewindAt {
		return
	}
	pad := r.size - at
	binary.LittleEndian.PutUint32(r.data[at:], uint32(pad))
	if pad >= recordHead {
		binary.LittleEndian.PutUint32(r.data[at+8:], statePad)
	}
	r.setTail(tail + pad)
	r.setHead(tail + pad)
}

// Live calls fn for each record that was not given back, oldest first. The
// slices are valid during the call.
func (r *Ring) Live(fn func(Record) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return errs.E("ring.live", errs.Expired, "the ring is closed", nil)
	}
	return r.each(func(_ uint64, rec Record, state uint32) bool {
		return state != stateLive || fn(rec)
	})
}

// each walks over all records between head and tail and checks them.
func (r *Ring) each(fn func(at uint64, rec Record, state uint32) bool) error {
	head, tail := r.head(), r.tail()
	if head > tail || tail-head > r.size || head%align != 0 || tail%align != 0 {
		return errs.E("ring.read", errs.Corrupt, fmt.Sprintf("records from %d to %d in %d bytes", head, tail, r.size), nil)
	}
	for head < tail {
		at := head % r.size
		rec, n, state, err := decode(r.data[at:])
		if err == nil && head+n > tail {
			err = errs.E("ring.read", errs.Corrupt, "a record reaches beyond the end", nil)
		}
		if err != nil {
			return errs.E("ring.read", errs.Corrupt, fmt.Sprintf("at byte %d", head), err)
		}
		if state != statePad && !fn(head, rec, state) {
			return nil
		}
		head += n
	}
	return nil
}

// decode reads the record at the start of b, which ends with the ring. n is
// the length of its slot.
func decode(b []byte) (rec Record, n uint64, state uint32, err error) {
	bad := func(msg string) (Record, uint64, uint32, error) {
		return Record{}, 0, 0, errs.E("ring.decode", errs.Corrupt, msg, nil)
	}
	if len(b) < align {
		return bad("no room for a record")
	}
	n = uint64(binary.LittleEndian.Uint32(b))
	if n < align || n%align != 0 || n > uint64(len(b)) {
		return bad("a length that cannot be")
	}
	if len(b) < recordHead {
		if n != uint64(len(b)) {
			return bad("padding of a wrong length")
		}
		return Record{}, n, statePad, nil
	}
	switch state = binary.LittleEndian.Uint32(b[8:]); state {
	case statePad:
		if n != uint64(len(b)) {
			return bad("padding of a wrong length")
		}
		return Record{}, n, statePad, nil
	case stateLive, stateDone:
	default:
		return bad("a state that is none")
	}
	op, res := uint64(binary.LittleEndian.Uint32(b[32:])), uint64(binary.LittleEndian.Uint32(b[36:]))
	if recordHead+op+res > n || checksum(b) != binary.LittleEndian.Uint32(b[4:]) {
		return bad("a checksum that does not match")
	}
	rec = Record{
		Kind: Kind(b[12]), Unique: binary.LittleEndian.Uint64(b[16:]), Seq: binary.LittleEndian.Uint64(b[24:]),
		Op: b[recordHead : recordHead+op : recordHead+op], Result: b[recordHead+op : recordHead+op+res : recordHead+op+res],
	}
	if rec.Kind != Local && rec.Kind != Sync {
		return bad("a kind that is none")
	}
	return rec, n, state, nil
}
