package state

import (
	"encoding/binary"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// Key spaces of this package; metaserver/tree has the others of the same
// store (its keys.go lists all).
const (
	spaceSession   = 'S' // S session            -> Session
	spaceNonce     = 'n' // n nonce              -> session number
	spaceReply     = 'R' // R session op         -> Outcome
	spaceSwept     = 'Z' // Z session server     -> nothing: swept there
	spaceClosed    = 'z' // z session            -> Session: closed, to be swept
	spaceGroups    = 'g' // g session last       -> first: locality groups [first, last] of the session
	spaceDrive     = 'V' // V drive              -> DriveState
	spaceCounter   = 'k' // k name               -> number
	spaceServer    = 'M' // M server             -> Server (group 0)
	spaceDriveName = 'W' // W name               -> Drive (group 0)
	spaceCluster   = 'C' // C                    -> Cluster (group 0)
	spacePlacement = 't' // t epoch              -> Placement (group 0)
)

func prefix(space byte) []byte { return []byte{space, '|'} }

func key64(space byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(prefix(space), n)
}

func keySession(s meta.SessionID) []byte { return key64(spaceSession, uint64(s)) }
func keyClosed(s meta.SessionID) []byte  { return key64(spaceClosed, uint64(s)) }
func keyReplies(s meta.SessionID) []byte { return key64(spaceReply, uint64(s)) }
func keyDrive(d meta.DriveID) []byte     { return key64(spaceDrive, uint64(d)) }
func keyServer(s chunk.ServerID) []byte  { return key64(spaceServer, uint64(s)) }
func keyNonce(n [16]byte) []byte         { return append(prefix(spaceNonce), n[:]...) }
func keyDriveName(name string) []byte    { return append(prefix(spaceDriveName), name...) }
func keyCluster() []byte                 { return prefix(spaceCluster) }
func keyMapVersion() []byte              { return append(prefix(spaceCounter), "map-version"...) }
func keyPlacementEpoch() []byte          { return append(prefix(spaceCounter), "placement-epoch"...) }
func keyPlacement(epoch uint64) []byte   { return key64(spacePlacement, epoch) }
func keyLastDrive() []byte               { return append(prefix(spaceCounter), "last-drive"...) }
func keyLastLayer() []byte               { return append(prefix(spaceCounter), "last-layer"...) }

func keyReply(s meta.SessionID, op meta.OpID) []byte {
	return binary.BigEndian.AppendUint64(keyReplies(s), uint64(op))
}

func keyGroups(s meta.SessionID) []byte { return key64(spaceGroups, uint64(s)) }

// keyGroupsTo addresses a run of locality groups by its last one: one forward
// scan from a group meets the run that holds it first.
func keyGroupsTo(s meta.SessionID, last uint64) []byte {
	return binary.BigEndian.AppendUint64(keyGroups(s), last)
}

func keySwept(s meta.SessionID, server chunk.ServerID) []byte {
	return binary.BigEndian.AppendUint32(key64(spaceSwept, uint64(s)), uint32(server))
}

// end is the first key behind all that start with p.
func end(p []byte) []byte {
	e := append([]byte(nil), p...)
	for i := len(e) - 1; i >= 0; i-- {
		if e[i]++; e[i] != 0 {
			return e[:i+1]
		}
	}
	return nil
}

func load(v kv.View, key []byte, m wire.Message) (bool, error) {
	b, ok, err := v.Get(key)
	if err != nil || !ok {
		return false, err
	}
	// Records outlive the view's buffers: decode from a copy.
	if err := decode(append([]byte(nil), b...), m); err != nil {
		return false, errs.E("state.load", errs.Other, "record "+string(key[:1])+"|", err)
	}
	return true, nil
}

func store(tx kv.Tx, key []byte, m wire.Message) {
	tx.Set(key, wire.Marshal(nil, recordVersion, m))
}

// counter is a number under a key.
type counter struct{ n uint64 }

// Wire codes the number.
func (x *counter) Wire(c *wire.Coder) { c.U64(&x.n) }

func loadCounter(v kv.View, key []byte) (uint64, error) {
	var c counter
	_, err := load(v, key, &c)
	return c.n, err
}

func storeCounter(tx kv.Tx, key []byte, n uint64) { store(tx, key, &counter{n}) }

// scanRecords decodes every record below a prefix until fn returns false.
func scanRecords[T any, P interface {
	*T
	wire.Message
}](v kv.View, pre []byte, fn func(P) bool) error {
	return scanRange(v, pre, end(pre), fn)
}

// scanRange is scanRecords over the keys from lo to below hi.
func scanRange[T any, P interface {
	*T
	wire.Message
}](v kv.View, lo, hi []byte, fn func(P) bool) error {
	var bad error
	err := v.Scan(lo, hi, func(k, b []byte) bool {
		rec := P(new(T))
		if bad = decode(append([]byte(nil), b...), rec); bad != nil {
			bad = errs.E("state.scan", errs.Other, "record "+string(k[:1])+"|", bad)
			return false
		}
		return fn(rec)
	})
	if err == nil {
		err = bad
	}
	return err
}
