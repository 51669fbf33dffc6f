// Package arch holds no code, only tests that keep the architecture: import
// directions, pure cores, documented names, sizes, and the list of decoders.
// Each rule says why it exists. A rule is changed here, with a reason, or
// obeyed; there are no per-file exceptions.
package arch
