package mountd

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/internal/errs"
)

// Limits of the daemon.
const (
	lockWait   = 5 * time.Second  // for the previous daemon of the directory to let go
	finalFlush = 30 * time.Second // for what was written between flush and unmount
)

type umountArgs struct {
	Mode Mode `json:"mode"`
}

// daemon serves one mount.
//
// Lock order: turn, then mu.
type daemon struct {
	reg Registry
	cfg Config
	fs  Filesystem
	log *log.Logger

	ended    chan struct{} // closed when the filesystem is closed
	detached chan struct{} // receives when a lazy unmount was done
	stopped  error         // result of the end; valid after ended

	turn sync.Mutex // one unmount at a time; held while it flushes

	mu      sync.Mutex // guards the fields below; leaf
	rec     Record
	discard bool // do not flush at the end
	cut     bool // end the connection although files are open
	gone    bool // unmounted on purpose
}

// Serve mounts c with serve and answers the control socket until it is
// unmounted. When ctx ends it stops the mount as in mode Stop. ready is called
// once the mount stands. The directory must exist and be empty.
func Serve(ctx context.Context, r Registry, c Config, serve ServeFunc, ready func()) error {
	lctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	key := Key(c.Dir)
	lock, err := lockfile.Wait(lctx, r.file(key, ".lock"))
	if err != nil {
		return errs.E("mount", errs.Locked, c.Dir+" is served by another process", err)
	}
	defer func() { lock.Close() }() // lock is replaced by a lazy unmount
	fs, err := serve(ctx, c)
	if err != nil {
		return err
	}
	d := &daemon{
		reg: r, cfg: c, fs: fs, log: log.New(c.Log, "mount: ", log.LstdFlags|log.Lmsgprefix),
		ended: make(chan struct{}), detached: make(chan struct{}, 1),
		rec: Record{
			Version: recordVersion, Drive: c.Drive, Path: c.Path, Dir: c.Dir, ReadOnly: c.ReadOnly,
			AllowOther: c.AllowOther, Pid: os.Getpid(), Started: time.Now().UTC().Truncate(time.Second),
		},
	}
	control, err := d.appear(key)
	if err != nil {
		// Nobody has used the mount yet: nothing is lost.
		_ = unmount(c.Dir, unix.MNT_DETACH)
		_ = fs.Close()
		return err
	}
	go d.finish()
	ready()
	for done := ctx.Done(); ; {
		select {
		case <-done:
			done = nil
			go d.stop()
			continue
		case <-d.detached:
			if lock, control, key, err = d.moveAside(lock, control, key); err != nil {
				d.log.Print(err)
			}
			continue
		case <-d.ended:
		}
		break
	}
	control.Close()
	if err := r.remove(key); err != nil {
		d.log.Print(err)
	}
	return d.stopped
}

// appear writes the record and opens the control socket of key.
func (d *daemon) appear(key string) (*ctl.Server, error) {
	control, err := ctl.Listen(d.reg.file(key, ".sock"), d.handle)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	rec := d.rec
	d.mu.Unlock()
	if err := d.reg.store(key, rec); err != nil {
		control.Close()
		return nil, err
	}
	return control, nil
}

// moveAside goes on under another key, so that the directory is free for a
// new mount. On failure the old key stays in use.
func (d *daemon) moveAside(lock *lockfile.Lock, control *ctl.Server, key string) (*lockfile.Lock, *ctl.Server, string, error) {
	aside := fmt.Sprintf("%s-%d", key, os.Getpid())
	newLock, err := lockfile.Try(d.reg.file(aside, ".lock"))
	if err != nil {
		return lock, control, key, err
	}
	newControl, err := d.appear(aside)
	if err != nil {
		newLock.Close()
		return lock, control, key, err
	}
	control.Close()
	err = d.reg.remove(key)
	lock.Close()
	return newLock, newControl, aside, err
}

// finish waits for the end of the connection and closes the filesystem.
func (d *daemon) finish() {
	err := d.fs.Wait()
	d.mu.Lock()
	gone, discard, cut := d.gone, d.discard, d.cut
	d.mu.Unlock()
	if !discard && !cut { // those have flushed, or shall not
		ctx, cancel := context.WithTimeout(context.Background(), finalFlush)
		if ferr := d.fs.Flush(ctx); ferr != nil {
			h := d.fs.Health()
			d.stopped = errs.E("mount", errs.Other, fmt.Sprintf("%d bytes of %d files are lost", h.DirtyBytes, h.DirtyFiles), ferr)
		}
		cancel()
	}
	if !gone {
		d.takeAway()
	}
	if cerr := d.fs.Close(); cerr != nil && !cut && !discard && d.stopped == nil {
		d.stopped = cerr
	}
	if err != nil && !gone && d.stopped == nil {
		d.stopped = errs.E("mount", errs.Other, "the connection to the kernel broke", err)
	}
	close(d.ended)
}

