#!/usr/bin/env bash
# The laptop's tests in an environment without torch: on the Python that runs everything else and, with CI=true, on a
# newer one where there is one (zarr is 3.1 on Python 3.11 and 3.4 or newer from 3.12 on).
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

works() { "$1" -c 'import sys, venv, ensurepip' >/dev/null 2>&1; }

run_with() {
  local python=$1 tag environment
  tag=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  environment=.venv-laptop-$tag
  [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
  "$environment/bin/python" -m pip install -q -e '.[test-laptop]'
  echo "== without torch, Python $tag, zarr $("$environment/bin/python" -c 'import zarr; print(zarr.__version__)')"
  "$environment/bin/python" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(m) for m in ("torch", "timm", "open_clip")))' \
    || { echo "torch crept into the laptop's environment"; exit 1; }
  bash tests/in_memory.sh "$environment/bin/python" -m pytest -q -n 2 --dist worksteal tests/test_imports.py tests/test_cache_schema tests/test_analyze
}

run_with "${PYTHON:-python3}"
[ "${CI:-}" = true ] || { echo "== CI=true runs them on a newer Python as well"; exit 0; }
base=$("${PYTHON:-python3}" -c 'import sys; print(sys.version_info[1])')
for minor in 14 13 12; do
  [ "$minor" -gt "$base" ] || continue
  for candidate in "python3.$minor" "$HOME"/.pyenv/versions/3."$minor".*/bin/python; do
    if command -v "$candidate" >/dev/null 2>&1 && works "$candidate"; then run_with "$candidate"; exit 0; fi
  done
done
echo "== no newer Python at hand"
