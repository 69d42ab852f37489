// Package dataset turns folders of pictures into training batches.
//
// A [Set] is what [Scan] found: one [Image] per picture, with its size, caption and options; only headers have been read. [Buckets]
// choose the size at which a picture is trained. A [Plan] deals the images into [Batch]es, epoch by epoch. [Image.Load] decodes one
// picture as one [Geometry] asks. A [Cache] keeps what the VAE and the text encoder made of them on disk.
//
// What always holds:
//   - sizes are width × height in pixels, after the camera's rotation (EXIF) has been applied;
//   - pixels are float32 in [-1,1], height × width × RGB, and belong to the caller;
//   - nothing is decoded before its size has been checked against [Limits];
//   - the result depends on names, contents, options and seed only, never on the order of directory entries, on time or on the number
//     of threads. Epoch e, batch b is computed directly, so a resumed run replays nothing;
//   - names that come from outside are escaped before they enter a message ([Shown]).
//
// All exported methods may be called from several goroutines.
//
// Start at [Scan], then read plan.go. The rules follow kohya's sd-scripts (docs: buckets, caption pipeline, batches), so that a data
// set made for it trains here as it does there; differences are said where they are.
package dataset
