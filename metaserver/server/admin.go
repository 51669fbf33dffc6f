package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

// register puts the services on a gRPC server.
func (s *Server) register(gs grpc.ServiceRegistrar) {
	ec := errorCodec("client")
	rpc.RegisterFrames(gs, ec, s.serveStream)
	rpc.RegisterUnary(gs, ec, peerService, map[string]rpc.UnaryHandler{callTerm: s.answerTerm})
	rpc.RegisterUnary(gs, ec, meta.AdminService, map[string]rpc.UnaryHandler{
		meta.CallHello:      handle(s.hello),
		meta.CallMap:        handle(s.clusterMap),
		meta.CallRegister:   handle(s.registerChunk),
		meta.CallDrives:     handle(s.drives),
		meta.CallFindDrive:  handle(s.findDrive),
		meta.CallCreate:     handle(s.createDrive),
		meta.CallDelete:     handle(s.deleteDrive),
		meta.CallInitDrive:  handle(s.initDrive),
		meta.CallDropDrive:  handle(s.dropDrive),
		meta.CallServer:     handle(s.serverState),
		meta.CallGroup:      handle(s.groupState),
		meta.CallEndSession: handle(s.endSession),
		meta.CallSetQuota:   handle(s.setQuota),
	})
}

// serveStream reads the greeting of a client's stream and hands it to its
// group.
func (s *Server) serveStream(fs rpc.FrameStream) error {
	b, err := fs.Recv()
	if err != nil {
		return err
	}
	g, err := meta.DecodeGreeting(b)
	if err != nil {
		return errs.E("session.greeting", errs.Other, "from "+fs.Peer(), err)
	}
	if g.Cluster != s.cfg.Cluster {
		return errs.E("session.greeting", errs.Mismatch, fmt.Sprintf("this is cluster %s, the client wants another", s.clusterHex()), nil).
			WithHint("check --servers or --data")
	}
	h, err := s.host(g.Group)
	if err != nil {
		return err
	}
	return h.serve(fs)
}

// handle decodes a JSON call and encodes its reply.
func handle[Q, R any](fn func(context.Context, *Q) (*R, error)) rpc.UnaryHandler {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		q := new(Q)
		if err := json.Unmarshal(req, q); err != nil {
			return nil, errs.E("admin.decode", errs.Invalid, "call is not valid JSON", err)
		}
		r, err := fn(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	}
}

func (s *Server) hello(context.Context, *meta.Empty) (*meta.HelloReply, error) {
	r := &meta.HelloReply{Cluster: s.clusterHex(), Server: s.cfg.ID, Version: s.cfg.Version}
	for _, h := range s.hosts {
		r.Groups = append(r.Groups, h.id)
	}
	return r, nil
}

// clusterMap answers from this server's copy, which may be behind: a client
// that finds a server missing asks again. A fresh map comes from the leader.
func (s *Server) clusterMap(ctx context.Context, q *meta.MapCall) (r *meta.MapReply, err error) {
	if q.Fresh {
		err = s.leading(ctx, 0, func(_ *host, v kv.View) (err error) {
			r, err = s.mapFrom(v)
			return err
		})
		return r, err
	}
	v, err := s.hosts[0].group.View()
	if err != nil {
		return nil, err
	}
	defer v.Release()
	return s.mapFrom(v)
}

