// Package posix proves the behaviour of the whole product: the client, the
// servers and the kernel's FUSE layer together, compared with the model
// filesystem and with a local one.
//
// It holds only tests. Those of Session run everything in this process over a
// network in memory; the others build the program, start it, and work on a
// real mount. They need root and /dev/fuse, and say so when they skip.
//
// The environment shapes a run:
//
//	POSIX_SEEDS  random sequences for each comparison; default 8
//	POSIX_SEED   the only seed to run, as a failure prints it
//	POSIX_KEEP   any value: data and logs of the real cluster are
//	                        kept, and their directory is printed
package posix
