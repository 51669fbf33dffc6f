//go:build race || invariants

package invariant

const strictBuild = true