func (s *Server) mapFrom(v kv.View) (*meta.MapReply, error) {
	m, ok, err := state.ReadMap(v)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errs.E("cluster.map", errs.Unavailable, "the cluster is still forming", nil)
	}
	r := &meta.MapReply{
		Cluster: s.clusterHex(), Version: m.Version,
		Copies: int(m.Cluster.Copies), Quorum: int(m.Cluster.Quorum), MinCopies: int(m.Cluster.MinCopies),
		Groups: int(m.Cluster.Groups), PGs: m.Cluster.PGs,
	}
	for _, p := range s.cfg.Peers {
		r.MetaServers = append(r.MetaServers, meta.ServerInfo{ID: chunk.ServerID(p.ID), Address: p.Addr})
	}
	for _, c := range m.Servers {
		r.ChunkServers = append(r.ChunkServers, meta.ServerInfo{ID: c.ID, Address: c.Address, Host: c.Host, Rack: c.Rack, Zone: c.Zone})
	}
	for _, p := range m.Placements {
		info := meta.PlacementInfo{Epoch: p.Epoch}
		for _, c := range p.Servers {
			info.Servers = append(info.Servers, meta.ServerInfo{ID: c.ID, Host: c.Host, Rack: c.Rack, Zone: c.Zone})
		}
		r.Placements = append(r.Placements, info)
	}
	return r, nil
}

// leading gives a view of a group's state that is linearizable, or an error
// that names the leader.
func (s *Server) leading(ctx context.Context, group uint32, fn func(*host, kv.View) error) error {
	h, err := s.host(group)
	if err != nil {
		return err
	}
	if _, ok := h.group.IsLeading(); !ok {
		return h.leadingError()
	}
	if err := h.confirm(ctx); err != nil {
		return err
	}
	v, err := h.group.View()
	if err != nil {
		return err
	}
	defer v.Release()
	return fn(h, v)
}

func (s *Server) registerChunk(ctx context.Context, q *meta.RegisterCall) (*meta.MapReply, error) {
	if q.Cluster != s.clusterHex() {
		return nil, errs.E("server.register", errs.Mismatch, fmt.Sprintf("chunk server %d belongs to cluster %s, this is %s", q.Server.ID, q.Cluster, s.clusterHex()), nil).
			WithHint("start it with the --peers of its own cluster, or on an empty --data directory")
	}
	in := q.Server
	for _, text := range []string{in.Address, in.Host, in.Rack, in.Zone} {
		if len(text) > maxText {
			return nil, errs.E("server.register", errs.NameTooLong, fmt.Sprintf("an address or failure domain of %d bytes, allowed are %d", len(text), maxText), nil)
		}
	}
	_, err := s.hosts[0].submit(ctx, &state.PutServer{Server: state.Server{ID: in.ID, Address: in.Address, Host: in.Host, Rack: in.Rack, Zone: in.Zone}})
	if err != nil {
		return nil, err
	}
	return s.clusterMap(ctx, &meta.MapCall{})
}

// maxText bounds what an administrator's call may put into the log besides
// names of drives: an entry that does not fit would fail with all that shares it.
const maxText = 256

func driveInfo(d state.Drive) meta.DriveInfo {
	return meta.DriveInfo{ID: d.ID, Name: d.Name, Group: d.Group, Created: d.Created}
}

func (s *Server) drives(ctx context.Context, _ *meta.Empty) (*meta.DrivesReply, error) {
	r := &meta.DrivesReply{Drives: []meta.DriveInfo{}}
	err := s.leading(ctx, 0, func(_ *host, v kv.View) error {
		list, err := state.Drives(v)
		for _, d := range list {
			if !d.Deleting {
				r.Drives = append(r.Drives, driveInfo(d))
			}
		}
		return err
	})
	return r, err
}

func (s *Server) findDrive(ctx context.Context, q *meta.DriveCall) (*meta.DriveInfo, error) {
	var info meta.DriveInfo
	err := s.leading(ctx, 0, func(_ *host, v kv.View) error {
		d, err := state.FindDrive(v, q.Name)
		if err == nil && d.Deleting {
			err = errs.E("drive.find", errs.NotExist, fmt.Sprintf("drive %q is being deleted", q.Name), nil)
		}
		info = driveInfo(d)
		return err
	})
	return &info, err
}

