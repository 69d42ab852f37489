package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

// TestMain makes lycoris a command of the scripts: the real Main in a process of its own; and mortal, which runs a command without root's
// right to pass over permissions.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lycoris": func() { os.Exit(Main(os.Args[1:])) }, "mortal": mortal})
}

// TestScripts runs testdata/*.txtar. Each has a folder of its own, and "exits CODE lycoris ..." asserts an exit code. The condition
// [permissions] holds where mortal does.
func TestScripts(t *testing.T) {
	commands := map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "tinymodel": tinyModel, "tinyadapter": tinyAdapter, "tinytuned": tinyTuned, "tinyfamily": tinyFamily}
	maps.Copy(commands, craft)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "XDG_CACHE_HOME="+e.WorkDir+"/cache")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "permissions" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			err := exec.Command("mortal", "true").Run()
			if err != nil {
				t.Logf("%s: permissions aren't tested: mortal: %v", t.Name(), err)
			}
			return err == nil, nil
		},
		Cmds: commands,
	})
}
