// Package rng makes random numbers that depend on an address only.
package rng