// createDrive records the name in group 0 and makes the root in the drive's
// group. A crash between the two leaves a drive without a root: creating it
// again, or the chore that looks for such drives, completes it.
func (s *Server) createDrive(ctx context.Context, q *meta.DriveCall) (*meta.DriveInfo, error) {
	if err := state.CheckDriveName(q.Name); err != nil {
		return nil, err
	}
	res, err := s.hosts[0].submit(ctx, &state.CreateDrive{Name: q.Name, Group: q.Group})
	if err != nil {
		if !q.IfNotExists || !errs.Is(err, errs.Exist) {
			return nil, err
		}
		info, err := s.findDrive(ctx, q)
		if err != nil {
			return nil, err
		}
		return info, s.initDriveIn(ctx, *info)
	}
	d, err := decodeDrive(res)
	if err != nil {
		return nil, err
	}
	info := driveInfo(d)
	return &info, s.initDriveIn(ctx, info)
}

func decodeDrive(res any) (state.Drive, error) {
	b, ok := res.(*meta.BytesResult)
	if !ok {
		return state.Drive{}, errs.E("drive", errs.Corrupt, "unexpected result", nil)
	}
	return state.DecodeDrive(b.Data)
}

func (s *Server) initDriveIn(ctx context.Context, d meta.DriveInfo) error {
	return s.callGroup(ctx, d.Group, meta.CallInitDrive, &meta.GroupDriveCall{Group: d.Group, Drive: d.ID, Name: d.Name}, &meta.Empty{})
}

// deleteDrive marks the drive in group 0, drops it in its group, and forgets
// it. Interrupted, it is completed by deleting again or by a chore; refused by
// the group, the mark is taken off.
func (s *Server) deleteDrive(ctx context.Context, q *meta.DriveCall) (*meta.Empty, error) {
	if len(q.Name) > state.MaxDriveName {
		return nil, errs.E("drive.delete", errs.NotExist, fmt.Sprintf("no drive has a name of %d bytes", len(q.Name)), nil)
	}
	res, err := s.hosts[0].submit(ctx, &state.MarkDrive{Name: q.Name, Deleting: true})
	if err != nil {
		return nil, err
	}
	d, err := decodeDrive(res)
	if err != nil {
		return nil, err
	}
	err = s.finishDelete(ctx, d, q.Force)
	if errs.Is(err, errs.Busy) {
		if _, undo := s.hosts[0].submit(ctx, &state.MarkDrive{Name: q.Name}); undo != nil {
			return nil, undo
		}
	}
	return &meta.Empty{}, err
}

func (s *Server) finishDelete(ctx context.Context, d state.Drive, force bool) error {
	call := &meta.GroupDriveCall{Group: d.Group, Drive: d.ID, Name: d.Name, Force: force}
	if err := s.callGroup(ctx, d.Group, meta.CallDropDrive, call, &meta.Empty{}); err != nil {
		return err
	}
	_, err := s.hosts[0].submit(ctx, &state.RemoveDrive{Name: d.Name})
	return err
}

func (s *Server) initDrive(ctx context.Context, q *meta.GroupDriveCall) (*meta.Empty, error) {
	if err := state.CheckDriveName(q.Name); err != nil {
		return nil, err
	}
	return s.inGroup(ctx, q.Group, &state.InitDrive{Drive: q.Drive, Name: q.Name})
}

func (s *Server) dropDrive(ctx context.Context, q *meta.GroupDriveCall) (*meta.Empty, error) {
	return s.inGroup(ctx, q.Group, &state.DropDrive{Drive: q.Drive, Force: q.Force})
}

func (s *Server) endSession(ctx context.Context, q *meta.EndSessionCall) (*meta.Empty, error) {
	return s.inGroup(ctx, q.Group, &state.CloseSession{Session: q.Session})
}

func (s *Server) setQuota(ctx context.Context, q *meta.QuotaCall) (*meta.Empty, error) {
	op := &state.SetQuota{Drive: q.Drive}
	if op.SetBytes = q.MaxBytes != nil; op.SetBytes {
		op.MaxBytes = *q.MaxBytes
	}
	if op.SetFiles = q.MaxFiles != nil; op.SetFiles {
		op.MaxFiles = *q.MaxFiles
	}
	return s.inGroup(ctx, q.Group, op)
}

