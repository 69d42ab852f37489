// Package graph is the step as a program: nodes are built once, differentiated once, planned once and run many times.
//
// A [Graph] collects nodes in the order they are built; a [Node] has an op, inputs and a shape, and nothing runs while building. Its leaves are
// [Graph.Input] (set before each run), [Graph.Param] (trained) and [Graph.Vector] (frozen); frozen matrices are operands of an op ([Weight]), not
// nodes. [Graph.Grad] adds the nodes of the gradient, [NewPlan] orders everything, inserts recomputation for checkpointed segments and lays all buffers out
// in one arena; [Plan.Bind] makes a [Program] of it, whose Run walks a flat list of kernel calls without allocating.
//
// What always holds: shapes are fixed when a node is built; everything is float32; activations are channels-last ([N,H,W,C], [N,T,D]); an op's
// gradient is written with nodes, so it can be fused, planned and recomputed like everything else. A Graph is not safe for concurrent use; a
// Program runs on one goroutine at a time. Shapes that don't fit are a bug of the caller and panic with the op's name and both shapes.
//
// Start at node.go, then op_linear.go (an op whole), then plan.go.
package graph
