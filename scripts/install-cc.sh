#!/bin/sh
# Installs a C compiler on Debian or Ubuntu; root or sudo.
set -eu
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v apt-get >/dev/null; then
	echo "no C compiler found: install gcc or clang" >&2
	exit 1
fi
as_root apt-get update -q
as_root apt-get install -y -q gcc libc6-dev
