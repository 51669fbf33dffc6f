//go:build race

package tree

const raceBuild = true
