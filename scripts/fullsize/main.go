// Command fullsize writes a single-file SD1.5 checkpoint of full size with random F16 weights (2.1 GB), for the benchmark.
//
//	go run ./scripts/fullsize [-seed N] [-tiny] [-tuned BASE] FILE
//
// With -tuned the file is BASE with every weight of UNet and text encoder changed, for the benchmark of extraction.
package main

import (
	"flag"
	"fmt"
	"os"

	"lycoris/internal/testutil/tinymodel"
)

func main() {
	seed := flag.Uint64("seed", 1, "of the random weights")
	tiny := flag.Bool("tiny", false, "write the tiny model of the tests instead")
	base := flag.String("tuned", "", "write a changed copy of `BASE` instead")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: fullsize [-seed N] [-tiny] [-tuned BASE] FILE")
		os.Exit(2)
	}
	write := tinymodel.WriteFullSize
	if *tiny {
		write = func(path string, seed uint64) error { return tinymodel.WriteTiny(path, seed, "") }
	}
	if *base != "" {
		write = func(path string, seed uint64) error { return writeTuned(*base, path, seed) }
	}
	if err := write(flag.Arg(0), *seed); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
