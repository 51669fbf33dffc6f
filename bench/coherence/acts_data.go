package coherence

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	textPart = "text"
	logPart  = "log"
	textSize = 64 // the text never grows beyond it
	logBytes = 1 << 16
)

// registers are the places of the registers in file r, on two pages.
var registers = []int64{0, 8, 4096 + 64}

const regFileSize = 8192

// descriptor opens a file of the arena at its first use.
func (w *worker) descriptor(fd *int, file string, flags int) int {
	if *fd < 0 {
		err := w.call("open "+file, func() (err error) {
			*fd, err = unix.Open(w.path(file), flags|unix.O_CLOEXEC, 0)
			return err
		}, noError)
		if err != nil {
			*fd = -1
		}
	}
	return *fd
}

// noError is tells for a call that must succeed, and tells nothing.
func noError(err error) ([]Fact, error) {
	if err != nil {
		return unexpected(err)
	}
	return nil, nil
}

// fresh is a value nobody else writes in this arena.
func (w *worker) fresh() uint64 {
	w.serial++
	return uint64(w.Worker+1)<<32 | uint64(w.serial)
}

func (w *worker) regPart(i int) string { return fmt.Sprintf("reg/%d", i) }

// regFile gives a descriptor for one call: the one kept open, or a new one;
// done closes it.
func (w *worker) once(kept *int, file string, flags int) (fd int, done func()) {
	if w.chance(70) {
		return w.descriptor(kept, file, flags), func() {}
	}
	fd = -1
	return w.descriptor(&fd, file, flags), func() {
		if fd >= 0 {
			w.call("close "+file, func() error { return unix.Close(fd) }, noError)
		}
	}
}

func (w *worker) regWrite() {
	i, v := w.rng.IntN(len(registers)), w.fresh()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	fd, done := w.once(&w.reg, "r", unix.O_RDWR)
	defer done()
	var n int
	w.call(fmt.Sprintf("pwrite r[%d] %#x", i, v), func() (err error) {
		n, err = unix.Pwrite(fd, b[:], registers[i])
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil || n != len(b) {
			return nil, fmt.Errorf("wrote %d bytes, %w", n, err)
		}
		return []Fact{{Part: w.regPart(i), Kind: "write", N: v}, {Part: "time/r", Kind: "change"}}, nil
	})
}

func (w *worker) regRead() {
	i := w.rng.IntN(len(registers))
	fd, done := w.once(&w.reg, "r", unix.O_RDWR)
	defer done()
	var b [8]byte
	var n int
	w.call(fmt.Sprintf("pread r[%d]", i), func() (err error) {
		n, err = unix.Pread(fd, b[:], registers[i])
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil || n != len(b) {
			return nil, fmt.Errorf("read %d bytes, %w", n, err)
		}
		return []Fact{{Part: w.regPart(i), Kind: "read", N: binary.LittleEndian.Uint64(b[:])}}, nil
	})
	w.note(" = %#x", binary.LittleEndian.Uint64(b[:]))
}

// regMapped reads a register through a mapping made once in the arena.
func (w *worker) regMapped() {
	if w.page == nil {
		fd := w.descriptor(&w.reg, "r", unix.O_RDWR)
		err := w.call("mmap r", func() (err error) {
			w.page, err = unix.Mmap(fd, 0, regFileSize, unix.PROT_READ, unix.MAP_SHARED)
			return err
		}, noError)
		if err != nil {
			return
		}
	}
	i := w.rng.IntN(len(registers))
	var v uint64
	w.call(fmt.Sprintf("load r[%d]", i), func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
			}
		}()
		v = atomic.LoadUint64((*uint64)(unsafe.Pointer(&w.page[registers[i]])))
		return nil
	}, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: w.regPart(i), Kind: "read", N: v}}, nil
	})
	w.note(" = %#x", v)
}

func (w *worker) regStat() { w.statTime("r") }

func (w *worker) textWrite() {
	off := w.rng.IntN(textSize - 16)
	data := strings.Repeat(string(rune('a'+w.Worker)), 1+w.rng.IntN(11)) + fmt.Sprintf("%02d", w.fresh()%100)
	fd, done := w.once(&w.textFile, "s", unix.O_RDWR)
	defer done()
	var n int
	w.call(fmt.Sprintf("pwrite s %d %q", off, data), func() (err error) {
		n, err = unix.Pwrite(fd, []byte(data), int64(off))
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil || n != len(data) {
			return nil, fmt.Errorf("wrote %d bytes, %w", n, err)
		}
		return []Fact{{Part: textPart, Kind: "pwrite", A: off, S: data}, {Part: "time/s", Kind: "change"}}, nil
	})
}

// textTruncate cuts or extends, by path or by descriptor.
func (w *worker) textTruncate() {
	size := w.rng.IntN(textSize)
	if w.chance(50) {
		w.truncate(fmt.Sprintf("truncate s %d", size), size, func() error { return unix.Truncate(w.path("s"), int64(size)) })
		return
	}
	fd := w.descriptor(&w.textFile, "s", unix.O_RDWR)
	w.truncate(fmt.Sprintf("ftruncate s %d", size), size, func() error { return unix.Ftruncate(fd, int64(size)) })
}

func (w *worker) truncate(text string, size int, do func() error) {
	w.call(text, do, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: textPart, Kind: "trunc", A: size}}, nil
	})
}

func (w *worker) textRead() {
	fd, done := w.once(&w.textFile, "s", unix.O_RDWR)
	defer done()
	buf := make([]byte, 2*textSize)
	var n int
	w.call("pread s", func() (err error) {
		n, err = unix.Pread(fd, buf, 0)
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: textPart, Kind: "size", A: n}, {Part: textPart, Kind: "bytes", S: string(buf[:n])}}, nil
	})
	w.note(" = %q", buf[:max(n, 0)])
}

func (w *worker) textStat() { w.statTime("s") }

const appendFlags = unix.O_RDWR | unix.O_APPEND

func (w *worker) logAppend() {
	rec := fmt.Sprintf("%c%06d\n", 'a'+w.Worker, w.fresh()%1e6)
	fd, done := w.once(&w.logFile, "l", appendFlags)
	defer done()
	var n int
	w.call(fmt.Sprintf("append %q", rec), func() (err error) {
		n, err = unix.Write(fd, []byte(rec))
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil || n != len(rec) {
			return nil, fmt.Errorf("wrote %d bytes, %w", n, err)
		}
		return []Fact{{Part: logPart, Kind: "append", S: rec}, {Part: "time/l", Kind: "change"}}, nil
	})
}

func (w *worker) logRead() {
	fd, done := w.once(&w.logFile, "l", appendFlags)
	defer done()
	buf := make([]byte, logBytes)
	var n int
	w.call("read log", func() (err error) {
		n, err = unix.Pread(fd, buf, 0)
		return err
	}, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: logPart, Kind: "read", S: string(buf[:n])}}, nil
	})
	w.note(" = %d bytes, the last %q", n, buf[max(0, n-8):max(0, n)])
}

func (w *worker) logStat() { w.statTime("l") }
