package train

import (
	"lycoris/internal/algos"
	"lycoris/internal/network"
	"lycoris/internal/ui"
)

// startAdapters gives new adapters what their first values need of the frozen weights, one weight at a time.
func (t *trainer) startAdapters() error {
	waiting := len(t.network.Starters())
	if waiting == 0 {
		return nil
	}
	t.progress.Phase(ui.StartAdapters, waiting)
	if err := t.network.Start(t.frozen, func() { t.progress.Add(1) }); err != nil {
		return err
	}
	t.network.Push(t.backend)
	return nil
}

// frozen returns the values of a layer's weight.
func (t *trainer) frozen(target algos.Target) ([]float32, error) {
	return network.Frozen(t.base)(target)
}
