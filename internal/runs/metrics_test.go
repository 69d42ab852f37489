package runs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func TestLines(t *testing.T) {
	tests := []struct {
		line Line
		want string
	}{
		{StartLine{Step: 0, ConfigHash: "c", DataHash: "d", Device: "cpu", Threads: 2, Version: "1"}, `"type":"start","t":"2026-01-02T15:04:05.000Z","part":2,"step":0,"config_hash":"c","data_hash":"d","device":"cpu","threads":2,"version":"1"`},
		{ResumeLine{StartLine: StartLine{Step: 7}, FromStep: 7}, `"type":"resume","t":"2026-01-02T15:04:05.000Z","part":2,"step":7,"config_hash":"","data_hash":"","device":"","threads":0,"version":"","from_step":7`},
		{StepLine{Step: 3, Loss: 0.5, GradNorm: math.NaN(), LR: map[string]float64{"unet": math.Inf(1), "te": 1e-4}},
			`"type":"step","t":"2026-01-02T15:04:05.000Z","part":2,"step":3,"epoch":0,"loss":0.5,"loss_avg":0,"grad_norm":null,"lr":{"te":0.0001,"unet":null},"s_it":0,"img_s":0,"wait_s":0,"mem_rss":0,"mem_dev":0,"skipped":0,"nonfinite":["grad_norm","lr.unet"]`},
		{ValLine{Step: 3, Loss: 1, PerT: map[string]float64{"200": 0.25}, N: 4}, `"type":"val","t":"2026-01-02T15:04:05.000Z","part":2,"step":3,"loss":1,"per_t":{"200":0.25},"n":4`},
		{FileLine{Kind: "save", Step: 3, Path: "a", Bytes: 9, SHA256: "x", Seconds: 0.5}, `"type":"save","t":"2026-01-02T15:04:05.000Z","part":2,"step":3,"path":"a","bytes":9,"sha256":"x","seconds":0.5`},
		{EventLine{Step: 3, Level: "warn", Code: "nonfinite", Message: "m", Details: map[string]any{"value": math.NaN()}}, `"type":"event","t":"2026-01-02T15:04:05.000Z","part":2,"step":3,"level":"warn","code":"nonfinite","message":"m","details":{"value":null},"nonfinite":["details.value"]`},
		{EndLine{Step: 9, Status: Finished, Exit: 0, Seconds: 2}, `"type":"end","t":"2026-01-02T15:04:05.000Z","part":2,"step":9,"status":"finished","exit":0,"seconds":2`},
	}
	for _, tt := range tests {
		got, err := encodeLine(tt.line, 2, noon)
		if want := `{"v":1,` + tt.want + "}\n"; err != nil || string(got) != want {
			t.Errorf("got  %s want %s %v", got, want, err)
		}
		if !json.Valid(got) {
			t.Errorf("not JSON: %s", got)
		}
	}
}

// step writes step lines with a loss that tells the part.
func steps(t *testing.T, m *Metrics, from, to int, loss float64) {
	t.Helper()
	for s := from; s <= to; s++ {
		if err := m.Write(StepLine{Step: s, Loss: loss}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTornAndResumed(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	m, err := r.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	steps(t, m, 1, 6, 1)
	dir := r.Dir()
	if err := errors.Join(r.Begin(10), r.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dir+"/"+metricsName, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"v":1,"type":"step","step":7,"lo`)
	f.Close()
	if _, skipped, err := ReadMetrics(dir); err != nil || skipped != 1 {
		t.Errorf("a torn line: skipped %d, %v", skipped, err)
	}
	r, _, err = Resume(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if m, err = r.Metrics(); err != nil {
		t.Fatal(err)
	}
	if err := m.Write(ResumeLine{StartLine: StartLine{Step: 4}, FromStep: 4}); err != nil {
		t.Fatal(err)
	}
	steps(t, m, 5, 8, 2)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	records, skipped, err := ReadMetrics(dir)
	if err != nil || skipped != 0 {
		t.Fatalf("skipped %d, %v", skipped, err)
	}
	var got []string
	for _, rec := range records {
		var l struct{ Loss float64 }
		if err := json.Unmarshal(rec.Raw, &l); err != nil {
			t.Fatal(err)
		}
		if rec.Type == "step" {
			got = append(got, fmt.Sprintf("%d:%g", rec.Step, l.Loss))
		}
	}
	if want := "1:1 2:1 3:1 4:1 5:2 6:2 7:2 8:2"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestCutTorn(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for text, want := range map[string]string{"": "", "a": "", "a\n": "a\n", "a\nb": "a\n", long: "", "a\n" + long: "a\n", "a\n\n": "a\n\n"} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, text)
		if err := cutTorn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != want {
			t.Errorf("%d bytes: got %d bytes, want %d, %v", len(text), len(got), len(want), err)
		}
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add([]byte("{\"v\":1,\"type\":\"step\",\"step\":1}\n{\"v\":1,\"type\":\"resume\",\"from_step\":0}\nx\n\n"))
	f.Add([]byte(`{"v":1e99,"type":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, skipped, err := parseMetrics(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(data, []byte("\n")) + 1; len(records)+skipped > lines {
			t.Errorf("%d records and %d skipped of %d lines", len(records), skipped, lines)
		}
	})
}
