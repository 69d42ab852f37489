package train

import (
	"lycoris/internal/tensor"
)

// Plan is what a run will do and take, for people and scripts.
type Plan struct {
	Model         string `json:"model"`
	Family        string `json:"family"`
	Prediction    string `json:"prediction"`
	Algorithm     string `json:"algorithm"`
	Modules       int    `json:"modules"`
	Parameters    int    `json:"parameters"`
	Pictures      int    `json:"pictures"`
	Shown         int    `json:"pictures_with_repeats"`
	Buckets       int    `json:"buckets"`
	Steps         int    `json:"steps"`
	StepsPerEpoch int    `json:"steps_per_epoch"`
	Memory        Memory `json:"memory"`
	PeakBytes     int64  `json:"peak_bytes"`
}

// Plan describes the job.
func (j *Job) Plan() Plan {
	p := Plan{Model: j.base.Path, Family: string(j.base.Family), Prediction: j.engine.prediction.String(), Algorithm: j.network.Adapters[0].Algorithm().Name,
		Modules: len(j.network.Adapters), Steps: j.steps, StepsPerEpoch: j.feed.updatesPerEpoch(), Memory: j.Memory, PeakBytes: j.Memory.Peak()}
	for _, f := range j.network.Factors() {
		if j.engine.trained[f.Param] {
			p.Parameters += tensor.Elems(f.Param.Shape)
		}
	}
	if j.data != nil {
		set := j.data.plan.Set()
		p.Pictures, p.Shown, p.Buckets = len(set.Images), set.Total(), len(j.data.plan.Counts())
	}
	return p
}
