// Command fullsize writes what the benchmarks need: a single-file checkpoint of full size with random F16 weights (SD1.5, 2.1 GB; SDXL, 6.9 GB), or a random adapter.
//
//	go run ./scripts/fullsize [-model sd15|sdxl|tiny] [-seed N] FILE
//	go run ./scripts/fullsize -adapter lora|loha|lokr [-dim N] [-all] [-model sd15|sdxl|tiny] [-seed N] FILE
//	go run ./scripts/fullsize -tuned BASE [-seed N] FILE
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
	model := flag.String("model", "sd15", "sd15, sdxl, or tiny: the model of the tests")
	tiny := flag.Bool("tiny", false, "the same as -model tiny")
	base := flag.String("tuned", "", "write a changed copy of `BASE` instead")
	algo := flag.String("adapter", "", "write an adapter for the model instead: lora, loha, lokr")
	dim := flag.Int("dim", 16, "its rank")
	all := flag.Bool("all", false, "it has every layer, not only the transformers'")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: fullsize [-model sd15|sdxl|tiny] [-seed N] [-adapter lora|loha|lokr [-dim N] [-all]] [-tuned BASE] FILE")
		os.Exit(2)
	}
	if *tiny {
		*model = "tiny"
	}
	make := func() error {
		return write(flag.Arg(0), *model, *seed, tinymodel.Adapter{Model: *model, Algo: *algo, Dim: *dim, All: *all, Seed: *seed})
	}
	if *base != "" {
		make = func() error { return writeTuned(*base, flag.Arg(0), *seed) }
	}
	if err := make(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func write(path, model string, seed uint64, a tinymodel.Adapter) error {
	if a.Algo != "" {
		return a.Write(path)
	}
	switch model {
	case "sd15":
		return tinymodel.WriteFullSize(path, seed)
	case "sdxl":
		return tinymodel.WriteFullSizeXL(path, seed)
	case "tiny":
		return tinymodel.WriteTiny(path, seed, "")
	}
	return fmt.Errorf("-model %q is none of sd15, sdxl, tiny", model)
}
