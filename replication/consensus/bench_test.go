package consensus

import (
	"fmt"
	"testing"
)

// BenchmarkPropose measures one member, with 1 and 64 proposals in flight.
func BenchmarkPropose(b *testing.B) {
	for _, flight := range []int{1, 64} {
		b.Run(fmt.Sprintf("flight=%d", flight), func(b *testing.B) {
			cfg, _ := singleConfig(b.TempDir())
			cfg.Tuning = Tuning{}
			g, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := g.Shutdown(); err != nil {
					b.Error(err)
				}
			}()
			for l := range g.Leadership() {
				if l.Leading {
					break
				}
			}
			pending := make([]*Future, flight)
			b.ResetTimer()
			for i := range b.N {
				slot := &pending[i%flight]
				if *slot != nil {
					if _, _, err := (*slot).Result(); err != nil {
						b.Fatal(err)
					}
				}
				*slot = g.Propose(fmt.Appendf(nil, "add k%d %0512d", i%1000, i))
			}
			for _, f := range pending {
				if f != nil {
					if _, _, err := f.Result(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
