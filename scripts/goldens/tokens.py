"""Tokenizer goldens: testdata/golden/tokenizer.json.

    python scripts/goldens/tokens.py [--out testdata/golden]

For each text:
  ids           what lycoris does: html-unescape twice, NFC, collapse white space, strip, lower case (with final sigma), BPE.
                OpenAI's rule with ftfy reduced to NFC, the one thing that all Python tokenizers do.
  ftfy          OpenAI's rule with ftfy, where it differs (it also changes curly quotes, full-width letters, ligatures, controls)
  transformers  transformers' CLIPTokenizer (NFC, collapse, lower case letter by letter; no html, no ftfy), where it differs
  chunk         for a few short and all long ones: 49406, at most 75 ids, 49407, padded to 77 with 49407
"""

import argparse
import gzip
import html
import importlib.util
import json
import pathlib
import sys
import unicodedata

import regex
from common import GOLDEN

from transformers import CLIPTokenizer

BOS, EOS, LENGTH = 49406, 49407, 77

TEXTS = [
    "", " ", "a", "A", "cat", "a photo of a cat", "a photo of a CAT", "A Photo Of My-Cat, 8K, (best quality:1.3)",
    "sks dog", "1girl, solo, long hair, looking at viewer, smile, open mouth, bangs, blue eyes, blonde hair, shirt",
    "0123456789", "room 101", "3.14159", "1st 2nd 3rd", "2024-05-06", "it's", "they're we've I'm he'll she'd don't", "IT'S", "rock'n'roll",
    "''s", "hello, world!", "hello ,world !", "wow!!!", "...", "a...b", "(((masterpiece)))", "[bracket] {brace} <angle>", "a_b_c", "a-b--c---d",
    "http://example.com/a?b=c&d=e#f", "user@example.com", "C:\\path\\to\\file", "50% off & more", "$9.99", "#hashtag @mention", "a/b|c~d^e`f",
    "  leading and   inner\tand\nnewline  ", "no\u00a0break", "thin\u2009space", "ideographic\u3000space",
    "&lt;b&gt; &amp; &quot;q&quot;", "&amp;lt;twice&amp;gt;", "&eacute;t&eacute;", "&#65;&#x42;", "&notanentity;",
    "caf\u00e9", "cafe\u0301", "na\u00efve fa\u00e7ade", "STRASSE stra\u00dfe", "\u00c5ngstr\u00f6m \u00d8re", "\u0130stanbul",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0", "\u4e2d\u6587 \u5b57\u7b26", "\ud55c\uad6d\uc5b4", "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e2\u05d1\u05e8\u05d9\u05ea", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22",
    "\u03b1\u03b2\u03b3 \u03a3\u039f\u03a6\u039f\u03a3", "\U0001f600", "a \U0001f431 cat \U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f", "\u2013 \u2014 \u2026", "\u201cquoted\u201d \u2018it\u2019s\u2019", "\u00bd \u00b2 \u2460 \u0663", "\uff21\uff22\uff43\uff11",
    "\ufb01ne", "\u2122 \u00a9 \u00ae \u20ac", "x\u200by", "\u007f", "<|startoftext|>", "a <|endoftext|> b",
    "supercalifragilisticexpialidocious", "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "zzzzzzzzzzzzzzzzzzzz",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the " * 75, "the " * 74 + "end", "the " * 76, "word, " * 60,
    "a very long caption about a cat on a mat, " * 9,
]


def load_open_clip():
    """open_clip's tokenizer file and merge table, without importing the package (which wants torchvision and timm)."""
    folder = pathlib.Path(importlib.util.find_spec("open_clip").origin).parent
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", folder / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module, folder / "bpe_simple_vocab_16e6.txt.gz"


def table(module, path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt of CLIP as derived from the merge table."""
    lines = gzip.open(path).read().decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1:49152 - 256 - 2 + 1]]
    chars = list(module.bytes_to_unicode().values())
    words = chars + [c + "</w>" for c in chars] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {w: i for i, w in enumerate(words)}, merges


def reference(module, vocab: dict[str, int]):
    """open_clip's tokenizer with OpenAI's names of the special tokens (its own names differ and mean nothing to SD files)."""
    clip = module.SimpleTokenizer(clean="lower")
    specials = ["<|startoftext|>", "<|endoftext|>"]
    clip.encoder = vocab
    clip.cache = {t: t for t in specials}
    words = r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    clip.pat = regex.compile("|".join(map(regex.escape, specials)) + words, regex.IGNORECASE)
    return clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    module, path = load_open_clip()
    vocab, merges = table(module, path)
    clip = reference(module, vocab)
    hugging = CLIPTokenizer(vocab=vocab, merges=merges)

    def plain(text: str) -> list[int]:
        clip.clean_fn = lambda t: module.whitespace_clean(unicodedata.normalize("NFC", html.unescape(html.unescape(t)))).lower()
        return clip.encode(text)

    def with_ftfy(text: str) -> list[int]:
        clip.clean_fn = module._clean_lower
        return clip.encode(text)

    cases = []
    for text in TEXTS:
        ids = plain(text)
        case = {"text": text, "ids": ids}
        if (other := with_ftfy(text)) != ids:
            case["ftfy"] = other
        if (other := hugging(text, add_special_tokens=False)["input_ids"]) != ids:
            case["transformers"] = other
        kept = ids[:LENGTH - 2]
        chunk = [BOS, *kept] + [EOS] * (LENGTH - 1 - len(kept))
        if len(cases) < 5 or len(ids) > 60:
            case["chunk"] = chunk
        if "transformers" not in case:
            theirs = hugging(text, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
            assert theirs == chunk, text
        cases.append(case)
    # One line a case keeps the file readable and its diffs short.
    args.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(c) for c in cases)
    (args.out / "tokenizer.json").write_text(f'{{"bos": {BOS}, "eos": {EOS}, "vocab": {len(vocab)}, "cases": [\n {lines}\n]}}\n')
    print(len(cases), "texts;", sum("transformers" in c for c in cases), "differ in transformers,", sum("ftfy" in c for c in cases), "with ftfy")
    for c in cases:
        if "transformers" in c or "ftfy" in c:
            print(ascii(c["text"]), c["ids"], c.get("transformers"), c.get("ftfy"))


if __name__ == "__main__":
    main()
