package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
)

// Umount ends the mount on dir (see Canonical) in the given mode. errs.Busy:
// files are open; errs.NotExist: nothing of ours is mounted there.
func (r Registry) Umount(ctx context.Context, dir string, mode Mode) (Outcome, error) {
	key := Key(dir)
	live, err := r.alive(key)
	if err != nil {
		return Outcome{}, err
	}
	if live {
		return r.tell(ctx, key, mode)
	}
	start, err := lockfile.Wait(ctx, r.file(key, ".start"))
	if err != nil {
		return Outcome{}, err
	}
	defer start.Close()
	ours, err := mountedHere(dir)
	if err != nil {
		return Outcome{}, err
	}
	if !ours {
		if err := r.remove(key); err != nil {
			return Outcome{}, err
		}
		return Outcome{}, notMounted(dir)
	}
	if _, err := r.load(key); errs.Is(err, errs.NotExist) && mode != Force {
		return Outcome{}, errs.E("umount", errs.NotExist, dir+" is not a mount of this data directory", nil).
			WithHint("name the data directory it was mounted with: --data; or --force to take the mount away")
	}
	return r.bury(dir, mode)
}

func notMounted(dir string) error {
	e := errs.E("umount", errs.NotExist, "nothing is mounted on "+dir, nil)
	if m, ok, err := procfs.MountAt(dir); err == nil && ok {
		return errs.E("umount", errs.NotExist, fmt.Sprintf("%s is a mount of type %s, not of Agent Drive", dir, m.Type), nil)
	}
	return e.WithHint("`agentdrive status` lists the mounts")
}

// tell asks the daemon of key to end.
func (r Registry) tell(ctx context.Context, key string, mode Mode) (Outcome, error) {
	var out Outcome
	err := ctl.Call(ctx, r.file(key, ".sock"), "umount", umountArgs{Mode: mode}, &out)
	switch {
	case errs.Is(err, errs.Timeout):
		err = errs.E("umount", errs.Timeout, "buffered writes could not be brought to the servers in time", err).
			WithHint("see `agentdrive status`; when the servers are back try again, or give up those writes with --force")
	case errs.Is(err, errs.Unavailable):
		// It went away while we asked. An orderly end took its record along.
		l, lerr := lockfile.Wait(ctx, r.file(key, ".lock"))
		if lerr != nil {
			return out, lerr
		}
		defer l.Close()
		if _, rerr := r.load(key); errs.Is(rerr, errs.NotExist) {
			err = nil
		}
	case err == nil && !out.Detached:
		// The daemon removes its record and ends; its lock says when.
		l, lerr := lockfile.Wait(ctx, r.file(key, ".lock"))
		if lerr != nil {
			return out, lerr
		}
		err = l.Close()
	}
	return out, err
}

// bury unmounts what a dead daemon left.
func (r Registry) bury(dir string, mode Mode) (Outcome, error) {
	out := Outcome{Dead: true}
	err := unmount(dir, 0)
	if errs.Is(err, errs.Busy) {
		out.Users = users(dir)
		if mode == Plain {
			return out, busy(dir, out.Users)
		}
		err = unmount(dir, unix.MNT_DETACH)
	}
	if err != nil {
		return out, err
	}
	return out, r.remove(Key(dir))
}

// StopAll ends every mount of the registry in mode Stop (or Force), dead ones
// and detached ones included, and reports each. It goes on after a failure
// and returns the first.
func (r Registry) StopAll(ctx context.Context, mode Mode) (map[string]Outcome, error) {
	done := map[string]Outcome{}
	keys, err := r.keys()
	if err != nil {
		return done, err
	}
	for _, key := range keys {
		rec, rerr := r.load(key)
		if rerr != nil {
			if !errs.Is(rerr, errs.NotExist) && err == nil {
				err = rerr
			}
			continue
		}
		var out Outcome
		var uerr error
		if live, lerr := r.alive(key); lerr != nil {
			uerr = lerr
		} else if live {
			out, uerr = r.tell(ctx, key, mode)
		} else if rec.Detached {
			uerr = r.remove(key)
		} else {
			out, uerr = r.Umount(ctx, rec.Dir, mode)
		}
		if uerr != nil && !errs.Is(uerr, errs.NotExist) {
			if err == nil {
				err = uerr
			}
			continue
		}
		done[rec.Dir] = out
	}
	return done, err
}

// unmount is umount2(2), or fusermount3 for users who may not call it.
func unmount(dir string, flags int) error {
	err := unix.Unmount(dir, flags)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return fusermount(dir, flags)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return errs.E("umount", errs.Busy, dir, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return errs.E("umount", errs.NotExist, dir+" is not mounted", err)
	case errors.Is(err, unix.EPERM):
		return errs.E("umount", errs.Permission, dir, err)
	}
	return errs.E("umount", errs.IO, dir, err)
}

func fusermount(dir string, flags int) error {
	args := []string{"-u"}
	if flags != 0 {
		args = append(args, "-z")
	}
	text, err := exec.Command("fusermount3", append(args, "--", dir)...).CombinedOutput()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return errs.E("umount", errs.Unsupported, "fusermount3 is missing", err).WithHint("install the package fuse3, or run as root")
	}
	if still, merr := mountedHere(dir); merr == nil && still {
		return errs.E("umount", errs.Busy, strings.TrimSpace(string(text)), err)
	}
	return errs.E("umount", errs.IO, strings.TrimSpace(string(text)), err)
}

func users(dir string) []string {
	var out []string
	for _, u := range procfs.Users(dir) {
		out = append(out, u.String())
	}
	return out
}

// maxNamed bounds how many processes an error names.
const maxNamed = 8

func busy(dir string, users []string) error {
	msg := dir + " is in use"
	if len(users) > 0 {
		msg += " by " + strings.Join(users[:min(len(users), maxNamed)], ", ")
		if len(users) > maxNamed {
			msg += fmt.Sprintf(" and %d more", len(users)-maxNamed)
		}
	}
	return errs.E("umount", errs.Busy, msg, nil).
		WithHint("close those files and leave the directory, or detach it with --lazy")
}
