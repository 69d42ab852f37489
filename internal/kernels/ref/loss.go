package ref

// checkLoss returns the elements per item.
func checkLoss(op string, loss, pred, target []float32, n int) int {
	require(n >= 1 && len(pred)%n == 0, op, "%d elements for %d items", len(pred), n)
	check(op, "target", len(target), len(pred))
	check(op, "loss", len(loss), n)
	return len(pred) / n
}

// SquaredError: loss[n] = the mean of (pred-target)² over item n.
func (Backend) SquaredError(loss, pred, target []float32, n int) {
	per := checkLoss("SquaredError", loss, pred, target, n)
	for item := range n {
		var sum float64
		for i := item * per; i < (item+1)*per; i++ {
			d := float64(pred[i]) - float64(target[i])
			sum += d * d
		}
		loss[item] = float32(sum / float64(per))
	}
}

// SquaredErrorGrad: dpred = dloss[n]·2·(pred-target)/per.
func (Backend) SquaredErrorGrad(dpred, dloss, pred, target []float32, n int) {
	per := checkLoss("SquaredErrorGrad", dloss, pred, target, n)
	check("SquaredErrorGrad", "dpred", len(dpred), len(pred))
	for i := range pred {
		dpred[i] = float32(float64(dloss[i/per]) * 2 * (float64(pred[i]) - float64(target[i])) / float64(per))
	}
}
