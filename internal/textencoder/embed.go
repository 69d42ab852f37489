package textencoder

import (
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/nn"
)

// Embeddings are the token and position tables of a text encoder, on the host.
type Embeddings struct {
	tokens, positions []float32 // [VocabSize,Width], [MaxPositions,Width]
	vocab, width      int
}

// ReadEmbeddings reads both tables.
func ReadEmbeddings(source nn.Source, cfg arch.CLIPConfig) (*Embeddings, error) {
	e := &Embeddings{vocab: cfg.VocabSize, width: cfg.Width}
	for _, t := range []struct {
		name string
		rows int
		to   *[]float32
	}{{"token_embedding", cfg.VocabSize, &e.tokens}, {"position_embedding", cfg.MaxPositions, &e.positions}} {
		name := "text_model.embeddings." + t.name + ".weight"
		got, err := source.Read(name)
		if err != nil {
			return nil, err
		}
		if len(got.Shape) != 2 || got.Shape[0] != t.rows || got.Shape[1] != cfg.Width {
			return nil, fault.BadInput("", "%q has shape %v, want [%d %d]", name, got.Shape, t.rows, cfg.Width)
		}
		*t.to = got.Float32()
	}
	return e, nil
}

// Embed writes token + position embedding of ids to dst [len(ids),Width]; position i mod period belongs to ids[i]. An id outside the vocabulary is
// an error of kind fault.Input.
func (e *Embeddings) Embed(dst []float32, ids []int32, period int) error {
	w := e.width
	for i, id := range ids {
		if id < 0 || int(id) >= e.vocab {
			return fault.BadInput("", "token %d is outside the vocabulary of %d", id, e.vocab)
		}
		out, t, p := dst[i*w:(i+1)*w], e.tokens[int(id)*w:], e.positions[i%period*w:]
		for j := range out {
			out[j] = t[j] + p[j]
		}
	}
	return nil
}
