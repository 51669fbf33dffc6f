package memstore_test

import (
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunk/memstore"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/errs"
)

func TestConformance(t *testing.T) {
	chunktest.Run(t, func(*testing.T) chunk.Store { return memstore.New(chunktest.Cluster) })
}

func TestRot(t *testing.T) {
	s := memstore.New(chunktest.Cluster)
	b := chunktest.Block(1, chunk.SumStride+100)
	chunktest.MustPut(t, s, b)
	if !s.Rot(b.ID, chunk.SumStride) || s.Rot(chunk.BlockID{1}, 0) {
		t.Error("wrong answer")
	}
	_, err := s.Get(t.Context(), chunktest.Grant(), b.ID, 0, chunk.SumStride+1)
	chunktest.WantKind(t, err, errs.Corrupt)
	if _, err := s.Get(t.Context(), chunktest.Grant(), b.ID, 0, chunk.SumStride); err != nil {
		t.Errorf("an intact stride: %v", err)
	}
	chunktest.MustPut(t, s, b) // replaces the bad copy
	chunktest.WantBlock(t, s, b)
}
