package state

import (
	"testing"

	"agentdrive/internal/wire/wiretest"
)

// Every layout of this package; internal/arch checks that none is missing.
func FuzzDecoders(f *testing.F) {
	wiretest.Fuzz(f, 1,
		new(AllocGroups),
		new(CloseSession),
		new(Cluster),
		new(ClusterMap),
		new(CopiesDone),
		new(counter),
		new(CreateDrive),
		new(Drive),
		new(DriveState),
		new(DropDrive),
		new(Entry),
		new(ForgetFreed),
		new(InitCluster),
		new(InitDrive),
		new(Item),
		new(MarkDrive),
		new(OpenSession),
		new(OrphanPins),
		new(Outcomes),
		new(Placement),
		new(PutServer),
		new(Reclaim),
		new(RemoveDrive),
		new(AckReplies),
		new(ResolveOrphans),
		new(Reserved),
		new(Server),
		new(Session),
		new(SetQuota),
		new(Swept),
		new(UnpinOrphans),
	)
}