// takeAway removes a mount whose connection was cut by somebody else: without
// a daemon it would answer ENOTCONN only. Holding the directory's lock, we know
// that a mount of ours there is this one.
func (d *daemon) takeAway() {
	ours, err := mountedHere(d.cfg.Dir)
	if err == nil && ours {
		err = unmount(d.cfg.Dir, unix.MNT_DETACH)
	}
	if err != nil && !errs.Is(err, errs.NotExist) {
		d.log.Print(err)
	}
}

// stop is mode Stop on behalf of a signal.
func (d *daemon) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), finalFlush)
	defer cancel()
	if _, err := d.umount(ctx, Stop); err != nil {
		d.log.Printf("cannot stop: %v", err)
	}
}

func (d *daemon) handle(ctx context.Context, op string, args json.RawMessage) (any, error) {
	switch op {
	case "status":
		return d.status(), nil
	case "flush":
		return nil, d.fs.Flush(ctx)
	case "sync":
		return nil, d.fs.Sync(ctx)
	case "stats":
		return metrics(d.fs.Stats()), nil
	case "umount":
		var a umountArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return nil, errs.E("mount", errs.Invalid, "umount", err)
		}
		return d.umount(ctx, a.Mode)
	}
	return nil, errs.E("mount", errs.Unsupported, "control operation "+op, nil)
}

func (d *daemon) status() Status {
	st := Status{Health: d.fs.Health()}
	d.mu.Lock()
	st.Record = d.rec
	d.mu.Unlock()
	if st.Detached {
		st.State = StateDetached
	}
	return st
}

func (d *daemon) umount(ctx context.Context, mode Mode) (Outcome, error) {
	d.turn.Lock()
	defer d.turn.Unlock()
	d.mu.Lock()
	detached := d.rec.Detached
	d.mu.Unlock()
	var out Outcome
	var err error
	switch {
	case mode != Plain && mode != Lazy && mode != Force && mode != Stop:
		return out, errs.E("umount", errs.Invalid, "mode "+string(mode), nil)
	case mode == Force:
		err = d.force(&out, detached)
	default:
		if err := d.fs.Flush(ctx); err != nil {
			return out, err
		}
		if detached {
			err = d.endDetached(mode)
		} else {
			err = d.plain(&out, mode)
		}
	}
	if err != nil || out.Detached {
		return out, err
	}
	select {
	case <-d.ended:
		return out, d.stopped
	case <-ctx.Done():
		select {
		case <-d.ended: // ctx ended because the daemon does
			return out, d.stopped
		default:
		}
		return out, errs.E("umount", errs.Timeout, "waiting for the last requests", ctx.Err())
	}
}

// plain unmounts a flushed mount; if it is busy, the mode decides.
func (d *daemon) plain(out *Outcome, mode Mode) error {
	d.set(func() { d.gone = true })
	err := unmount(d.cfg.Dir, 0)
	if err == nil || errs.Is(err, errs.NotExist) {
		return nil // NotExist: somebody was faster, Wait returns
	}
	d.set(func() { d.gone = false })
	if !errs.Is(err, errs.Busy) {
		return err
	}
	out.Users = users(d.cfg.Dir)
	if mode == Plain {
		return busy(d.cfg.Dir, out.Users)
	}
	d.set(func() { d.gone = true; d.rec.Detached = mode == Lazy })
	if err := unmount(d.cfg.Dir, unix.MNT_DETACH); err != nil {
		d.set(func() { d.gone = false; d.rec.Detached = false })
		return err
	}
	if mode == Lazy {
		out.Detached = true
		d.detached <- struct{}{}
		return nil
	}
	return d.cutOff()
}

// force throws buffered data away and unmounts whoever is inside.
func (d *daemon) force(out *Outcome, detached bool) error {
	h := d.fs.Health()
	out.DiscardedBytes, out.DiscardedFiles = h.DirtyBytes, h.DirtyFiles
	d.set(func() { d.gone, d.discard = true, true })
	if !detached {
		out.Users = users(d.cfg.Dir)
		if err := unmount(d.cfg.Dir, unix.MNT_DETACH); err != nil && !errs.Is(err, errs.NotExist) {
			d.set(func() { d.gone, d.discard = false, false })
			return err
		}
	}
	return d.cutOff()
}

// endDetached ends a mount that is detached already.
func (d *daemon) endDetached(mode Mode) error {
	if mode != Stop {
		return errs.E("umount", errs.Busy, "detached, and files are still open", nil)
	}
	return d.cutOff()
}

// cutOff ends the connection below the open files.
func (d *daemon) cutOff() error {
	d.set(func() { d.cut = true })
	return d.fs.Close()
}

func (d *daemon) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}
