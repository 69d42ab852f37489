package runs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"lycoris/internal/fault"
)

// metricsVersion is the v of every line.
const metricsVersion = 1

// Line is the content of one line of metrics.jsonl; its type names the line.
type Line interface{ lineType() string }

// StartLine is written at the first start of a run.
type StartLine struct {
	Step       int    `json:"step"`
	ConfigHash string `json:"config_hash"`
	DataHash   string `json:"data_hash"`
	Device     string `json:"device"`
	Threads    int    `json:"threads"`
	Version    string `json:"version"`
}

// ResumeLine is written at every later start; readers drop older lines with a step above FromStep.
type ResumeLine struct {
	StartLine
	FromStep int `json:"from_step"`
}

// StepLine is written every log.metrics_every steps.
type StepLine struct {
	Step     int                `json:"step"`
	Epoch    int                `json:"epoch"`
	Loss     float64            `json:"loss"`
	LossAvg  float64            `json:"loss_avg"`
	GradNorm float64            `json:"grad_norm"`
	LR       map[string]float64 `json:"lr"`      // by group
	StepTime float64            `json:"s_it"`    // seconds
	ImgTime  float64            `json:"img_s"`   // pictures a second
	WaitTime float64            `json:"wait_s"`  // seconds spent waiting for data
	MemRSS   uint64             `json:"mem_rss"` // bytes
	MemDev   uint64             `json:"mem_dev"` // bytes
	Skipped  int                `json:"skipped"`
}

// ValLine is written after a validation.
type ValLine struct {
	Step int                `json:"step"`
	Loss float64            `json:"loss"`
	PerT map[string]float64 `json:"per_t"` // by timestep: 200, 400, 600, 800
	N    int                `json:"n"`
}

// FileLine is written when a file is on the disk; Kind is sample, save or state.
type FileLine struct {
	Kind    string  `json:"-"`
	Step    int     `json:"step"`
	Path    string  `json:"path"` // relative to the run folder
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"`
	Seconds float64 `json:"seconds"`
}

// EventLine is written when something happens that a person wants to know.
type EventLine struct {
	Step    int            `json:"step"`
	Level   string         `json:"level"` // info, warn, error
	Code    string         `json:"code"`  // nonfinite, state_skipped, ...
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

// EndLine is written last.
type EndLine struct {
	Step    int     `json:"step"`
	Status  Status  `json:"status"`
	Exit    int     `json:"exit"`
	Seconds float64 `json:"seconds"`
}

func (StartLine) lineType() string  { return "start" }
func (ResumeLine) lineType() string { return "resume" }
func (StepLine) lineType() string   { return "step" }
func (ValLine) lineType() string    { return "val" }
func (l FileLine) lineType() string { return l.Kind }
func (EventLine) lineType() string  { return "event" }
func (EndLine) lineType() string    { return "end" }

// Metrics is the append-only record of a run.
type Metrics struct {
	mu   sync.Mutex
	f    *os.File
	part int
	now  func() time.Time
}

// Metrics opens metrics.jsonl; a torn last line, left by a process that was killed, is cut off.
func (r *Run) Metrics() (*Metrics, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.metrics != nil {
		return r.metrics, nil
	}
	path := r.Path(metricsName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, outputError(path, err)
	}
	if err := cutTorn(f); err != nil {
		f.Close()
		return nil, outputError(path, err)
	}
	r.metrics = &Metrics{f: f, part: max(r.info.Part, 1), now: r.now}
	return r.metrics, nil
}

// cutTorn truncates f behind its last line feed.
func cutTorn(f *os.File) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for pos := end; pos > 0; {
		n := min(int64(len(buf)), pos)
		pos -= n
		if _, err := f.ReadAt(buf[:n], pos); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			if pos+int64(i)+1 == end {
				return nil
			}
			return f.Truncate(pos + int64(i) + 1)
		}
	}
	return f.Truncate(0)
}

// Write appends one line in one write.
func (m *Metrics) Write(l Line) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := encodeLine(l, m.part, m.now())
	if err != nil {
		return err
	}
	if _, err := m.f.Write(text); err != nil {
		return outputError(m.f.Name(), err)
	}
	return nil
}

// Sync makes the lines durable.
func (m *Metrics) Sync() error {
	if err := m.f.Sync(); err != nil {
		return outputError(m.f.Name(), err)
	}
	return nil
}

