package merge

import (
	"context"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

const (
	copyBytes  = 4 << 20 // of a block that is copied
	blockElems = 1 << 20 // of a block that is changed
	wholeElems = 4 << 20 // above it a weight that is held as a whole waits for the blocks in flight
	sampleRows = 16      // every so many rows are measured
)

// Result is what a merge did.
type Result struct {
	Touched int      // tensors changed
	Change  float64  // ‖ΔW‖/‖W‖ over the merged weights, from a sample of their rows
	Loss    float64  // ‖stored − exact‖/‖ΔW‖ over the same: what rounding took of the change
	NaN     []string // tensors copied though they hold NaN or infinite values
	Clamped int      // values that were too large for the element type
	Emitted []string // files of embeddings
}

// run is a merge at work.
type run struct {
	plan        *Plan
	backend     kernels.Backend // a host's
	backendLock sync.Mutex
	report      func(bytes int64)
	done        atomic.Int64

	lock                  sync.Mutex // of what follows
	nan                   []string
	clamped               int
	base2, change2, loss2 float64
}

// work is one block for a worker.
type work func(w *worker) error

// worker has the memory for blocks.
type worker struct {
	in, out  []byte
	products products
	row      []float64
	rounders map[tensor.DType]*rounder
}

// rounder returns the worker's rounder to a type.
func (w *worker) rounder(d tensor.DType) *rounder {
	if w.rounders[d] == nil {
		w.rounders[d] = newRounder(d)
	}
	return w.rounders[d]
}

func newWorker() *worker { return &worker{rounders: map[tensor.DType]*rounder{}} }

func grown(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// Run writes the new model: a file, or a folder for a folder. b computes on the host. report, if any, hears of bytes written. On an error nothing is left.
func (p *Plan) Run(ctx context.Context, b kernels.Backend, report func(bytes int64)) (*Result, error) {
	r := &run{plan: p, backend: b, report: report}
	var err error
	if p.model.Folder {
		err = r.folder(ctx)
	} else {
		err = r.file(ctx, p.options.Out, p.files[0], p.metadata(p.files[0]))
	}
	if err != nil {
		return nil, err
	}
	emitted, err := p.emit()
	if err != nil {
		return nil, err
	}
	res := &Result{Touched: p.Touched, NaN: r.nan, Clamped: r.clamped, Emitted: emitted}
	slices.Sort(res.NaN)
	if r.base2 > 0 {
		res.Change = math.Sqrt(r.change2 / r.base2)
	}
	if r.change2 > 0 {
		res.Loss = math.Sqrt(r.loss2 / r.change2)
	}
	return res, nil
}

// file writes one file.
func (r *run) file(ctx context.Context, path string, f *fileJob, meta map[string]string) error {
	return tensor.WritePlaced(path, f.slots, meta, func(w io.WriterAt) error {
		if err := r.fill(ctx, f, w); err != nil {
			return err
		}
		return f.file.Raw().Unchanged() // before the file takes its name
	})
}

// fill writes a file's data section: a goroutine makes blocks ready in the order of the file, workers read, change and write them.
func (r *run) fill(ctx context.Context, f *fileJob, out io.WriterAt) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan work)
	var flying sync.WaitGroup
	put := func(job work) error {
		flying.Add(1)
		select {
		case queue <- job:
			return nil
		case <-ctx.Done():
			flying.Done()
			return ctx.Err()
		}
	}
	for range min(runtime.GOMAXPROCS(0)+2, 8) {
		group.Go(func() error {
			w := newWorker()
			var failed error
			for job := range queue {
				if failed == nil { // after a failure the rest is only counted down, so that nobody waits
					failed = job(w)
				}
				flying.Done()
				if failed != nil {
					return failed
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		return r.schedule(ctx, f, out, put, flying.Wait)
	})
	return group.Wait()
}

// schedule puts the blocks of a file.
func (r *run) schedule(ctx context.Context, f *fileJob, out io.WriterAt, put func(work) error, settle func()) error {
	c := &copying{r: r, f: f, out: out, put: put}
	for i := range f.jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		j := &f.jobs[i]
		if len(j.pieces) == 0 && j.out == j.in.DType {
			if err := c.add(j); err != nil {
				return err
			}
			continue
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := r.change(ctx, f, j, out, put, settle); err != nil {
			return err
		}
	}
	return c.flush()
}

// change puts the blocks of a tensor that changes, or that gets another element type.
func (r *run) change(ctx context.Context, f *fileJob, j *tensorJob, out io.WriterAt, put func(work) error, settle func()) error {
	rows, cols := 1, 1
	if len(j.in.Shape) > 0 {
		rows, cols = j.in.Shape[0], tensor.Elems(j.in.Shape[1:])
	}
	next := 0
	between := func(to int) error { // rows that only are copied or converted
		if to > next {
			return r.blocks(ctx, &touched{job: j, file: f, rows: [2]int{next, to}, cols: cols}, out, put)
		}
		return nil
	}
	for _, p := range j.pieces {
		if err := between(p.rows[0]); err != nil {
			return err
		}
		t := &touched{job: j, file: f, rows: p.rows, cols: cols}
		for _, u := range p.uses {
			if tensor.Elems(j.in.Shape) > wholeElems && !byRows(u) {
				settle()
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			ch, err := r.build(u, t)
			if err != nil {
				return err
			}
			t.changes = append(t.changes, ch)
		}
		if err := r.blocks(ctx, t, out, put); err != nil {
			return err
		}
		next = p.rows[1]
	}
	return between(rows)
}

// blocks puts the blocks of rows of t.
func (r *run) blocks(ctx context.Context, t *touched, out io.WriterAt, put func(work) error) error {
	n := t.rows[1] - t.rows[0]
	step := max(1, blockElems/max(t.cols, 1))
	for from := 0; from < n; from += step {
		to := min(from+step, n)
		if err := put(func(w *worker) error { return r.block(ctx, w, t, from, to, out) }); err != nil {
			return err
		}
	}
	return nil
}

// block reads rows [from,to) of t, changes, rounds and writes them.
func (r *run) block(ctx context.Context, w *worker, t *touched, from, to int, out io.WriterAt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := t.job.out
	size := t.cols * d.Size()
	w.out = grown(w.out, (to-from)*size)
	rd := w.rounder(d)
	exact := len(t.changes) > 0
	for _, c := range t.changes {
		if _, ok := c.at(0, 0, 0); !ok {
			exact = false
		}
	}
	var base2, change2, loss2 float64
	before := make([]float64, 0)
	var o int
	var raw []byte
	inSize := t.job.in.DType.Size()
	value := func(j int) float64 {
		var v [1]float64
		t.job.decode(v[:], raw[j*inSize:(j+1)*inSize])
		for _, c := range t.changes {
			v[0], _ = c.at(v[0], o, j)
		}
		return v[0]
	}
	ask := value
	clamped := 0
	if most, beyond := largest(d); r.plan.options.Saturate {
		ask = func(j int) float64 { // once for every value near the type's end
			v := value(j)
			if math.Abs(v) >= beyond {
				clamped++
				v = math.Copysign(most, v)
			}
			return v
		}
	}
	if !exact {
		ask = nil
	}
	err := r.eachRow(w, t, t.changes, from, to, func(row int, acc []float64, bytes []byte, bound float64) error {
		o, raw = row, bytes
		if !exact {
			bound = 0
		}
		dst := w.out[(o-from)*size : (o-from+1)*size]
		most, _ := largest(d)
		for bad := rd.round(dst, acc, bound, ask); bad >= 0; bad = rd.round(dst, acc, bound, ask) {
			if v := acc[bad]; !r.plan.options.Saturate || v-v != 0 {
				return r.unfit(t, row, bad, bytes, v)
			}
			clamped++
			acc[bad] = math.Copysign(most, acc[bad])
		}
		if len(t.changes) > 0 && o%sampleRows == 0 {
			before = append(before[:0], acc...)
			t.job.decode(before, bytes)
			eachValue(d, dst, func(j int, stored float64) {
				base2 += before[j] * before[j]
				change2 += (acc[j] - before[j]) * (acc[j] - before[j])
				loss2 += (stored - acc[j]) * (stored - acc[j])
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := out.WriteAt(w.out, t.job.outAt+int64((t.rows[0]+from)*size)); err != nil {
		return err
	}
	r.lock.Lock()
	r.clamped += clamped
	r.base2, r.change2, r.loss2 = r.base2+base2, r.change2+change2, r.loss2+loss2
	r.lock.Unlock()
	r.count(len(w.out))
	return nil
}

// decode writes the values of a tensor's bytes to dst.
func (j *tensorJob) decode(dst []float64, src []byte) {
	decode(dst, j.in.DType, src)
	if j.scale != 1 {
		for i := range dst {
			dst[i] *= j.scale
		}
	}
}

// count tells the caller of bytes written.
func (r *run) count(n int) {
	if r.report != nil {
		r.report(r.done.Add(int64(n)))
	}
}

// unfit says what is wrong with an element that can't be stored.
func (r *run) unfit(t *touched, row, j int, raw []byte, v float64) error {
	size := t.job.in.DType.Size()
	name, index := t.job.in.Name, (t.rows[0]+row)*t.cols+j
	if infinite(t.job.in.DType, raw[j*size:(j+1)*size]) {
		return fault.BadInput(t.file.file.Path, "tensor %q holds NaN or infinite values, the first at index %d", name, index).Advise("the model is broken: use another copy of it")
	}
	return fault.New(fault.Failed, r.plan.options.Out, "tensor %q: the value at index %d becomes %g, which %s can't hold", name, index, v, t.job.out).
		Advise("write another element type, --dtype bf16 or fp32, lower the adapter's weight, or --saturate")
}

// eachRow calls do with rows [from,to) of t with changes applied, as they lie in the file, and how far they may be off.
func (r *run) eachRow(w *worker, t *touched, changes []change, from, to int, do func(o int, acc []float64, raw []byte, bound float64) error) error {
	d := t.job.in.DType
	size := t.cols * d.Size()
	w.in = grown(w.in, (to-from)*size)
	if err := t.file.file.Raw().ReadPart(t.job.in.Name, w.in, int64((t.rows[0]+from)*size)); err != nil {
		return err
	}
	w.products.reset()
	ready := make([][][]float32, len(changes))
	r.backendLock.Lock()
	for i, c := range changes {
		ready[i] = c.products(r.backend, from, to, &w.products)
	}
	r.backendLock.Unlock()
	if len(w.row) < t.cols {
		w.row = make([]float64, t.cols)
	}
	acc := w.row[:t.cols]
	for o := from; o < to; o++ {
		raw := w.in[(o-from)*size : (o-from+1)*size]
		t.job.decode(acc, raw)
		bound := 0.0
		for i, c := range changes {
			bound = c.row(acc, o, from, ready[i], bound)
		}
		if err := do(o, acc, raw, bound); err != nil {
			return err
		}
	}
	return nil
}

// eachBlock is eachRow over all of t, in order, for what must be known before blocks are worked on.
func (r *run) eachBlock(t *touched, changes []change, do func(o int, acc []float64)) error {
	w := newWorker()
	n, step := t.rows[1]-t.rows[0], max(1, blockElems/max(t.cols, 1))
	for from := 0; from < n; from += step {
		err := r.eachRow(w, t, changes, from, min(from+step, n), func(o int, acc []float64, _ []byte, _ float64) error {
			do(o, acc)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copying gathers neighbours that don't change into blocks.
type copying struct {
	r     *run
	f     *fileJob
	out   io.WriterAt
	put   func(work) error
	jobs  []*tensorJob
	bytes int64
}

func (c *copying) add(j *tensorJob) error {
	size := int64(tensor.Elems(j.in.Shape)) * int64(j.in.DType.Size())
	if n := len(c.jobs); n > 0 && (c.bytes+size > copyBytes || j.inAt != c.jobs[0].inAt+c.bytes || j.outAt != c.jobs[0].outAt+c.bytes) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if size <= copyBytes {
		c.jobs, c.bytes = append(c.jobs, j), c.bytes+size
		return nil
	}
	for at := int64(0); at < size; at += copyBytes { // whole elements: a multiple of 8
		n := min(copyBytes, size-at)
		if err := c.put(func(w *worker) error { return c.r.copyPart(w, c.f, []*tensorJob{j}, at, n, c.out) }); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) flush() error {
	jobs, n := c.jobs, c.bytes
	c.jobs, c.bytes = nil, 0
	if n == 0 {
		return nil
	}
	return c.put(func(w *worker) error { return c.r.copyPart(w, c.f, jobs, 0, n, c.out) })
}

// copyPart copies n bytes from byte at of the first of jobs on, and notes which tensors hold values that aren't finite.
func (r *run) copyPart(w *worker, f *fileJob, jobs []*tensorJob, at, n int64, out io.WriterAt) error {
	w.in = grown(w.in, int(n))
	if err := f.file.Raw().ReadData(w.in, jobs[0].inAt+at); err != nil {
		return err
	}
	for _, j := range jobs {
		part := w.in
		if len(jobs) > 1 {
			begin := j.inAt - jobs[0].inAt
			part = w.in[begin : begin+int64(tensor.Elems(j.in.Shape))*int64(j.in.DType.Size())]
		}
		if infinite(j.in.DType, part) {
			r.lock.Lock()
			if !slices.Contains(r.nan, j.in.Name) {
				r.nan = append(r.nan, j.in.Name)
			}
			r.lock.Unlock()
		}
	}
	if _, err := out.WriteAt(w.in, jobs[0].outAt+at); err != nil {
		return err
	}
	r.count(len(w.in))
	return nil
}
