package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
	"agentdrive/replication/store"
)

const (
	metaName    = "META"
	metaVersion = 1

	// metaConfig is the record in the state that holds the committed
	// membership, so that a view knows the one of its own index.
	metaConfig = "config"
)

// snapMeta is what META holds.
type snapMeta struct {
	Index, Term uint64
	ConfigIndex uint64
	Config      []byte // raft.EncodeConfiguration
	Data        string // file in snap/ that is not yet restored; "" for a marker
	Size        uint64 // bytes of Data
}

// Wire implements wire.Message.
func (m *snapMeta) Wire(c *wire.Coder) {
	c.U64(&m.Index)
	c.U64(&m.Term)
	c.U64(&m.ConfigIndex)
	c.Bytes(&m.Config)
	c.String(&m.Data)
	c.U64(&m.Size)
	if c.Decoding() && (m.Index == 0 || m.Data != filepath.Base(m.Data) && m.Data != "") {
		c.Fail("index %d, data file %q", m.Index, m.Data)
	}
}

func (m *snapMeta) id() string { return fmt.Sprintf("%d-%d", m.Index, m.Term) }

func (m *snapMeta) raft() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: m.id(), Index: m.Index, Term: m.Term,
		Configuration: raft.DecodeConfiguration(m.Config), ConfigurationIndex: m.ConfigIndex,
		Size: int64(m.Size),
	}
}

// committedConfig is the record metaConfig.
type committedConfig struct {
	Index  uint64
	Config []byte
}

// Wire implements wire.Message.
func (m *committedConfig) Wire(c *wire.Coder) {
	c.U64(&m.Index)
	c.Bytes(&m.Config)
}

// viewer gives read views of the state.
type viewer interface {
	View() (*store.View, error)
}

// snapStore implements raft.SnapshotStore. A snapshot of our own is a marker:
// index, term and membership. Only when a follower needs it is the stream
// made, from a view of that moment. A snapshot received from a leader is a
// file until it is in the state, then a marker too. There is one snapshot,
// the latest.
type snapStore struct {
	dir   string
	state viewer
	log   *slog.Logger

	mu   sync.Mutex // guards meta and the files of dir
	meta *snapMeta  // nil: none yet
}

var _ raft.SnapshotStore = (*snapStore)(nil)

func openSnaps(dir string, state viewer, log *slog.Logger) (*snapStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errs.E("consensus.snapshot", errs.IO, "", err)
	}
	s := &snapStore{dir: dir, state: state, log: log}
	var m snapMeta
	found, err := readChecked(filepath.Join(dir, metaName), metaVersion, &m)
	if err != nil {
		return nil, err
	}
	if found {
		s.meta = &m
	}
	return s, s.sweep()
}

// sweep removes files that META does not name. Precondition: s is not yet
// shared.
func (s *snapStore) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return errs.E("consensus.snapshot", errs.IO, "", err)
	}
	for _, e := range entries {
		if e.Name() == metaName || s.meta != nil && e.Name() == s.meta.Data {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return errs.E("consensus.snapshot", errs.IO, "", err)
		}
	}
	return nil
}

// latest returns a copy of the latest snapshot's description, nil if none.
func (s *snapStore) latest() *snapMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return nil
	}
	m := *s.meta
	return &m
}

// List implements raft.SnapshotStore.
func (s *snapStore) List() ([]*raft.SnapshotMeta, error) {
	m := s.latest()
	if m == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{m.raft()}, nil
}

// Open implements raft.SnapshotStore. The result describes the stream that is
// returned, which may be newer than the marker asked for.
func (s *snapStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m := s.latest()
	if m == nil || m.id() != id {
		return nil, nil, errs.E("consensus.snapshot", errs.NotExist, "snapshot "+id, nil)
	}
	if m.Data != "" {
		f, err := s.openData(m)
		if err != nil {
			return nil, nil, err
		}
		return m.raft(), f, nil
	}
	return s.spool()
}

func (s *snapStore) openData(m *snapMeta) (*os.File, error) {
	f, err := os.Open(filepath.Join(s.dir, m.Data))
	if err != nil {
		return nil, errs.E("consensus.snapshot", errs.IO, "received snapshot", err)
	}
	return f, nil
}

