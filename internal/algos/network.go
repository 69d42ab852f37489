package algos

import (
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"

	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// Network is the adapters of one run.
type Network struct {
	Adapters []Adapter
	byPath   map[string]Adapter
	slabs    [][]float32
}

// NewNetwork returns the network of adapters, which it keeps in order.
func NewNetwork(adapters []Adapter) *Network {
	n := &Network{Adapters: adapters, byPath: map[string]Adapter{}}
	for _, a := range adapters {
		n.byPath[a.Target().Path] = a
	}
	return n
}

// Adapter returns the adapter of the layer at path; nil if it has none. It is the hook of nn.Builder.
func (n *Network) Adapter(path string) nn.Adapter {
	if a, ok := n.byPath[path]; ok {
		return a
	}
	return nil
}

// Factors returns the factors of all adapters, in order.
func (n *Network) Factors() []*Factor {
	var all []*Factor
	for _, a := range n.Adapters {
		all = append(all, a.Factors()...)
	}
	return all
}

// KeepAll calls set for every program input of the adapters with the values by which nothing is dropped.
func (n *Network) KeepAll(set func(input string, values []float32)) {
	for _, a := range n.Adapters {
		for _, in := range a.Inputs() {
			values := make([]float32, in.Size)
			if in.Keep != nil {
				in.Keep(values)
			} else {
				for i := range values {
					values[i] = 1
				}
			}
			set(in.Name, values)
		}
	}
	set(SeedInput, make([]float32, 3))
}

// ParamCount returns the number of trained values.
func (n *Network) ParamCount() int {
	count := 0
	for _, f := range n.Factors() {
		if !f.Frozen {
			count += tensor.Elems(f.Param.Shape)
		}
	}
	return count
}

// Bytes returns the backend memory of values and gradients.
func (n *Network) Bytes() int64 { return 2 * 4 * int64(slabFloats(n.Factors())) }

func slabFloats(factors []*Factor) int {
	total := 0
	for _, f := range factors {
		total += aligned(tensor.Elems(f.Param.Shape))
	}
	return total
}

// aligned rounds up to a cache line of float32.
func aligned(n int) int { return (n + 15) / 16 * 16 }

// Starters returns the adapters whose first values are still to come from the frozen weights.
func (n *Network) Starters() []Adapter {
	var all []Adapter
	for _, a := range n.Adapters {
		_, ok := a.(Starter)
		if w, can := a.(interface{ starts() bool }); ok && (!can || w.starts()) {
			all = append(all, a)
		}
	}
	return all
}

// Start gives the adapters of [Network.Starters] what they need, several at a time; read returns the weight of a layer and is called for one layer after the
// other, done after each. [Network.Push] brings the values to the backend, if Allocate came before.
func (n *Network) Start(read func(t Target) ([]float32, error), done func()) error {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, a := range n.Starters() {
		w, err := read(a.Target())
		if err != nil {
			group.Wait()
			return err
		}
		group.Go(func() error {
			err := a.(Starter).Start(w)
			done()
			return err
		})
	}
	return group.Wait()
}

// Allocate gives all factors memory in b, values in one slab and gradients in another, and uploads the initial values.
func (n *Network) Allocate(b kernels.Backend) error {
	factors := n.Factors()
	size := slabFloats(factors)
	for range 2 {
		slab, err := b.Alloc(size)
		if err != nil {
			return err
		}
		n.slabs = append(n.slabs, slab)
	}
	at := 0
	for _, f := range factors {
		size := tensor.Elems(f.Param.Shape)
		f.Param.Value, f.Param.Grad = n.slabs[0][at:at+size:at+size], n.slabs[1][at:at+size:at+size]
		at += aligned(size)
	}
	n.Push(b)
	return nil
}

// Pull copies the values to the host, Push copies them back.
func (n *Network) Pull(b kernels.Backend) {
	for _, f := range n.Factors() {
		f.pull(b)
	}
}

func (f *Factor) pull(b kernels.Backend) {
	if f.Host == nil {
		f.Host = make([]float32, tensor.Elems(f.Param.Shape))
	}
	b.Download(f.Host, f.Param.Value)
}

// Push uploads the host values.
func (n *Network) Push(b kernels.Backend) {
	for _, f := range n.Factors() {
		if f.Host != nil {
			b.Upload(f.Param.Value, f.Host)
		}
	}
}

// Drop forgets the host values; the backend's stay, and the next Pull brings them back.
func (n *Network) Drop() {
	for _, f := range n.Factors() {
		f.Host = nil
	}
}

// Stream returns the file form of all adapters from the backend's values, one adapter on the host at a time.
func (n *Network) Stream(b kernels.Backend) iter.Seq[tensor.Named] {
	return func(yield func(tensor.Named) bool) {
		for _, a := range n.Adapters {
			for _, f := range a.Factors() {
				f.pull(b)
			}
			for _, t := range a.Tensors() {
				t.Name = a.Target().Name + "." + t.Name
				if !yield(t) {
					return
				}
			}
			for _, f := range a.Factors() {
				f.Host = nil
			}
		}
	}
}

// Tensors returns the file form of all adapters from the pulled values.
func (n *Network) Tensors() []tensor.Named {
	var all []tensor.Named
	for _, a := range n.Adapters {
		for _, t := range a.Tensors() {
			t.Name = a.Target().Name + "." + t.Name
			all = append(all, t)
		}
	}
	return all
}

// Free returns the memory to b.
func (n *Network) Free(b kernels.Backend) {
	for _, s := range n.slabs {
		b.Free(s)
	}
	n.slabs = nil
}
