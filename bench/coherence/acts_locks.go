package coherence

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockState is what a worker holds: one lock at most, so that waiting for one
// is never waiting for oneself.
type lockState struct {
	flock, record int // descriptors of the files k and q, -1: not open
	part          string
	let           func() error // gives the lock back; nil: none is held
}

// ranges of file q that are locked, as one lock each.
const ranges = 2

// lockFile takes a flock, waiting or not. It is given back by unlocking only:
// the kernel does not wait for the RELEASE by which a close gives it back.
func (w *worker) lockFile() {
	if w.locks.let != nil {
		return
	}
	fd := w.descriptor(&w.locks.flock, "k", unix.O_RDWR)
	mode, how, text := exclusive, unix.LOCK_EX, "flock EX"
	if w.chance(40) {
		mode, how, text = shared, unix.LOCK_SH, "flock SH"
	}
	if w.chance(70) {
		how, text = how|unix.LOCK_NB, text+" NB"
	}
	w.take("lock/flock", text, mode, func() error { return retry(func() error { return unix.Flock(fd, how) }) }, func() error {
		return retry(func() error { return unix.Flock(fd, unix.LOCK_UN) })
	})
}

// lockRange takes a record lock, waiting or not.
func (w *worker) lockRange() {
	if w.locks.let != nil {
		return
	}
	fd := w.descriptor(&w.locks.record, "q", unix.O_RDWR)
	r, mode := w.rng.IntN(ranges), exclusive
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(10 * r), Len: 10}
	if w.chance(40) {
		mode, l.Type = shared, unix.F_RDLCK
	}
	cmd, text := unix.F_SETLK, "F_SETLK"
	if w.chance(30) {
		cmd, text = unix.F_SETLKW, "F_SETLKW"
	}
	w.take(fmt.Sprintf("lock/range%d", r), fmt.Sprintf("%s range %d mode %d", text, r, mode), mode, func() error {
		return retry(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &l) })
	}, func() error {
		if w.chance(30) {
			w.locks.record = -1
			return unix.Close(fd)
		}
		free := unix.Flock_t{Type: unix.F_UNLCK, Start: l.Start, Len: l.Len}
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &free)
	})
}

// take makes the call that locks; let gives the lock back later.
func (w *worker) take(part, text string, mode int, do, let func() error) {
	err := w.call(text, do, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: part, Kind: "lock", A: w.Worker, B: mode}}, nil
		case unix.EAGAIN, unix.EACCES:
			return []Fact{{Part: part, Kind: "busy", A: w.Worker, B: mode}}, nil
		}
		return unexpected(err)
	})
	if err == nil {
		w.locks.part, w.locks.let = part, let
	}
}

// release gives back the lock that is held, by unlocking or by closing.
func (w *worker) release() {
	let := w.locks.let
	if let == nil {
		return
	}
	w.locks.let = nil
	w.call("release "+w.locks.part, let, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: w.locks.part, Kind: "unlock", A: w.Worker}}, nil
	})
}

// askRange asks for the lock that stands in the way.
func (w *worker) askRange() {
	fd := w.descriptor(&w.locks.record, "q", unix.O_RDWR)
	r := w.rng.IntN(ranges)
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(10 * r), Len: 10}
	err := w.call(fmt.Sprintf("F_GETLK range %d", r), func() error {
		return retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &l) })
	}, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		kind := "busy"
		if l.Type == unix.F_UNLCK {
			kind = "free"
		}
		return []Fact{{Part: fmt.Sprintf("lock/range%d", r), Kind: kind, A: w.Worker, B: exclusive}}, nil
	})
	if err == nil {
		w.note(" = type %d pid %d", l.Type, l.Pid)
	}
}