// inGroup proposes an operation to a group that this server leads.
func (s *Server) inGroup(ctx context.Context, group uint32, op state.Internal) (*meta.Empty, error) {
	h, err := s.host(group)
	if err != nil {
		return nil, err
	}
	if _, ok := h.group.IsLeading(); !ok {
		return nil, h.leadingError()
	}
	_, err = h.submit(ctx, op)
	return &meta.Empty{}, err
}

// callGroup makes a call of the leader of a group, here or elsewhere. It is
// idempotent, so it is repeated until a leader answers or ctx ends.
func (s *Server) callGroup(ctx context.Context, group uint32, method string, call, reply any) error {
	req, err := json.Marshal(call)
	if err != nil {
		return err
	}
	h, err := s.host(group)
	if err != nil {
		return err
	}
	for {
		_, addr := h.group.Leader()
		if addr != "" {
			err = s.callAt(ctx, addr, method, req, reply)
		} else {
			err = errs.E("group.call", errs.Unavailable, fmt.Sprintf("group %d has no leader", group), nil)
		}
		if !errs.Is(err, errs.NotLeader) && !errs.Is(err, errs.Unavailable) {
			return err
		}
		if wait := s.pause(ctx, retryPause); wait != nil {
			return err
		}
	}
}

func (s *Server) callAt(ctx context.Context, addr, method string, req []byte, reply any) error {
	cc, err := s.peers.conn(addr)
	if err != nil {
		return err
	}
	b, err := rpc.CallUnary(ctx, cc, errorCodec(addr), rpc.Method{Service: meta.AdminService, Name: method}, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, reply); err != nil {
		return errs.E("group.call", errs.Corrupt, fmt.Sprintf("reply of %s from %s", method, addr), err)
	}
	return nil
}

func (s *Server) serverState(context.Context, *meta.Empty) (*meta.ServerReply, error) {
	r := &meta.ServerReply{Server: s.cfg.ID, PID: os.Getpid(), Version: s.cfg.Version}
	for _, h := range s.hosts {
		st, err := h.group.Stats()
		if err != nil {
			return nil, err
		}
		leader, _ := h.group.Leader()
		r.Groups = append(r.Groups, meta.GroupState{
			Group: h.id, State: st.State, Term: st.Term, Leader: leader,
			Applied: st.Applied, Last: st.LastIndex, Durable: st.Durable,
		})
	}
	return r, nil
}

func (s *Server) groupState(ctx context.Context, q *meta.GroupCall) (*meta.GroupReply, error) {
	r := &meta.GroupReply{Group: q.Group, Drives: []meta.DriveUse{}, Sessions: []meta.SessionInfo{}}
	err := s.leading(ctx, q.Group, func(_ *host, v kv.View) error { return fillGroup(r, v) })
	return r, err
}

func fillGroup(r *meta.GroupReply, v kv.View) error {
	drives, err := state.GroupDrives(v)
	if err != nil {
		return err
	}
	for _, d := range drives {
		bytes, files, err := d.Space().Stats(v)
		if err != nil {
			return err
		}
		r.Drives = append(r.Drives, meta.DriveUse{
			ID: d.ID, Name: d.Name, Bytes: bytes, Files: files,
			MaxBytes: d.MaxBytes, MaxFiles: d.MaxFiles, Dropping: d.Dropped,
		})
	}
	sessions, err := state.Sessions(v)
	if err != nil {
		return err
	}
	for _, se := range sessions {
		r.Sessions = append(r.Sessions, meta.SessionInfo{ID: se.ID, Drive: se.Drive, Path: se.Path, ReadOnly: se.ReadOnly, Client: se.Client, Opened: se.Opened})
	}
	r.Repair.Blocks, r.Repair.Bytes, err = tree.RepairTotals(v)
	return err
}
