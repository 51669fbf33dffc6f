package mountd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
)

const recordVersion = 1

// statusTimeout bounds how long a daemon may take to describe itself.
const statusTimeout = 2 * time.Second

// Registry is the directory of this host's mounts.
type Registry string

func (r Registry) file(key, suffix string) string { return filepath.Join(string(r), key+suffix) }

// Key is the name of a mount point in the registry.
func Key(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:8])
}

// Canonical makes dir absolute and free of symlinks without asking the
// filesystem mounted there, which may be dead, or waiting for its servers.
func Canonical(dir string) (string, error) { return canonical(dir, 0) }

// maxSymlinks is the kernel's limit of symlinks in one resolution.
const maxSymlinks = 40

func canonical(dir string, depth int) (string, error) {
	if depth > maxSymlinks {
		return "", errs.E("mount", errs.Loop, dir, nil)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", errs.E("mount", errs.Invalid, dir, err)
	}
	if _, ok, err := procfs.MountAt(abs); ok || err != nil {
		return abs, err
	}
	parent, missing := filepath.Dir(abs), filepath.Base(abs)
	for {
		real, err := filepath.EvalSymlinks(parent)
		if err == nil {
			abs = filepath.Join(real, missing)
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", errs.E("mount", errs.Invalid, dir, err)
		}
		parent, missing = filepath.Dir(parent), filepath.Join(filepath.Base(parent), missing)
	}
	// readlink(2) on a mounted directory answers EINVAL without an upcall.
	if target, err := os.Readlink(abs); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(abs), target)
		}
		return canonical(target, depth+1)
	}
	return abs, nil
}

// load reads the record of key. errs.NotExist: there is none.
func (r Registry) load(key string) (Record, error) {
	var rec Record
	path := r.file(key, ".json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return rec, errs.E("mount.registry", errs.NotExist, path, nil)
	}
	if err != nil {
		return rec, errs.E("mount.registry", errs.IO, "", err)
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		return rec, errs.E("mount.registry", errs.Corrupt, path, err)
	}
	if rec.Version > recordVersion {
		return rec, errs.E("mount.registry", errs.Version, fmt.Sprintf("%s has version %d, this program knows up to %d", path, rec.Version, recordVersion), nil)
	}
	if rec.Version < 1 || rec.Dir == "" {
		return rec, errs.E("mount.registry", errs.Corrupt, path+" is incomplete", nil)
	}
	return rec, nil
}

func (r Registry) store(key string, rec Record) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return errs.E("mount.registry", errs.Other, "", err)
	}
	return cluster.WriteFile(r.file(key, ".json"), append(b, '\n'))
}

func (r Registry) remove(key string) error {
	for _, suffix := range []string{".json", ".sock"} {
		if err := os.Remove(r.file(key, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errs.E("mount.registry", errs.IO, "", err)
		}
	}
	return nil
}

// alive tells whether the daemon of key lives.
func (r Registry) alive(key string) (bool, error) {
	_, held, err := lockfile.Held(r.file(key, ".lock"))
	return held, err
}

// status describes the mount of key. A daemon that lives but does not answer
// in time is waiting.
func (r Registry) status(ctx context.Context, key string) (Status, error) {
	rec, err := r.load(key)
	if err != nil {
		return Status{}, err
	}
	st := Status{Record: rec, Health: Health{State: StateDead}}
	live, err := r.alive(key)
	if err != nil || !live {
		return st, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var now Status
	if err := ctl.Call(ctx, r.file(key, ".sock"), "status", nil, &now); err != nil {
		st.State, st.Why = StateWaiting, err.Error()
		return st, nil
	}
	return now, nil
}

func (r Registry) keys() ([]string, error) {
	paths, err := filepath.Glob(r.file("*", ".json"))
	if err != nil {
		return nil, errs.E("mount.registry", errs.IO, "", err)
	}
	var keys []string
	for _, p := range paths {
		if name := filepath.Base(p); !strings.HasPrefix(name, ".") { // not a temporary
			keys = append(keys, strings.TrimSuffix(name, ".json"))
		}
	}
	return keys, nil
}

// List describes all mounts, ordered by directory. Dead mounts whose
// directory is no longer mounted are left out.
func (r Registry) List(ctx context.Context) ([]Status, error) {
	keys, err := r.keys()
	if err != nil {
		return nil, err
	}
	out := []Status{}
	for _, key := range keys {
		st, err := r.status(ctx, key)
		if errs.Is(err, errs.NotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if st.State == StateDead {
			if ours, err := mountedHere(st.Dir); err != nil {
				return nil, err
			} else if !ours {
				continue
			}
		}
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Dir < out[j].Dir })
	return out, nil
}

// mountedHere tells whether the topmost mount on dir is one of ours.
func mountedHere(dir string) (bool, error) {
	m, ok, err := procfs.MountAt(dir)
	return ok && m.Type == FSType, err
}
