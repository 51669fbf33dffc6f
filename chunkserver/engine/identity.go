package engine

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

const (
	identityName  = "STORE"
	identityMagic = "ADSTORE\n"
)

// identity says whose store a directory is. On disk: magic, CRC32C of the
// rest (u32 big endian), wire record.
type identity struct {
	cluster [16]byte
	server  chunk.ServerID
}

// Wire codes the fields in order.
func (id *identity) Wire(c *wire.Coder) {
	c.Fixed(id.cluster[:])
	wire.Uint(c, &id.server)
}

func (id *identity) encode() []byte {
	body := wire.Marshal(nil, formatVersion, id)
	b := binary.BigEndian.AppendUint32([]byte(identityMagic), crc(body))
	return append(b, body...)
}

func decodeIdentity(b []byte) (identity, error) {
	n := len(identityMagic)
	if len(b) < n+4 || string(b[:n]) != identityMagic || binary.BigEndian.Uint32(b[n:]) != crc(b[n+4:]) {
		return identity{}, errs.E("store.identity", errs.Corrupt, "not an identity file, or damaged", nil)
	}
	var id identity
	err := wire.Unmarshal(b[n+4:], formatVersion, &id)
	return id, err
}

// checkIdentity compares the directory's identity with the one asked for; an
// empty directory gets it.
func checkIdentity(fs disk.FS, dir string, want identity, segments int) error {
	name := path.Join(dir, identityName)
	b, err := readFile(fs, name)
	if errs.Is(err, errs.NotExist) {
		if segments > 0 {
			return errs.E("store.identity", errs.Corrupt, fmt.Sprintf("%s is missing beside %d segments", name, segments), nil).
				WithHint("restore the file from a backup, or move the directory away and let the server be repaired from the others")
		}
		return writeIdentity(fs, dir, want)
	}
	if err != nil {
		return err
	}
	got, err := decodeIdentity(b)
	if err != nil {
		return errs.E("store.identity", errs.Other, name, err)
	}
	switch {
	case got.cluster != want.cluster:
		return errs.E("store.identity", errs.Mismatch, fmt.Sprintf("%s belongs to cluster %x, not to %x", dir, got.cluster, want.cluster), nil).
			WithHint("give this server a directory of its own, or start it with the cluster that the directory belongs to")
	case got.server != want.server:
		return errs.E("store.identity", errs.Mismatch, fmt.Sprintf("%s belongs to server %d, not to %d", dir, got.server, want.server), nil).
			WithHint(fmt.Sprintf("start it with --id %d, or choose another directory", got.server))
	}
	return nil
}

// writeIdentity replaces the identity file atomically and durably.
func writeIdentity(fs disk.FS, dir string, id identity) error {
	tmp := path.Join(dir, identityName+".tmp")
	f, err := fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(id.encode(), 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(tmp, path.Join(dir, identityName))
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	return err
}

func readFile(fs disk.FS, name string) (b []byte, err error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 1<<20 {
		return nil, errs.E("store.identity", errs.Corrupt, fmt.Sprintf("%s has %d bytes", name, size), nil)
	}
	b = make([]byte, size)
	if _, err = f.ReadAt(b, 0); err == io.EOF {
		err = nil
	}
	return b, err
}
