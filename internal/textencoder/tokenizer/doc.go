// Package tokenizer turns a caption into the token ids of CLIP, the byte pair encoding that all Stable Diffusion text encoders share.
//
// A caption is cleaned, split into words, and every word is merged from its bytes into the longest pieces of a table of 48894 merges. Ids lie in
// 0..49407; the last two are [BOS] and [EOS]. A text encoder reads chunks of 77: BOS, 75 ids, EOS.
//
// The table is embedded, compressed; it is read on first use (tens of milliseconds) and never changes, so everything here is safe for
// concurrent use. It comes from the Python package open_clip_torch, see LICENSE-openclip.
//
// Start at [Encode]. The rules are those of OpenAI's CLIP (simple_tokenizer.py), with one step left out: ftfy, which guesses at wrongly decoded text
// and straightens quotes, is reduced to Unicode's NFC, the part of it that all Python tokenizers share.
package tokenizer
