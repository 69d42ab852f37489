package train

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/tensor"
)

// Plan is what a run will do and take, for people and scripts.
type Plan struct {
	Model         string `json:"model"`
	Family        string `json:"family"`
	Prediction    string `json:"prediction"`
	Algorithm     string `json:"algorithm"` // several with the numbers of their modules: "lokr 128, lora 64"
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
	p := Plan{Model: j.base.Path, Family: string(j.base.Family), Prediction: j.engine.prediction.String(), Algorithm: j.algorithms(),
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

// algorithms names the algorithm of the adapters, or all of them with their counts.
func (j *Job) algorithms() string {
	counts := map[string]int{}
	for _, a := range j.network.Adapters {
		counts[a.Algorithm().Name]++
	}
	if len(counts) == 1 {
		return j.network.Adapters[0].Algorithm().Name
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(all, ", ")
}
