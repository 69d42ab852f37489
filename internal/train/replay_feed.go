package train

import (
	"context"

	"lycoris/internal/fault"
)

// feedReplay makes r the job's feed: its text must fit the step, as ids where the text encoder is adapted.
func (j *Job) feedReplay(r *replay) error {
	e := j.engine
	perIDs := 77 * e.text.Chunks()
	perStates := e.text.Tokens() * j.base.UNet.CrossAttentionDim
	switch {
	case r.ids != nil && r.idsPer != perIDs:
		return fault.BadInput(r.path, "input_ids have %d tokens a row, want %d", r.idsPer, perIDs)
	case r.ids == nil && e.adaptsText:
		return fault.BadInput(r.path, "holds context, but the text encoder is trained: it needs input_ids").
			Advise("replay with --train-te=false, or write input_ids (N,%d) into the file", perIDs)
	case r.states != nil && r.statesPer != perStates:
		return fault.BadInput(r.path, "context has %d values a row, want %d·%d", r.statesPer, e.text.Tokens(), j.base.UNet.CrossAttentionDim)
	}
	if !e.adaptsText {
		r.encode = func(ctx context.Context, ids []int32) ([]float32, error) {
			return j.model.TokenStates(ctx, ids, e.text, nil)
		}
	}
	j.feed = r
	return nil
}
