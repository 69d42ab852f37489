package loose

// NeedsWeight reports whether the module's change depends on the frozen weight.
func (m *Module) NeedsWeight() bool {
	switch m.Algo.Name {
	case "lora", "loha", "lokr", "dylora":
		return m.Has("dora_scale")
	case "full", "norm":
		return false
	}
	return true
}

// WeightShape derives the shape of the weight from the factors; nil where they don't tell it. Files keep the windows of LoHa and LoKr flat: the layer's name tells whether
// there is one.
func (m *Module) WeightShape() []int {
	for _, whole := range []string{"diff", "w_norm"} {
		if s := m.Shape(whole); len(s) > 0 {
			return s
		}
	}
	switch m.Algo.Name {
	case "lora", "dylora":
		up, down, mid := m.Shape("lora_up.weight"), m.Shape("lora_down.weight"), m.Shape("lora_mid.weight")
		if len(up) < 2 || len(down) < 2 {
			return nil
		}
		shape := append([]int{up[0]}, down[1:]...)
		if len(mid) == 4 && len(shape) == 4 {
			shape = []int{up[0], down[1], mid[2], mid[3]}
		}
		return shape
	case "loha":
		a, b, core := m.Shape("hada_w1_a"), m.Shape("hada_w1_b"), m.Shape("hada_t1")
		switch {
		case len(a) != 2 || len(b) != 2:
			return nil
		case len(core) == 4:
			return []int{a[1], b[1], core[2], core[3]}
		}
		return m.unfold(a[0], 1, b[1])
	case "lokr":
		return m.kronShape()
	}
	return nil
}

// unfold returns [o, inFactor·i, window] of a factor whose columns hold i and the window.
func (m *Module) unfold(o, inFactor, columns int) []int {
	w := m.Layer.Window
	switch {
	case w == nil:
		return []int{o, inFactor * columns}
	case columns%(w[0]*w[1]) != 0:
		return nil
	}
	return []int{o, inFactor * columns / (w[0] * w[1]), w[0], w[1]}
}

func (m *Module) kronShape() []int {
	w1, a1, b1 := m.Shape("lokr_w1"), m.Shape("lokr_w1_a"), m.Shape("lokr_w1_b")
	if w1 == nil && len(a1) == 2 && len(b1) == 2 {
		w1 = []int{a1[0], b1[1]}
	}
	w2, a2, b2, core := m.Shape("lokr_w2"), m.Shape("lokr_w2_a"), m.Shape("lokr_w2_b"), m.Shape("lokr_t2")
	switch {
	case len(w1) != 2:
		return nil
	case len(w2) >= 2:
		return append([]int{w1[0] * w2[0], w1[1] * w2[1]}, w2[2:]...)
	case len(a2) != 2 || len(b2) != 2:
		return nil
	case len(core) == 4:
		return []int{w1[0] * a2[1], w1[1] * b2[1], core[2], core[3]}
	}
	return m.unfold(w1[0]*a2[0], w1[1], b2[1])
}
