package pipeline

import (
	"context"
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/textencoder"
	"lycoris/internal/textencoder/tokenizer"
)

// TextOptions are the settings of the text encoder.
type TextOptions struct {
	ClipSkip  int // 1 = the last layer
	MaxTokens int // 75, 150 or 225
}

// Chunks returns how many windows of the encoder a prompt takes.
func (o TextOptions) Chunks() int { return o.MaxTokens / 75 }

// Tokens returns the length of the states of a prompt: 77, 152 or 227.
func (o TextOptions) Tokens() int { return o.MaxTokens + 2 }

// positions is the encoder's window: 75 tokens between begin and end.
const positions = 77

// BuildText emits the encoder for n prompts and returns the embedded-token input [n·chunks,77,W] and the joined states [n,Tokens,W].
func BuildText(b *nn.Builder, cfg arch.CLIPConfig, n int, o TextOptions) (tokens, states *graph.Node) {
	tokens = b.Input("tokens", n*o.Chunks(), positions, cfg.Width)
	return tokens, JoinChunks(b.G, textencoder.Build(b, cfg, tokens, o.ClipSkip), n, o)
}

// JoinChunks joins the windows of each prompt as sd-scripts does: the begin state of the first, 75 states of each, the end state of the last.
func JoinChunks(g *graph.Graph, h *graph.Node, n int, o TextOptions) *graph.Node {
	chunks := o.Chunks()
	if chunks == 1 {
		return h
	}
	var index []int32
	for i := range n {
		row := func(chunk, pos int) { index = append(index, int32((i*chunks+chunk)*positions+pos)) }
		row(0, 0)
		for c := range chunks {
			for pos := 1; pos < positions-1; pos++ {
				row(c, pos)
			}
		}
		row(chunks-1, positions-1)
	}
	return g.Reshape(g.GatherRows(h, index), n, o.Tokens(), h.Last())
}

// Embed returns the embedded tokens [len(ids)/77,77,W] of laid-out ids.
func (m *Model) Embed(ids []int32) ([]float32, error) {
	if m.embeddings == nil {
		e, err := textencoder.ReadEmbeddings(source{m.Base, arch.TextEncoder}, m.Base.Text)
		if err != nil {
			return nil, err
		}
		m.embeddings = e
	}
	x := make([]float32, len(ids)*m.Base.Text.Width)
	return x, m.embeddings.Embed(x, ids, positions)
}

// TextStates returns the states [Tokens,W] of prompt by the base encoder, or with adapters.
func (m *Model) TextStates(ctx context.Context, prompt string, o TextOptions, adapters func(string) nn.Adapter) ([]float32, error) {
	return m.TokenStates(ctx, tokenizer.Encode(prompt, o.MaxTokens), o, adapters)
}

// TokenStates is [Model.TextStates] for laid-out ids.
func (m *Model) TokenStates(ctx context.Context, ids []int32, o TextOptions, adapters func(string) nn.Adapter) ([]float32, error) {
	p, err := m.textProgram(o, adapters)
	if err != nil {
		return nil, err
	}
	x, err := m.Embed(ids)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, map[string][]float32{"tokens": x})
}

func (m *Model) textProgram(o TextOptions, adapters func(string) nn.Adapter) (*Program, error) {
	key := fmt.Sprint("text ", o)
	if p := m.programs[key]; p != nil && adapters == nil {
		return p, nil
	}
	g := &graph.Graph{}
	_, states := BuildText(nn.NewBuilder(nn.NewLeaves(g), m.Text, string(arch.TextEncoder), adapters), m.Base.Text, 1, o)
	if err := m.Text.Err(); err != nil {
		return nil, err
	}
	p := m.Plan(graph.NewPlan(g, []*graph.Node{states}, graph.PlanOptions{}), m.Text)
	if adapters == nil {
		m.programs[key] = p
	}
	return p, nil
}
