// Package pipeline holds a base model on a backend and runs its parts: text to states, pictures to latents and back.
//
// A [Model] reads each component's weights when a program first needs them and frees them on [Model.Release]. A [Program] is a planned graph; all programs of
// a model share one arena, because only one runs at a time. train and sample build their own programs (the training step, the denoiser) through
// [Model.Plan]. Not safe for concurrent use.
package pipeline

import (
	"context"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
	"lycoris/internal/textencoder"
)

// Model is a base model whose parts run on a backend.
type Model struct {
	Base    *checkpoint.Model
	vae     *checkpoint.Model // Base, or the model whose VAE is used
	Backend kernels.Backend
	UNet    *nn.Store
	Text    *nn.Store
	VAE     *nn.Store

	embeddings *textencoder.Embeddings
	programs   map[string]*Program // the model's own, by kind and size
	arena      []float32
	generation int // counts arenas
}

// source is one component of a checkpoint.
type source struct {
	base *checkpoint.Model
	part arch.Component
}

func (s source) Lookup(name string) ([]int, tensor.DType, bool) {
	info, ok := s.base.Info(s.part, name)
	return info.Shape, info.DType, ok
}

func (s source) Read(name string) (tensor.Tensor, error) { return s.base.Read(s.part, name) }

// New returns the model of base on b; nothing is read yet. vae, when not nil, is another model whose VAE is used.
func New(base, vae *checkpoint.Model, b kernels.Backend) *Model {
	if vae == nil {
		vae = base
	}
	return &Model{Base: base, vae: vae, Backend: b, programs: map[string]*Program{},
		UNet: nn.NewStore(source{base, arch.UNet}, base.Path),
		Text: nn.NewStore(source{base, arch.TextEncoder}, base.Path),
		VAE:  nn.NewStore(source{vae, arch.VAE}, vae.Path)}
}

// Program is a planned graph of a model.
type Program struct {
	model      *Model
	plan       *graph.Plan
	stores     []*nn.Store
	bound      *graph.Program
	generation int
}

// Plan returns the program of a plan that reads weights from stores.
func (m *Model) Plan(plan *graph.Plan, stores ...*nn.Store) *Program {
	return &Program{model: m, plan: plan, stores: stores}
}

// ArenaBytes returns the memory of the program's buffers.
func (p *Program) ArenaBytes() int64 { return p.plan.ArenaBytes() }

// ScratchBytes returns what its kernels need besides.
func (p *Program) ScratchBytes() int64 { return p.plan.ScratchBytes(p.model.Backend) }

// Reserve makes the shared arena large enough for programs, so that it is allocated once.
func (m *Model) Reserve(programs ...*Program) error {
	most := 0
	for _, p := range programs {
		most = max(most, p.plan.Floats())
	}
	return m.grow(most)
}

func (m *Model) grow(floats int) error {
	if len(m.arena) >= floats {
		return nil
	}
	m.FreeArena()
	arena, err := m.Backend.Alloc(floats)
	if err != nil {
		return err
	}
	m.arena = arena
	return nil
}

// FreeArena gives the shared buffers back; the next program allocates again.
func (m *Model) FreeArena() {
	if m.arena != nil {
		m.Backend.Free(m.arena)
	}
	m.arena = nil
	m.generation++
}

// Ready returns the bound program; weights that haven't been read are read first.
func (p *Program) Ready() (*graph.Program, error) {
	m := p.model
	for _, s := range p.stores {
		if err := s.Load(m.Backend, nil); err != nil {
			return nil, err
		}
	}
	if err := m.grow(p.plan.Floats()); err != nil {
		return nil, err
	}
	if p.bound == nil || p.generation != m.generation {
		bound, err := p.plan.Bind(m.Backend, m.arena)
		if err != nil {
			return nil, err
		}
		p.bound, p.generation = bound, m.generation
	}
	return p.bound, nil
}

// Run sets inputs, runs and returns output 0.
func (p *Program) Run(ctx context.Context, inputs map[string][]float32) ([]float32, error) {
	b, err := p.Ready()
	if err != nil {
		return nil, err
	}
	for name, v := range inputs {
		b.Set(name, v)
	}
	if err := b.Run(ctx); err != nil {
		return nil, err
	}
	return b.Output(0), nil
}

// Release frees the weights of s and forgets the model's own programs that use them.
func (m *Model) Release(s *nn.Store) {
	for key, p := range m.programs {
		for _, used := range p.stores {
			if used == s {
				delete(m.programs, key)
				break
			}
		}
	}
	s.Release(m.Backend)
}

// Close frees everything.
func (m *Model) Close() {
	for _, s := range []*nn.Store{m.UNet, m.Text, m.VAE} {
		m.Release(s)
	}
	m.FreeArena()
	m.embeddings = nil
}
