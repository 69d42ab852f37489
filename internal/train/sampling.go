package train

import "context"

// sample makes the pictures of sample.prompts with the adapter as it is now.
func (t *trainer) sample(ctx context.Context) error { return nil }
