package train

import (
	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/pipeline"
	"lycoris/internal/unet"
)

// buildUNet emits the denoiser for s on the step's inputs.
func buildUNet(leaves *nn.Leaves, m *pipeline.Model, adapters func(string) nn.Adapter, s shape, context *graph.Node) *graph.Node {
	cfg := m.Base.UNet
	return unet.Build(nn.NewBuilder(leaves, m.UNet, string(arch.UNet), adapters), cfg, unet.Inputs{
		Noisy:   leaves.Input(inNoisy, s.n, s.h, s.w, cfg.InChannels),
		Time:    leaves.Input(inTime, s.n, cfg.BlockOutChannels[0]),
		Context: context,
	})
}
