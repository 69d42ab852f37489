package merge

import (
	"cmp"
	"math"
	"slices"

	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/linalg"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

const (
	keyWeight  = "weight" // of IA3
	keyOnInput = "on_input"
	keyW1      = "lokr_w1"
	keyW2      = "lokr_w2"
	keyW2A     = "lokr_w2_a"
	keyW2B     = "lokr_w2_b"
)

// needsWeight reports whether what the modules of a layer do together can't be told without the layer's weight. One module alone is kept, at weight 1 whatever it is; factors
// of inputs or outputs multiply.
func needsWeight(terms []term) bool {
	depends := func(t term) bool { return t.m.NeedsWeight() }
	switch {
	case !slices.ContainsFunc(terms, depends), onlyIA3(terms):
		return false
	case len(terms) == 1:
		return terms[0].c != 1
	}
	return true
}

// onlyIA3 reports whether all modules are IA3 on one axis, as far as headers tell: the axis itself is data.
func onlyIA3(terms []term) bool { return all(terms, "ia3") }

func all(terms []term, algorithm string) bool {
	return !slices.ContainsFunc(terms, func(t term) bool { return t.m.Algo.Name != algorithm })
}

// joined is one layer's new module on its way: tensors by suffix.
type joined struct {
	j       *joiner
	terms   []term
	tensors []map[string]tensor.Tensor // of the terms
	target  algos.Target
	done    Joined
	out     []tensor.Named
	prefix  string // of the new names
}

// layer makes one module of those of a layer.
func (j *joiner) layer(terms []term) ([]tensor.Named, Joined, error) {
	l := &joined{j: j, terms: terms}
	l.prefix = j.layers.Module(terms[0].m.Layer, loose.Kohya)
	l.done = Joined{Name: l.prefix, Adapters: len(terms)}
	for _, t := range terms {
		tensors, err := t.m.Tensors()
		if err != nil {
			return nil, l.done, t.at(err)
		}
		l.tensors = append(l.tensors, tensors)
	}
	if err := l.size(); err != nil {
		return nil, l.done, err
	}
	err := l.make()
	return l.out, l.done, err
}

// size settles the layer's shape, on which all must agree.
func (l *joined) size() error {
	var first term
	for _, t := range l.terms {
		target, ok := t.m.Target(l.j.layers)
		switch {
		case !ok:
		case l.target.Shape == nil:
			l.target, first = target, t
		case !sameBut1(l.target.Shape, target.Shape):
			return fault.BadInput(t.from.Source.Path, "%q is made for a weight of shape %v, in %q for one of %v", target.Name, target.Shape, first.from.Source.Path, l.target.Shape).
				Advise("merge adapters that were made for the same model")
		default:
			l.target.Bias = l.target.Bias || target.Bias
		}
	}
	return nil
}

// make chooses the way.
func (l *joined) make() error {
	reduce := l.j.o.Method == SVD
	switch {
	case needsWeight(l.terms):
		return l.onBase()
	case all(l.terms, "norm"):
		return l.addUp(DidSum, keyNormGain, keyNormBias)
	case onlyIA3(l.terms):
		return l.multiply()
	case len(l.terms) == 1 && (!reduce || l.terms[0].m.NeedsWeight()):
		return l.keep()
	case !reduce && l.sameLeft():
		return l.addRight()
	case all(l.terms, "full") && !reduce:
		return l.addUp(DidWhole, keyDiff, keyDiffBias)
	}
	var pairs []*loose.Pair
	for i, t := range l.terms {
		p := loose.Exact(t.m, l.target, l.tensors[i])
		if p == nil {
			return l.dense()
		}
		p.Scale *= t.c
		pairs = append(pairs, p)
	}
	return l.lowRank(pairs)
}

// dtype returns the element type of what is made: the finest of the modules', or the one asked for.
func (l *joined) dtype() tensor.DType {
	if l.j.o.DType != tensor.Invalid {
		return l.j.o.DType
	}
	d := tensor.Invalid
	for _, tensors := range l.tensors {
		for suffix, t := range tensors {
			switch {
			case suffix == keyAlpha || !t.DType.IsFloat() || t.DType == d:
			case d == tensor.Invalid && t.DType != tensor.F64:
				d = t.DType
			default:
				d = tensor.F32
			}
		}
	}
	if d == tensor.Invalid {
		return tensor.F32
	}
	return d
}

// put adds a tensor, rounded once.
func (l *joined) put(suffix string, shape []int, v []float64) error {
	d := l.dtype()
	t := tensor.Named{Name: l.prefix + "." + suffix, Tensor: tensor.Tensor{DType: d, Shape: shape, Data: make([]byte, len(v)*d.Size())}}
	if bad := newRounder(d).round(t.Data, v, 0, nil); bad >= 0 {
		return fault.New(fault.Failed, l.j.o.Out, "not written: the value of %q at index %d becomes %g, which %s can't hold", t.Name, bad, v[bad], d).Advise("choose a wider type: --dtype bf16 or fp32")
	}
	l.out = append(l.out, t)
	return nil
}

// putAlpha adds alpha, which is always a float32.
func (l *joined) putAlpha(v float64) {
	l.done.alpha = v
	l.out = append(l.out, tensor.Named{Name: l.prefix + "." + keyAlpha, Tensor: loose.Number(v)})
}

// floats returns a tensor's values.
func floats(t tensor.Tensor) []float64 {
	out := make([]float64, tensor.Elems(t.Shape))
	decode(out, t.DType, t.Data)
	return out
}

// addUp sums tensors of one meaning.
func (l *joined) addUp(did string, suffixes ...string) error {
	l.done.Did, l.done.Algorithm = did, l.terms[0].m.Algo.Name
	if len(l.terms) == 1 {
		l.done.Did = DidKeep
	}
	for _, suffix := range suffixes {
		var sum []float64
		var shape []int
		for i, t := range l.terms {
			v, ok := l.tensors[i][suffix]
			if !ok {
				continue
			}
			if sum == nil {
				sum, shape = make([]float64, tensor.Elems(v.Shape)), v.Shape
			}
			values := floats(v)
			if len(values) != len(sum) {
				return fault.BadInput(t.from.Source.Path, "%q has shape %v, in %q it is %v", t.m.Key(suffix), v.Shape, l.terms[0].from.Source.Path, shape).Advise("merge adapters that were made for the same model")
			}
			for n, x := range values {
				sum[n] += t.c * x
			}
		}
		if sum == nil {
			continue
		}
		if suffix == keyDiff {
			l.done.Norm = norm(sum)
		}
		if err := l.put(suffix, shape, sum); err != nil {
			return err
		}
	}
	return nil
}

// multiply joins factors of one axis: (1+c₁w₁)(1+c₂w₂) − 1.
func (l *joined) multiply() error {
	l.done.Did, l.done.Algorithm = DidSum, "ia3"
	if len(l.terms) == 1 {
		l.done.Did = DidKeep
	}
	var product []float64
	first := l.tensors[0]
	for i, t := range l.terms {
		w, on := l.tensors[i][keyWeight], number(l.tensors[i], keyOnInput, 0)
		if on != number(first, keyOnInput, 0) {
			return fault.BadUsage("--model", "is missing: %q scales inputs in one adapter and outputs in another", l.prefix).Advise("merge them into the model one after the other: lycoris merge --model FILE --adapter …")
		}
		values := floats(w)
		if product == nil {
			product = slices.Repeat([]float64{1}, len(values))
		}
		if len(values) != len(product) {
			return fault.BadInput(t.from.Source.Path, "%q has %d values, in %q it has %d", t.m.Key(keyWeight), len(values), l.terms[0].from.Source.Path, len(product)).Advise("merge adapters that were made for the same model")
		}
		for n, x := range values {
			product[n] *= 1 + t.c*x
		}
	}
	if len(l.terms) == 1 { // 1 + x − 1 would round
		return l.putScaled(keyWeight, first, l.terms[0].c)
	}
	for n := range product {
		product[n]--
	}
	if err := l.put(keyWeight, first[keyWeight].Shape, product); err != nil {
		return err
	}
	return l.putStored(keyOnInput, first)
}

// putStored adds a tensor as it is, in the type asked for.
func (l *joined) putStored(suffix string, tensors map[string]tensor.Tensor) error {
	t := tensors[suffix]
	if d := l.j.o.DType; !t.DType.IsFloat() || suffix == keyAlpha || d == tensor.Invalid || d == t.DType {
		l.out = append(l.out, tensor.Named{Name: l.prefix + "." + suffix, Tensor: t})
		return nil
	}
	return l.put(suffix, t.Shape, floats(t))
}

// putScaled adds all of a module's tensors, one of them times by.
func (l *joined) putScaled(suffix string, tensors map[string]tensor.Tensor, by float64) error {
	for _, s := range sortedNames(tensors) {
		var err error
		switch {
		case s != suffix || by == 1:
			err = l.putStored(s, tensors)
		default:
			v := floats(tensors[s])
			for i := range v {
				v[i] *= by
			}
			err = l.put(s, tensors[s].Shape, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sortedNames(tensors map[string]tensor.Tensor) []string {
	var names []string
	for s := range tensors {
		names = append(names, s)
	}
	slices.Sort(names)
	return names
}

// keep keeps the one module there is, at its weight: of factors with an alpha that is alpha's size and a factor's sign, so that no value is rounded.
func (l *joined) keep() error {
	t, tensors := l.terms[0], l.tensors[0]
	l.done.Did, l.done.Algorithm, l.done.Rank, l.done.window = DidKeep, t.m.Algo.Name, t.m.Rank(), l.target.Shape != nil && l.target.HasWindow()
	if key := t.m.Key("oft_blocks"); len(key) > 4 && key[:4] == "oft_" { // kohya's: its alpha means another thing than LyCORIS's
		l.prefix = key[:len(key)-len(".oft_blocks")]
	}
	left := map[string]string{"lora": keyUp, "dylora": keyUp, "loha": "hada_w1_a", "lokr": keyW1, "full": keyDiff}[t.m.Algo.Name]
	if _, ok := tensors[keyW1+"_a"]; ok {
		left = keyW1 + "_a"
	}
	size, sign := math.Abs(t.c), math.Copysign(1, t.c)
	_, whole1 := tensors[keyW1]
	_, whole2 := tensors[keyW2]
	switch rank := rankOf(t.m); {
	case t.c == 1 && (left == "" || left == keyDiff || whole1 && whole2):
		return l.putScaled("", tensors, 1)
	case left == keyDiff:
		return l.addUp(DidKeep, keyDiff, keyDiffBias)
	case whole1 && whole2: // alpha means nothing
		return l.putScaled(keyW1, tensors, t.c)
	default:
		alpha := number(tensors, keyAlpha, float64(rank))
		if alpha == 0 { // counts as rank, as when it is loaded
			alpha = float64(rank)
		}
		delete(tensors, keyAlpha)
		l.putAlpha(alpha * size)
		return l.putScaled(left, tensors, sign)
	}
}

// rankOf returns the number that alpha is divided by.
func rankOf(m *loose.Module) int {
	for _, suffix := range []string{keyDown, "hada_w1_b", keyW2B, keyW1 + "_b"} {
		if s := m.Shape(suffix); len(s) > 0 {
			return s[0]
		}
	}
	return 1
}

// sameLeft reports whether all modules are Kronecker products with the same whole left factor, bit for bit, and right factors of one shape, whole or split.
func (l *joined) sameLeft() bool {
	if !all(l.terms, "lokr") {
		return false
	}
	first := l.tensors[0]
	for _, tensors := range l.tensors {
		w1, ok := tensors[keyW1]
		if !ok || w1.DType != first[keyW1].DType || !slices.Equal(w1.Shape, first[keyW1].Shape) || string(w1.Data) != string(first[keyW1].Data) {
			return false
		}
		_, core := tensors["lokr_t2"]
		_, dora := tensors[keyDoRA]
		w2, whole := tensors[keyW2]
		if core || dora || whole != (first[keyW2].Shape != nil) || whole && !slices.Equal(w2.Shape, first[keyW2].Shape) {
			return false
		}
	}
	return true
}

// addRight sums right factors: w₁⊗Σ c·w₂, of split ones with their ranks side by side.
func (l *joined) addRight() error {
	l.done.Did, l.done.Algorithm = DidSum, "lokr"
	first := l.tensors[0]
	if err := l.putStored(keyW1, first); err != nil {
		return err
	}
	if w2, whole := first[keyW2]; whole {
		sum := make([]float64, tensor.Elems(w2.Shape))
		for i, t := range l.terms {
			for n, x := range floats(l.tensors[i][keyW2]) {
				sum[n] += t.c * x
			}
		}
		l.putAlpha(1)
		return l.put(keyW2, w2.Shape, sum)
	}
	var pairs []*loose.Pair
	o, n := first[keyW2A].Shape[0], tensor.Elems(first[keyW2B].Shape[1:])
	for i, t := range l.terms {
		a, b := l.tensors[i][keyW2A], l.tensors[i][keyW2B]
		rank := b.Shape[0]
		alpha := number(l.tensors[i], keyAlpha, float64(rank))
		if alpha == 0 {
			alpha = float64(rank)
		}
		pairs = append(pairs, &loose.Pair{Up: floats(a), Down: floats(b), Rank: rank, Scale: t.c * alpha / float64(rank)})
	}
	up, down, rank := sideBySide(pairs, o, n)
	if rank == 0 {
		return l.nothing()
	}
	l.putAlpha(float64(rank))
	if err := l.put(keyW2A, []int{o, rank}, up); err != nil {
		return err
	}
	return l.put(keyW2B, []int{rank, n}, down)
}

// nothing leaves the layer out: its change is zero.
func (l *joined) nothing() error {
	l.done.Did, l.done.Algorithm, l.done.Rank, l.out = DidNone, "", 0, nil
	return nil
}

// sideBySide joins products exactly: Σ scale·up·down = [… sign·√|scale|·t·up …]·[… √|scale|/t·down …], t = √(‖down‖/‖up‖) so that both factors have the same size.
// up is [o,rank], down [rank,n]. Products that are zero are left out.
func sideBySide(pairs []*loose.Pair, o, n int) (up, down []float64, rank int) {
	pairs = slices.DeleteFunc(slices.Clone(pairs), func(p *loose.Pair) bool { return p.Scale == 0 || norm(p.Up) == 0 || norm(p.Down) == 0 })
	for _, p := range pairs {
		rank += p.Rank
	}
	up, down = make([]float64, o*rank), make([]float64, 0, rank*n)
	at := 0
	for _, p := range pairs {
		root, t := math.Sqrt(math.Abs(p.Scale)), math.Sqrt(norm(p.Down)/norm(p.Up))
		x := math.Copysign(root*t, p.Scale)
		for i := range o {
			for k, v := range p.Up[i*p.Rank : (i+1)*p.Rank] {
				up[i*rank+at+k] = v * x
			}
		}
		for _, v := range p.Down {
			down = append(down, v*root/t)
		}
		at += p.Rank
	}
	return up, down, rank
}

// lowRank makes a LoRA of products: side by side, or where that has too many ranks the nearest one of fewer. More ranks than the layer has are never needed.
func (l *joined) lowRank(pairs []*loose.Pair) error {
	o, n := l.target.Out(), tensor.Elems(l.target.Shape[1:])
	up, down, rank := sideBySide(pairs, o, n)
	if rank == 0 {
		return l.nothing()
	}
	largest := 0
	for _, p := range pairs {
		largest = max(largest, p.Rank)
	}
	opt := l.j.o
	limit := opt.MaxDim
	if limit == 0 {
		limit = 4 * largest
	}
	if opt.Dim > 0 {
		limit = opt.Dim
	}
	reduce := opt.Method == SVD || opt.Method != Concat && rank > limit
	if !reduce && rank <= min(o, n) {
		l.done.Did = DidSum
		return l.putLoRA(up, down, rank)
	}
	u, s, v := linalg.ProductSVD(up, down, o, rank, n, 0)
	keep := len(s)
	for keep > 1 && s[keep-1] <= s[0]*0x1p-52 { // zero but for rounding
		keep--
	}
	l.done.Did, l.done.Norm = DidSum, norm(s)
	if reduce {
		keep = min(keep, opt.ranks(s, 0))
	}
	if l.done.Error = norm(s[keep:]); reduce && keep < len(s) && l.done.Error > l.done.Norm*1e-12 {
		l.done.Did = DidReduce
	} else {
		l.done.Error = 0
	}
	return l.putSVD(u, s, v, keep)
}

// ranks returns how many of the values an SVD keeps: Dim, or the fewest whose rest, together with what is no value, is within MaxError.
func (o *JoinOptions) ranks(s []float64, rest2 float64) int {
	if o.Dim > 0 {
		return min(o.Dim, len(s))
	}
	all := rest2
	for _, x := range s {
		all += x * x
	}
	k := len(s)
	for left := rest2; k > 1 && left+s[k-1]*s[k-1] <= o.MaxError*o.MaxError*all; k-- {
		left += s[k-1] * s[k-1]
	}
	return k
}

// putSVD writes the first k of the values as a LoRA, shared by both factors; u is [o,len(s)], v [len(s),n].
func (l *joined) putSVD(u, s, v []float64, k int) error {
	o, n := l.target.Out(), tensor.Elems(l.target.Shape[1:])
	up, down := make([]float64, o*k), make([]float64, k*n)
	for p := range k {
		root := math.Sqrt(s[p])
		for i := range o {
			up[i*k+p] = u[i*len(s)+p] * root
		}
		for i := range n {
			down[p*n+i] = v[p*n+i] * root
		}
	}
	return l.putLoRA(up, down, k)
}

// putLoRA writes a LoRA whose alpha is its rank.
func (l *joined) putLoRA(up, down []float64, rank int) error {
	l.done.Algorithm, l.done.Rank, l.done.window = "lora", rank, l.target.HasWindow()
	upShape := []int{l.target.Out(), rank}
	if l.target.IsConv() {
		upShape = append(upShape, 1, 1)
	}
	l.putAlpha(float64(rank))
	if err := l.put(keyDown, append([]int{rank}, l.target.Shape[1:]...), down); err != nil {
		return err
	}
	return l.put(keyUp, upShape, up)
}

// dense sums changes as whole differences: one of them is none of low rank.
func (l *joined) dense() error {
	sum := make([]float64, tensor.Elems(l.target.Shape))
	var bias []float64
	for i, t := range l.terms {
		tensors := l.tensors[i]
		var ch change
		cols := tensor.Elems(l.target.Shape[1:])
		switch t.m.Algo.Name {
		case "lokr":
			if alpha, ok := tensors[keyAlpha]; ok && tensor.Elems(alpha.Shape) == 1 && alpha.Float32()[0] == 0 {
				delete(tensors, keyAlpha)
			}
			ch = newLoKr(tensors, t.c, l.target.Shape)
		case "full":
			ch = &dense{t.c, tensors[keyDiff], cols}
		default:
			p := loose.Exact(t.m, l.target, tensors)
			if p == nil {
				return fault.BadInput(t.from.Source.Path, "%q: its factors don't make a weight of shape %v", l.prefix, l.target.Shape).Advise("the file is incomplete or mixed up: make it or download it again")
			}
			for o := range l.target.Out() {
				dst := sum[o*cols:][:cols]
				for k, x := range p.Up[o*p.Rank : (o+1)*p.Rank] {
					x *= p.Scale * t.c
					for n, v := range p.Down[k*cols : (k+1)*cols] {
						dst[n] += x * v
					}
				}
			}
		}
		if ch != nil {
			for o := range l.target.Out() {
				ch.row(sum[o*cols:(o+1)*cols], o, 0, nil, 0)
			}
		}
		if b, ok := tensors[keyDiffBias]; ok {
			if bias == nil {
				bias = make([]float64, l.target.Out())
			}
			for o, x := range floats(b) {
				bias[o] += t.c * x
			}
		}
	}
	return l.putDense(sum, bias)
}

// putDense writes a change as a whole difference, or, where fewer ranks are asked for, as the nearest LoRA. A change of the bias has no place in a LoRA.
func (l *joined) putDense(sum, bias []float64) error {
	l.done.Norm = norm(sum)
	if l.done.Norm == 0 && bias == nil {
		return l.nothing()
	}
	if opt := l.j.o; bias == nil && len(l.target.Shape) > 1 && (opt.Method == SVD || opt.Method != Concat && opt.Dim > 0) {
		if done, err := l.nearest(sum); done || err != nil {
			return err
		}
	}
	l.done.Did, l.done.Algorithm = DidWhole, "full"
	if err := l.put(keyDiff, l.target.Shape, sum); err != nil || bias == nil {
		return err
	}
	return l.put(keyDiffBias, []int{len(bias)}, bias)
}

// nearest writes the LoRA nearest to a whole difference; done is false where one within the error would be larger than the difference.
func (l *joined) nearest(sum []float64) (done bool, err error) {
	o, n := l.target.Out(), tensor.Elems(l.target.Shape[1:])
	narrow := make([]float32, len(sum))
	for i, x := range sum {
		narrow[i] = float32(x)
	}
	opt := l.j.o
	for k := cmp.Or(opt.Dim, 16); ; k *= 2 {
		k = min(k, o, n)
		u, s, v := linalg.TopSVD(narrow, o, n, k)
		rest := math.Max(0, l.done.Norm*l.done.Norm-norm(s)*norm(s))
		if opt.Dim == 0 {
			if rest > opt.MaxError*opt.MaxError*l.done.Norm*l.done.Norm {
				if k*(o+n) >= o*n || k == min(o, n) {
					return false, nil
				}
				continue
			}
			if k = opt.ranks(s, rest); k*(o+n) >= o*n {
				return false, nil
			}
		}
		k = min(k, len(s))
		l.done.Did, l.done.Error = DidReduce, missing(sum, u, s, v, o, n, k)
		return true, l.putSVD(u, s, v, k)
	}
}

// missing returns the norm of what the first k of the values lack.
func missing(sum, u, s, v []float64, o, n, k int) float64 {
	var left float64
	row := make([]float64, n)
	for i := range o {
		copy(row, sum[i*n:])
		for p := range k {
			x := u[i*len(s)+p] * s[p]
			for c, y := range v[p*n : (p+1)*n] {
				row[c] -= x * y
			}
		}
		for _, x := range row {
			left += x * x
		}
	}
	return math.Sqrt(left)
}

// onBase computes what the adapters do to the layer's weight, one after the other.
func (l *joined) onBase() error {
	t0 := l.terms[0]
	target, err := l.j.base.Target(t0.from.Source.Path, l.j.layers, t0.m)
	if err != nil {
		return err
	}
	l.target = target
	l.j.lock.Lock()
	defer l.j.lock.Unlock()
	frozen, err := l.j.base.Weight(t0.m, target)
	if err != nil {
		return err
	}
	before := frozen.Float32()
	now := make([]float64, len(before))
	for i, x := range before {
		now[i] = float64(x)
	}
	var bias []float64
	for i, t := range l.terms {
		algo, times := t.m.Algo, 1.0
		options := algos.Options{Strength: t.c}
		if t.m.Has(keyDoRA) && l.j.o.As == AsConsumer { // the change as a whole is scaled
			options.Strength, times = 1, t.c
		}
		a, err := algo.Load(target, l.tensors[i], options)
		if err != nil {
			return t.at(err)
		}
		values := make([]float32, len(now))
		for n, x := range now {
			values[n] = float32(x)
		}
		if s, ok := a.(algos.Starter); ok {
			if err := s.Start(before); err != nil {
				return t.at(err)
			}
		}
		diff, err := algos.Change(l.j.backend, a, tensor.FromFloat32(tensor.F32, target.Shape, values))
		if err != nil {
			return err
		}
		for n, x := range diff {
			now[n] += times * float64(x)
		}
		if b, ok := a.(algos.BiasChanger); ok && b.BiasChange() != nil {
			if bias == nil {
				bias = make([]float64, target.Out())
			}
			for o, x := range b.BiasChange() {
				bias[o] += times * float64(x)
			}
		}
	}
	for i, x := range before {
		if now[i] -= float64(x); now[i]-now[i] != 0 {
			return fault.New(fault.Failed, t0.from.Source.Path, "the change of %q is not finite", l.prefix)
		}
	}
	return l.putDense(now, bias)
}

func norm(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}
