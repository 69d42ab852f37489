package main

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

// TestMain makes lycoris a command of the scripts: the real Main in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lycoris": func() { os.Exit(Main(os.Args[1:])) }})
}

// TestScripts runs testdata/*.txtar. Each has a folder of its own, and "exits CODE lycoris ..." asserts an exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "XDG_CACHE_HOME="+e.WorkDir+"/cache")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "tinymodel": tinyModel, "tinyadapter": tinyAdapter},
	})
}
