// Package runs keeps run folders: one folder holds everything one training run was given, does and leaves.
//
// A [Run] is a folder that this process owns, by a lock that dies with the process. [Info] is its run.json. A [State] is a complete
// set of files from which training goes on. [Metrics] is the append-only record of the run.
//
// What a reader finds is whole: files are written beside their name, synced and renamed; a state is a folder that is renamed into
// place after all of it is on the disk. A state that doesn't match its manifest is never used. A Run may be used by several goroutines.
//
// Start at [Create] and [Resume]. The layout is that of docs/cli.md, "Run folder".
package runs