// spool writes the state of now to a nameless file: Raft must know the size
// before it sends, and the view must not stay open while a slow follower
// reads.
func (s *snapStore) spool() (*raft.SnapshotMeta, io.ReadCloser, error) {
	v, err := s.state.View()
	if err != nil {
		return nil, nil, err
	}
	defer v.Release()
	m, err := describe(v)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.CreateTemp(s.dir, "export-*"+partSuffix)
	if err != nil {
		return nil, nil, errs.E("consensus.snapshot", errs.IO, "", err)
	}
	fail := func(err error) (*raft.SnapshotMeta, io.ReadCloser, error) {
		return nil, nil, errors.Join(errs.E("consensus.snapshot", errs.Other, "spool", err), f.Close())
	}
	if err := os.Remove(f.Name()); err != nil {
		return fail(err)
	}
	if err := v.Export(f); err != nil {
		return fail(err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return fail(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	m.Size = uint64(size)
	s.log.Info("made a snapshot for a follower", "index", m.Index, "bytes", size)
	return m.raft(), f, nil
}

// describe builds the description of a view.
func describe(v *store.View) (*snapMeta, error) {
	raw, ok, err := v.Meta(metaConfig)
	if err != nil {
		return nil, err
	}
	at := v.Applied()
	if !ok {
		return nil, errs.E("consensus.snapshot", errs.Corrupt, fmt.Sprintf("state at %d has no membership", at.Index), nil)
	}
	var cc committedConfig
	if err := wire.Unmarshal(raw, metaVersion, &cc); err != nil {
		return nil, err
	}
	return &snapMeta{Index: at.Index, Term: at.Term, ConfigIndex: cc.Index, Config: cc.Config}, nil
}

// Create implements raft.SnapshotStore.
func (s *snapStore) Create(_ raft.SnapshotVersion, index, term uint64, config raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapSink{s: s, meta: snapMeta{
		Index: index, Term: term, ConfigIndex: configIndex, Config: raft.EncodeConfiguration(config),
	}}, nil
}

// publish makes m the latest snapshot, durably.
func (s *snapStore) publish(m *snapMeta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta != nil && m.Data == "" && m.Index < s.meta.Index {
		// A marker of our own, overtaken by one that a leader sent.
		return errs.E("consensus.snapshot", errs.Stale, fmt.Sprintf("marker at %d is older than the snapshot at %d", m.Index, s.meta.Index), nil)
	}
	return s.replaceLocked(m)
}

func (s *snapStore) replaceLocked(m *snapMeta) error {
	if err := writeChecked(filepath.Join(s.dir, metaName), metaVersion, m); err != nil {
		return err
	}
	old := s.meta
	s.meta = m
	if old != nil && old.Data != "" && old.Data != m.Data {
		if err := os.Remove(filepath.Join(s.dir, old.Data)); err != nil {
			s.log.Warn("left-over snapshot file stays until the next start", "err", err)
		}
	}
	return nil
}

// restored turns the received snapshot into a marker. Precondition: its
// content is durable in the state.
func (s *snapStore) restored() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil || s.meta.Data == "" {
		return nil
	}
	m := *s.meta
	m.Data, m.Size = "", 0
	return s.replaceLocked(&m)
}

// partSuffix marks files that are being written.
const partSuffix = ".part"

// snapSink implements raft.SnapshotSink. Without a single byte it becomes a
// marker, else a received snapshot.
type snapSink struct {
	s    *snapStore
	meta snapMeta
	f    *os.File
}

// ID implements raft.SnapshotSink.
func (k *snapSink) ID() string { return k.meta.id() }

// Write implements raft.SnapshotSink.
func (k *snapSink) Write(p []byte) (int, error) {
	if k.f == nil {
		f, err := os.CreateTemp(k.s.dir, "install-*"+partSuffix)
		if err != nil {
			return 0, errs.E("consensus.snapshot", errs.IO, "", err)
		}
		k.f = f
	}
	n, err := k.f.Write(p)
	k.meta.Size += uint64(n)
	return n, err
}

// Close implements raft.SnapshotSink.
func (k *snapSink) Close() error {
	if k.f == nil {
		return k.s.publish(&k.meta)
	}
	k.meta.Data = fmt.Sprintf("install-%d-%d.snap", k.meta.Index, k.meta.Term)
	if err := k.f.Sync(); err != nil {
		return errors.Join(errs.E("consensus.snapshot", errs.IO, "", err), k.Cancel())
	}
	// The rename becomes durable with the one of META in the same directory.
	if err := os.Rename(k.f.Name(), filepath.Join(k.s.dir, k.meta.Data)); err != nil {
		return errors.Join(errs.E("consensus.snapshot", errs.IO, "", err), k.Cancel())
	}
	if err := k.f.Close(); err != nil {
		return errs.E("consensus.snapshot", errs.IO, "", err)
	}
	return k.s.publish(&k.meta)
}

// Cancel implements raft.SnapshotSink.
func (k *snapSink) Cancel() error {
	if k.f == nil {
		return nil
	}
	return errors.Join(k.f.Close(), os.Remove(k.f.Name()))
}

// readChecked reads a wire record followed by its CRC32C; false if the file
// does not exist.
func readChecked(name string, version uint8, m wire.Message) (bool, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, errs.E("consensus.open", errs.IO, "", err)
	}
	n := len(b) - 4
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return false, errs.E("consensus.open", errs.Corrupt, name+": checksum differs at byte 0", nil).WithHint(store.HintRebuild)
	}
	if err := wire.Unmarshal(b[:n], version, m); err != nil {
		return false, errs.E("consensus.open", errs.Other, name, err)
	}
	return true, nil
}

func writeChecked(name string, version uint8, m wire.Message) error {
	b := wire.Marshal(nil, version, m)
	return store.WriteFileAtomic(name, binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}
