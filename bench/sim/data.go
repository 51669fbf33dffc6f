package sim

import (
	"encoding/binary"
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// dataOracle checks what applications read against what they wrote. Every
// unit of every write carries the write's number, so each unit read tells
// which write it comes from; that write must not be older than one that the
// reader had to see. Who had to see what:
//
//   - the writer, from the answer of the write on;
//   - everybody, from the answer of an fsync, flush, synchronous write, append
//     or truncate on (close-to-open);
//   - nobody, after an error told that the write may be lost;
//   - with leases everybody, from the answer of the write on.
type dataOracle struct {
	w     *world
	files map[meta.Ino][]*dataWrite
	all   []*dataWrite
	order *orderOracle
}

// dataWrite is a write of n units at off, or a truncation to off units, which
// writes zeros behind.
type dataWrite struct {
	id       uint64
	client   *client
	ino      meta.Ino
	off, n   uint32
	trunc    bool
	appends  bool
	known    bool // off is where it went
	inv      stamp
	resp     stamp     // answered with success; 0 = not
	pub      stamp     // everybody sees it; 0 = not certain
	lost     bool      // may be gone
	reported bool      // and the application was told, or nobody was there to tell
	unaware  bool      // lost, but the client does not know yet
	mut      *mutation // of a truncation
}

func newDataOracle(w *world) *dataOracle {
	d := &dataOracle{w: w, files: map[meta.Ino][]*dataWrite{}}
	d.order = &orderOracle{data: d, units: map[unitKey]uint64{}, moves: map[meta.Op]move{}}
	return d
}

func (d *dataOracle) begin(c *client, ino meta.Ino, off, n uint32) *dataWrite {
	x := &dataWrite{id: uint64(len(d.all)) + 1, client: c, ino: ino, off: off, n: n, inv: d.w.observe()}
	d.all = append(d.all, x)
	d.files[ino] = append(d.files[ino], x)
	return x
}

// content makes the bytes of a write.
func (x *dataWrite) content() []byte {
	b := make([]byte, 0, x.n*unit)
	for i := range uint64(x.n) {
		for range unit / 8 {
			b = binary.BigEndian.AppendUint64(b, x.id<<16|i)
		}
	}
	return b
}

// finish notes the answer of a write. With through it is visible to all, with
// sync durable as well.
func (d *dataOracle) finish(x *dataWrite, a client_core.Answer, through, sync bool) {
	if a.Err != nil {
		x.lost, x.reported = true, true
		return
	}
	res, ok := a.Result.(*meta.AttrResult)
	if !ok {
		d.w.fail("a write is answered with %T", a.Result)
		return
	}
	if x.appends {
		x.off = uint32(res.Off / unit)
	}
	x.known = true
	x.resp = d.w.observe()
	if through && (!d.w.leases || sync) {
		x.pub, x.lost = x.resp, false
	}
}

// synced takes the answer of an fsync, flush or synchronous write that began
// at inv. A success speaks for everything written before, lost or not. With
// leases a flush makes nothing durable, but it must not hide a loss.
func (d *dataOracle) synced(c *client, ino meta.Ino, inv stamp, err error, durable bool) {
	if err != nil {
		return
	}
	now := d.w.observe()
	for _, x := range d.files[ino] {
		if x.client != c || x.resp == 0 || x.pub != 0 || x.reported || x.resp >= inv {
			continue
		}
		if durable || !d.w.leases || x.lost && !x.unaware {
			x.lost, x.pub = false, now
		}
	}
}

// failed takes an error as the report of what is lost, also of what was lost
// while it waited, as Linux counts it.
func (d *dataOracle) failed(c *client, ino meta.Ino, inv stamp, err error) {
	if err == nil || errs.Is(err, errs.Interrupted) {
		return
	}
	for _, x := range d.files[ino] {
		if x.client == c && x.resp != 0 && x.pub == 0 && !x.reported && (x.resp < inv || x.lost) {
			x.lost, x.reported = true, true
		}
	}
}

// allSynced takes the answer of SyncAll, which reports no earlier loss.
func (d *dataOracle) allSynced(c *client, inv stamp, err error) {
	if err != nil {
		return
	}
	now := d.w.observe()
	for _, x := range d.all {
		if x.client == c && x.resp != 0 && x.resp < inv && x.pub == 0 && !x.lost {
			x.pub = now
		}
	}
}

// sessionLost makes everything unpublished of a client uncertain.
func (d *dataOracle) sessionLost(c *client) { d.uncertain(c) }

// ended makes what is not in the log of a client's session uncertain, when the
// log ends it: nobody will see it. The client learns of it later.
func (d *dataOracle) ended(c *client) {
	for _, x := range d.all {
		if x.client == c && x.pub == 0 && !d.order.all(x) {
			x.lost, x.unaware = true, true
		}
	}
}

// died makes everything unpublished of a client that is gone uncertain: nobody
// is left to report it to.
func (d *dataOracle) died(c *client) {
	for _, x := range d.all {
		if x.client == c && x.pub == 0 && !(d.w.leases && d.order.all(x)) {
			x.lost, x.reported = true, true
		}
	}
}

// blockFailed does the same: which file it hits, only the client knows.
func (d *dataOracle) blockFailed(c *client) { d.uncertain(c) }

func (d *dataOracle) uncertain(c *client) {
	for _, x := range d.all {
		if x.client == c && x.pub == 0 && !(d.w.leases && d.order.all(x)) {
			x.lost, x.unaware = true, false
			x.reported = x.reported || !c.kernel.isOpen(x.ino)
		}
	}
}

// closed notes that no handle is left to report a loss to.
func (d *dataOracle) closed(c *client, ino meta.Ino) {
	for _, x := range d.files[ino] {
		if x.client == c && x.lost {
			x.reported = true
		}
	}
}

func (x *dataWrite) covers(u uint32) bool {
	if x.trunc {
		return u >= x.off
	}
	return x.known && u >= x.off && u < x.off+x.n
}

// visible reports whether a read by c that began at inv had to see x.
func (x *dataWrite) visible(c *client, inv stamp) bool {
	if x.lost || x.resp == 0 {
		return false
	}
	return (x.client == c || x.client.w.leases) && x.resp < inv || x.pub != 0 && x.pub < inv
}

// precedes reports whether x is certainly older than y. nil is the file as it
// was made.
func (x *dataWrite) precedes(y *dataWrite) bool {
	if x == nil {
		return true
	}
	return x.pub != 0 && x.pub < y.inv || (x.client == y.client || x.client.w.leases) && x.resp != 0 && x.resp < y.inv
}

// newer finds a write that the read had to see instead of x.
func (d *dataOracle) newer(x *dataWrite, c *client, ino meta.Ino, inv stamp, u uint32) *dataWrite {
	for _, y := range d.files[ino] {
		if y != x && y.covers(u) && y.visible(c, inv) && x.precedes(y) {
			return y
		}
	}
	return nil
}

// check verifies n units read at off.
func (d *dataOracle) check(c *client, ino meta.Ino, inv stamp, off, n uint32, data []byte) {
	if c.doubtful(d.w.now) {
		return
	}
	if len(data)%unit != 0 || len(data) > int(n*unit) {
		d.w.fail("%s reads %d bytes of inode %d", c.name, len(data), ino)
		return
	}
	for i := range n {
		var err error
		if int(i*unit) >= len(data) {
			err = d.checkZero(c, ino, inv, off+i, "nothing")
		} else {
			err = d.checkUnit(c, ino, inv, off+i, data[i*unit:][:unit])
		}
		if err != nil {
			d.w.fail("%s reads unit %d of inode %d: %v", c.name, off+i, ino, err)
			return
		}
	}
}

// checkSize verifies that a size is not below the end of a write that had to be
// seen and that no truncation may have undone.
func (d *dataOracle) checkSize(c *client, ino meta.Ino, inv stamp, size uint64) {
	if c.doubtful(d.w.now) {
		return
	}
	for _, x := range d.files[ino] {
		if x.trunc || !x.visible(c, inv) || size >= uint64(x.off+x.n)*unit {
			continue
		}
		undone := false
		for _, y := range d.files[ino] {
			undone = undone || y.trunc && !y.precedes(x)
		}
		if !undone {
			d.w.fail("%s sees inode %d with %d bytes, though it wrote unit %d+%d (write %d)", c.name, ino, size, x.off, x.n, x.id)
		}
	}
}

func (d *dataOracle) checkUnit(c *client, ino meta.Ino, inv stamp, u uint32, b []byte) error {
	first := binary.BigEndian.Uint64(b)
	for i := 8; i < unit; i += 8 {
		if binary.BigEndian.Uint64(b[i:]) != first {
			return fmt.Errorf("mixed content %x", b)
		}
	}
	if first == 0 {
		return d.checkZero(c, ino, inv, u, "zeros")
	}
	id, at := first>>16, uint32(first&0xffff)
	if id > uint64(len(d.all)) {
		return fmt.Errorf("content %x that nobody wrote", first)
	}
	x := d.all[id-1]
	if x.ino != ino || x.trunc || at >= x.n || (x.known || !x.appends) && u != x.off+at {
		return fmt.Errorf("unit %d of write %d (inode %d, unit %d+%d)", at, id, x.ino, x.off, x.n)
	}
	if y := d.newer(x, c, ino, inv, u); y != nil {
		return fmt.Errorf("write %d of %s, not write %d of %s (truncate %v) after it, which had to be seen", x.id, x.client.name, y.id, y.client.name, y.trunc)
	}
	return nil
}

// checkZero verifies that a unit may be absent or zero: as the file was made,
// or as a truncation left it.
func (d *dataOracle) checkZero(c *client, ino meta.Ino, inv stamp, u uint32, what string) error {
	y := d.newer(nil, c, ino, inv, u)
	if y == nil {
		return nil
	}
	for _, x := range d.files[ino] {
		if x.trunc && x.covers(u) && d.newer(x, c, ino, inv, u) == nil {
			return nil
		}
	}
	return fmt.Errorf("%s, not write %d of %s (unit %d+%d), which had to be seen", what, y.id, y.client.name, y.off, y.n)
}
