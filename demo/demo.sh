#!/usr/bin/env bash
# The main job on an embedded default: five photographs, a tiny model of SD1.x architecture made on the spot, an adapter trained on them, its loss
# on a held-out picture and a sample picture before and after. `make demo` builds bin/lycoris first.
set -euo pipefail
cd "$(dirname "$0")/.."
run=demo-run
rm -rf "$run"
mkdir -p "$run"
go run ./scripts/fullsize -tiny "$run/tiny.safetensors"
picture() { # FOLDER [more flags]
	bin/lycoris sample --no-config --model "$run/tiny.safetensors" --prompt "a photo of a tabby cat" --size 256 --steps 10 --seed 1 --out "$run/$1" "${@:2}"
}
picture before
bin/lycoris train --no-config --model "$run/tiny.safetensors" --data demo/photos --resolution 256 --algo=lora --dim=8 --lr 1e-3 --steps 200 \
	--name demo --out "$run" --set validate.split=0.2 --set validate.every=50 --set save.every_epochs=0 --set cache.dir="$run/cache"
losses=$(grep '"type":"val"' "$run/demo/metrics.jsonl" | sed 's/.*"loss":\([0-9.e+-]*\).*/\1/')
first=$(head -1 <<<"$losses")
last=$(tail -1 <<<"$losses")
picture after --adapter "$run/demo/demo.safetensors"
echo
echo "loss on the held-out picture: $first before, $last after"
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a) }' || { echo "the loss did not fall" >&2; exit 1; }
echo "adapter: $run/demo/demo.safetensors; pictures: $run/before, $run/after (a tiny model draws blocks of colour, not cats)"
