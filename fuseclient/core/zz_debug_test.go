package core

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"agentdrive/metaserver/meta"
)

var traceOn bool

func tr(format string, args ...any) {
	if traceOn {
		fmt.Printf(format+"\n", args...)
	}
}

func short(x any) string {
	switch o := x.(type) {
	case WriteFile:
		return fmt.Sprintf("WriteFile ino %d off %d len %d app %v sync %v wb %v", o.Ino, o.Off, len(o.Data), o.Append, o.Sync, o.Writeback)
	case *meta.Write:
		s := fmt.Sprintf("Write ino %d app %v", o.Ino, o.Append)
		for _, e := range o.Extents {
			s += fmt.Sprintf(" %d+%d k%d", e.Off, e.Len, e.Kind)
		}
		return s
	case *meta.MapResult:
		return fmt.Sprintf("Map v%d size %d covered %d n %d", o.Attr.DataVersion, o.Attr.Size, o.Covered, len(o.Extents))
	case *meta.AttrResult:
		return fmt.Sprintf("Attr ino %d v%d size %d m %d c %d off %d", o.Attr.Ino, o.Attr.DataVersion, o.Attr.Size, o.Attr.Mtime, o.Attr.Ctime, o.Off)
	case *meta.OpFrame:
		return fmt.Sprintf("Op %d after %d %T %s", o.ID, o.After, o.Op, short(o.Op))
	case *meta.Reply:
		return fmt.Sprintf("Reply %d %s err %v grants %v", o.ID, short(o.Outcome.Result), o.Outcome.Err, o.Grants)
	case *meta.Log:
		s := fmt.Sprintf("Log first %d:", o.First)
		for _, r := range o.Records {
			s += fmt.Sprintf(" [%d %s]", r.Now, short(r.Op))
		}
		return s
	case *FilePlan:
		n := 0
		for _, p := range o.Pieces {
			n += int(p.Len)
		}
		return fmt.Sprintf("Plan v%d size %d len %d keep %v", o.Attr.DataVersion, o.Attr.Size, n, o.Keep)
	}
	return fmt.Sprintf("%T %+v", x, x)
}

func TestZZ(t *testing.T) {
	seed, _ := strconv.Atoi(os.Getenv("ZZSEED"))
	if seed == 0 {
		t.Skip()
	}
	traceOn = true
	runSeed(t, int64(seed), 700, true)
}
