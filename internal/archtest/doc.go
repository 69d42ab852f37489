// Package archtest holds the project to its plan: which package may import which, and where each module from outside has its home.
//
// The tables are in rules.go. A new package gets a line in [layers], a new module one in [homes]; the tests read the source of every build tag, so that
// code which this machine doesn't compile is held to them too.
package archtest
