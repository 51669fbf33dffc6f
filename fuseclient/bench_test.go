package fuseclient_test

import (
	"fmt"
	"testing"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// BenchmarkOps times single operations from a client session to servers in
// this process and back, without the kernel.
func BenchmarkOps(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := newCluster(b, nodes, 1)
			c.createDrive("demo", 0)
			cl := c.open("a", "demo", "/")
			root := cl.Root().Ino
			b.Run("getattr", func(b *testing.B) {
				for b.Loop() {
					do[*meta.AttrResult](b, cl, &meta.GetAttr{Ino: root})
				}
			})
			n := 0
			b.Run("make", func(b *testing.B) {
				for b.Loop() {
					n++
					create(b, cl, root, fmt.Sprintf("f%d", n))
				}
			})
			b.Run("make+write4k+flush", func(b *testing.B) {
				data := make([]byte, 4096)
				for b.Loop() {
					n++
					f := create(b, cl, root, fmt.Sprintf("f%d", n))
					do[*meta.AttrResult](b, cl, core.WriteFile{Ino: f.Ino, Data: data})
					do[*meta.EmptyResult](b, cl, core.Flush{Ino: f.Ino})
				}
			})
		})
	}
}