// Close syncs and closes the file.
func (m *Metrics) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }

// encodeLine writes {"v":1,"type":…,"t":…,"part":…, fields…}; a number that isn't finite becomes null and is named in "nonfinite".
func encodeLine(l Line, part int, now time.Time) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"v":%d,"type":%q,"t":%q,"part":%d`, metricsVersion, l.lineType(), now.UTC().Format("2006-01-02T15:04:05.000Z"), part)
	var bad []string
	fields, err := encodeFields(reflect.ValueOf(l), &bad)
	if err != nil {
		return nil, err
	}
	b.WriteString(fields)
	if len(bad) > 0 {
		names, err := json.Marshal(bad)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, `,"nonfinite":%s`, names)
	}
	b.WriteString("}\n")
	return b.Bytes(), nil
}

// encodeFields writes the fields of a struct as ,"name":value; embedded structs' fields stand beside the others.
func encodeFields(v reflect.Value, bad *[]string) (string, error) {
	var b strings.Builder
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if sf.Anonymous {
			inner, err := encodeFields(v.Field(i), bad)
			if err != nil {
				return "", err
			}
			b.WriteString(inner)
			continue
		}
		name, opts, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "-" || opts == "omitempty" && v.Field(i).IsZero() {
			continue
		}
		text, err := json.Marshal(finite(v.Field(i).Interface(), name, bad))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, ",%q:%s", name, text)
	}
	return b.String(), nil
}

// finite replaces numbers that JSON can't hold by nil and notes their names.
func finite(v any, name string, bad *[]string) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			*bad = append(*bad, name)
			return nil
		}
	case float32:
		return finite(float64(v), name, bad)
	case map[string]float64:
		m := map[string]any{}
		for _, k := range sortedKeys(v) {
			m[k] = finite(v[k], name+"."+k, bad)
		}
		return m
	case map[string]any:
		m := map[string]any{}
		for _, k := range sortedKeys(v) {
			m[k] = finite(v[k], name+"."+k, bad)
		}
		return m
	case []float64:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = finite(x, fmt.Sprintf("%s.%d", name, i), bad)
		}
		return out
	}
	return v
}

// Record is one line as a reader sees it.
type Record struct {
	Type string
	Part int
	Step int
	Raw  json.RawMessage
}

// maxLine bounds a line of metrics.jsonl; longer ones are skipped.
const maxLine = 1 << 20

// ReadMetrics returns the lines of dir's metrics.jsonl that count: a resume line drops older lines with a step above its from_step.
// Lines that don't parse, such as a torn last one, are skipped and counted.
func ReadMetrics(dir string) (records []Record, skipped int, err error) {
	path := dir + string(os.PathSeparator) + metricsName
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fault.BadInput(path, "can't be read: %w", err)
	}
	defer f.Close()
	return parseMetrics(f)
}

func parseMetrics(r io.Reader) (records []Record, skipped int, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, long, err := readLine(in)
		if len(line) > 0 || long {
			rec, from, ok := parseRecord(line)
			switch {
			case long || !ok:
				skipped++
			default:
				if rec.Type == "resume" {
					records = dropAfter(records, from)
				}
				records = append(records, rec)
			}
		}
		if errors.Is(err, io.EOF) {
			return records, skipped, nil
		}
		if err != nil {
			return records, skipped, err
		}
	}
}

// readLine reads one line without its line feed; of a line longer than maxLine nothing is kept.
func readLine(in *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			long, line = true, nil
		}
		if !long {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\n"), long, err
		}
	}
}

func parseRecord(line []byte) (rec Record, fromStep int, ok bool) {
	var head struct {
		V        int    `json:"v"`
		Type     string `json:"type"`
		Part     int    `json:"part"`
		Step     int    `json:"step"`
		FromStep int    `json:"from_step"`
	}
	if err := json.Unmarshal(line, &head); err != nil || head.V < 1 || head.Type == "" {
		return Record{}, 0, false
	}
	return Record{Type: head.Type, Part: head.Part, Step: head.Step, Raw: json.RawMessage(line)}, head.FromStep, true
}

// dropAfter removes the records of steps above step.
func dropAfter(records []Record, step int) []Record {
	kept := records[:0]
	for _, r := range records {
		if r.Step <= step {
			kept = append(kept, r)
		}
	}
	return kept
}
