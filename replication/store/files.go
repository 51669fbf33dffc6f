package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"agentdrive/internal/errs"
)

const (
	lockName    = "LOCK"
	currentName = "CURRENT"

	currentVersion = 1
	currentLen     = 1 + 8 + 4 // version, generation, CRC32C of both
)

// lockDir takes the flock on dir/LOCK and writes our pid into it.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, errs.E(opOpen, errs.IO, "lock", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := make([]byte, 20)
		n, rerr := f.ReadAt(holder, 0)
		msg := dir + " is in use"
		if pid := strings.TrimSpace(string(holder[:n])); pid != "" && (rerr == nil || n > 0) {
			msg += " by process " + pid
		}
		return nil, closing(errs.E(opOpen, errs.Locked, msg, nil).
			WithHint("stop the other process, or give this server a data directory of its own"), f)
	}
	if err != nil {
		return nil, closing(errs.E(opOpen, errs.IO, "lock "+name, err), f)
	}
	if err := f.Truncate(0); err != nil {
		return nil, closing(errs.E(opOpen, errs.IO, "lock "+name, err), f)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, closing(errs.E(opOpen, errs.IO, "lock "+name, err), f)
	}
	return f, nil
}

// unlockDir gives the lock back. A child process that is just being started
// shares the open file for a moment, so closing alone would not end the lock.
func unlockDir(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// readCurrent returns the live generation, 0 if the store is new.
func readCurrent(dir string) (uint64, error) {
	name := filepath.Join(dir, currentName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, noGenerations(dir)
	}
	if err != nil {
		return 0, errs.E(opOpen, errs.IO, "", err)
	}
	return parseCurrent(name, b)
}

func parseCurrent(name string, b []byte) (uint64, error) {
	if len(b) > 0 && b[0] > currentVersion {
		return 0, errs.E(opOpen, errs.Version, fmt.Sprintf("%s has version %d, this program knows %d", name, b[0], currentVersion), nil).
			WithHint("upgrade this program to the version that wrote the store")
	}
	if len(b) != currentLen || b[0] != currentVersion || crc32.Checksum(b[:9], castagnoli) != binary.BigEndian.Uint32(b[9:]) {
		return 0, errs.E(opOpen, errs.Corrupt, name+": checksum or length differs at byte 0", nil).WithHint(HintRebuild)
	}
	num := binary.BigEndian.Uint64(b[1:])
	if num == 0 {
		return 0, errs.E(opOpen, errs.Corrupt, name+": generation 0", nil).WithHint(HintRebuild)
	}
	return num, nil
}

// noGenerations refuses a directory that has data but no CURRENT: starting
// empty would lose it.
func noGenerations(dir string) error {
	found, err := generations(dir)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return errs.E(opOpen, errs.Corrupt, fmt.Sprintf("%s has %d generations but no %s", dir, len(found), currentName), nil).
			WithHint(HintRebuild)
	}
	return nil
}

// writeCurrent switches atomically and durably to generation num.
func writeCurrent(dir string, num uint64) error {
	b := make([]byte, currentLen)
	b[0] = currentVersion
	binary.BigEndian.PutUint64(b[1:], num)
	binary.BigEndian.PutUint32(b[9:], crc32.Checksum(b[:9], castagnoli))
	return WriteFileAtomic(filepath.Join(dir, currentName), b)
}

// WriteFileAtomic replaces the file name by content, durably: after a crash
// it has the old content or the new. The temporary file is name + ".tmp".
func WriteFileAtomic(name string, content []byte) error {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return errs.E("store.write", errs.IO, "", err)
	}
	if _, err := f.Write(content); err != nil {
		return closing(errs.E("store.write", errs.IO, "", err), f)
	}
	if err := f.Sync(); err != nil {
		return closing(errs.E("store.write", errs.IO, "", err), f)
	}
	if err := f.Close(); err != nil {
		return errs.E("store.write", errs.IO, "", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return errs.E("store.write", errs.IO, "", err)
	}
	return syncDir(filepath.Dir(name))
}

// generations lists the numbers of all db-N directories.
func generations(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errs.E(opOpen, errs.IO, "", err)
	}
	var found []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "db-")
		if !ok || !e.IsDir() {
			continue
		}
		if num, err := strconv.ParseUint(digits, 10, 64); err == nil {
			found = append(found, num)
		}
	}
	return found, nil
}

// removeOthers deletes what a crash during Restore left: generations that
// CURRENT does not name.
func removeOthers(o Options, current uint64) error {
	found, err := generations(o.Dir)
	if err != nil {
		return err
	}
	for _, num := range found {
		if num == current {
			continue
		}
		o.Log.Info("removing left-over generation of the store", "dir", o.Dir, "generation", num)
		if err := os.RemoveAll(generationDir(o.Dir, num)); err != nil {
			return errs.E(opOpen, errs.IO, "remove left-over generation", err)
		}
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return errs.E("store.sync", errs.IO, "", err)
	}
	if err := f.Sync(); err != nil {
		return closing(errs.E("store.sync", errs.IO, dir, err), f)
	}
	if err := f.Close(); err != nil {
		return errs.E("store.sync", errs.IO, dir, err)
	}
	return nil
}
