package tokenizer_test

import (
	"fmt"

	"lycoris/internal/textencoder/tokenizer"
)

func ExampleEncode() {
	ids := tokenizer.Encode("a photo of a cat", 75)
	fmt.Println(len(ids), ids[:8])
	// Output: 77 [49406 320 1125 539 320 2368 49407 49407]
}
