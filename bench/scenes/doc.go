// Package scenes plays what goes wrong between two mounts of shared
// filesystems, on real mounts with real programs: one test for each scene.
//
// What a mount shows after another's call has returned must be true at once;
// no test waits for it. Waiting is reported, not asserted: each test logs the
// longest wait of each kind of step, which must be far from a session's life.
//
//	go test ./bench/scenes -v                      # every scene
//	go test ./bench/scenes -run RemoveMany -many 100000
//
// The tests need root and /dev/fuse, and are skipped, saying so, where either
// lacks. Those that hold files while a mount's daemon stands still do it in a
// process of their own (hand): the test's own children would wait for it.
package scenes
