// Package train trains an adapter.
//
// [Prepare] turns a configuration into a [Job] from headers alone: the model, the layers that get an adapter, the pictures, the steps. [Job.Run] reads the
// weights and trains: one update is [Job.step], which fits on one screen. What a step reads comes from a feed: the data set (dataset_feed.go) or a replay
// file (replay.go). Every random number is addressed by (seed, purpose, update, item), so a resumed run is the unbroken run.
//
// Start at step.go.
package train
