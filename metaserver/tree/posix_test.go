package tree

import (
	"testing"

	"agentdrive/metaserver/metatest"
	"agentdrive/metaserver/posixtest"
)

func TestPOSIX(t *testing.T) {
	for _, cut := range []int{0, 2} {
		posixtest.Run(t, posixtest.Options{Users: true, Xattrs: true}, func(t *testing.T) metatest.Target {
			b := newBackend(t, cut)
			t.Cleanup(func() {
				for _, p := range b.check() {
					t.Error(p)
				}
			})
			return b.client
		})
	}
}
