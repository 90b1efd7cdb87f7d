#!/usr/bin/env bash
# Run a command with its temporary files in memory, where there is plenty: the tests seal thousands of small stores, and a
# disk takes milliseconds for each file that is synced to it. The files are removed when the command ends.
set -euo pipefail
free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || true)
memory=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo 2>/dev/null || true)
gib=$((1024 * 1024))
if [ -w /dev/shm ] && [ "${free:-0}" -ge $((8 * gib)) ] && [ "${memory:-0}" -ge $((12 * gib)) ]; then
  TMPDIR=$(mktemp -d /dev/shm/t-XXXXXX) # short: the path of a socket has 107 bytes at most
  chmod 1777 "$TMPDIR" # as /tmp: some tests run as another user
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
fi
"$@"
