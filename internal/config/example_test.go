package config_test

import (
	"fmt"

	"lycoris/internal/config"
)

func ExampleLoad() {
	cfg, resolved, err := config.Load(config.Input{
		NoConfig: true,
		Preset:   "character",
		Flags:    map[string][]string{"dim": {"8"}, "data": {"10_cats"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(cfg.Name, cfg.Dim, cfg.Alpha)
	fmt.Println(resolved.Source("dim"), "|", resolved.Source("alpha"))
	// Output:
	// cats 8 8
	// --dim | preset character:4:8
}
