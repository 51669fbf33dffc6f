package mountd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/background"
	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
)

// Started tells what Start found or did.
type Started struct {
	Status
	Already bool   // it was mounted before, in the same way
	Buried  bool   // the mount of a dead daemon was taken away first
	Log     string // where the daemon writes
}

// Start mounts c by a daemon, started as s, and returns once it stands. It is
// idempotent: errs.Busy only if something else is mounted there.
// errs.NotEmpty: the directory holds files.
func (r Registry) Start(ctx context.Context, c Config, s background.Spec) (Started, error) {
	out := Started{Log: s.Log}
	start, err := lockfile.Wait(ctx, r.file(Key(c.Dir), ".start"))
	if err != nil {
		return out, err
	}
	defer start.Close()
	created, err := r.claim(ctx, c, &out)
	if err != nil || out.Already {
		return out, err
	}
	if _, err = background.Start(ctx, s); err == nil {
		out.Status, err = r.status(ctx, Key(c.Dir))
	}
	if err != nil && created {
		_ = os.Remove(c.Dir) // leave no trace; not empty means that it is in use
	}
	return out, err
}

// Prepare is what Start does before the daemon starts, for a mount served by
// this process. already: the same mount stands.
func (r Registry) Prepare(ctx context.Context, c Config) (already bool, err error) {
	start, err := lockfile.Wait(ctx, r.file(Key(c.Dir), ".start"))
	if err != nil {
		return false, err
	}
	defer start.Close()
	var out Started
	_, err = r.claim(ctx, c, &out)
	return out.Already, err
}

// claim makes c.Dir an empty, unmounted directory, or finds the same mount
// there.
func (r Registry) claim(ctx context.Context, c Config, out *Started) (created bool, err error) {
	m, mounted, err := procfs.MountAt(c.Dir)
	if err != nil {
		return false, err
	}
	if mounted {
		if m.Type != FSType {
			return false, errs.E("mount", errs.Busy, fmt.Sprintf("%s is the mount point of a %s filesystem", c.Dir, m.Type), nil).
				WithHint("choose another directory")
		}
		done, err := r.inspect(ctx, c, out)
		if done || err != nil {
			return false, err
		}
	}
	return prepareDir(c.Dir)
}

// inspect looks at one of our mounts on c.Dir. done: it is the one wanted.
// Otherwise it was a dead one, and has been taken away.
func (r Registry) inspect(ctx context.Context, c Config, out *Started) (done bool, err error) {
	key := Key(c.Dir)
	st, err := r.status(ctx, key)
	if errs.Is(err, errs.NotExist) {
		return false, errs.E("mount", errs.Busy, c.Dir+" is a mount of another data directory", nil).
			WithHint("unmount it with the --data it was mounted with, or choose another directory")
	}
	if err != nil {
		return false, err
	}
	if st.State == StateDead {
		// Its daemon has ended: whatever it had not flushed is gone already.
		if err := unmount(c.Dir, unix.MNT_DETACH); err != nil {
			return false, err
		}
		out.Buried = true
		return false, r.remove(key)
	}
	if st.Drive != c.Drive || st.Path != c.Path || st.ReadOnly != c.ReadOnly || st.AllowOther != c.AllowOther {
		return false, errs.E("mount", errs.Busy, fmt.Sprintf("%s already shows %s", c.Dir, describe(st.Drive, st.Path, st.ReadOnly, st.AllowOther)), nil).
			WithHint("unmount it first with `agentdrive umount`, or choose another directory")
	}
	out.Status, out.Already = st, true
	return true, nil
}

func describe(drive, path string, readOnly, allowOther bool) string {
	s := fmt.Sprintf("drive %s, path %s, read-write", drive, path)
	if readOnly {
		s = fmt.Sprintf("drive %s, path %s, read-only", drive, path)
	}
	if allowOther {
		s += ", for all users"
	}
	return s
}

// prepareDir creates dir or checks that it is an empty directory.
func prepareDir(dir string) (created bool, err error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return false, errs.E("mount", errs.IO, "", err)
		}
		err := os.Mkdir(dir, 0o755)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return false, errs.E("mount", errs.IO, "", err)
		}
		return err == nil, nil
	}
	if err != nil {
		return false, errs.E("mount", errs.IO, "", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, errs.E("mount", errs.IO, "", err)
	}
	if !info.IsDir() {
		return false, errs.E("mount", errs.NotDir, dir, nil)
	}
	switch names, err := f.Readdirnames(1); {
	case len(names) > 0:
		return false, errs.E("mount", errs.NotEmpty, dir+" is not empty", nil).
			WithHint("a mount would hide its files; choose an empty or new directory")
	case err != nil && !errors.Is(err, io.EOF):
		return false, errs.E("mount", errs.IO, "", err)
	}
	return false, nil
}

// Sync makes everything written so far on the mount that holds dir durable.
func (r Registry) Sync(ctx context.Context, dir string) error {
	return r.call(ctx, dir, "sync", nil)
}

// Stats asks the daemon of the mount that holds dir for its numbers.
func (r Registry) Stats(ctx context.Context, dir string) ([]Metric, error) {
	var list []Metric
	err := r.call(ctx, dir, "stats", &list)
	return list, err
}

func (r Registry) call(ctx context.Context, dir, op string, reply any) error {
	for at := dir; ; at = filepath.Dir(at) {
		live, err := r.alive(Key(at))
		if err != nil {
			return err
		}
		if live {
			return ctl.Call(ctx, r.file(Key(at), ".sock"), op, nil, reply)
		}
		if at == filepath.Dir(at) {
			return notMounted(dir)
		}
	}
}
