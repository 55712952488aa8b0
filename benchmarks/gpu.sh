#!/usr/bin/env bash
# Everything that needs a GPU, in one command: gpu.sh test | bench | sanitize. Called by `make gpu-test` and its like.
#
# Without a GPU it says so in one line and ends with status 0: there is nothing to do, which is no failure. With a GPU it
# takes a Python that already has what is needed, also on a machine that reaches no package registry; else it installs.
#
#   PYTHON   a Python to try first (python3)        VENV   where to install, if that one lacks something (.venv)
#   OUT      folder for results of the benchmarks   SITE   a folder of unpacked packages to add, such as DALI's
#   LIMIT    seconds for all of it (580)
set -uo pipefail
cd "$(dirname "$0")/.."
what=${1:?test, bench or sanitize}
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv} OUT=${OUT:-benchmarks/results/gpu} LIMIT=${LIMIT:-580}

if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu-$what: no GPU, or no NVIDIA driver, on this machine: nothing was run"
    exit 0
fi

# Both packages from this checkout, without installing it: the folder kernels is imported as rxrx_kernels.
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
ln -s "$PWD/rxrx_fast" "$links/rxrx_fast"
ln -s "$PWD/kernels" "$links/rxrx_kernels"
# Folders on PYTHONPATH are not searched for .pth files, by one of which numba-cuda takes the place of numba's own.
echo "import os, site; site.addsitedir(os.environ['SITE']) if os.environ.get('SITE') else None" >"$links/sitecustomize.py"
export SITE=${SITE:-}
export PYTHONPATH="$links${SITE:+:$SITE}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1

# What a Python lacks, one a line.
missing() {
    "$1" - <<'EOF' 2>/dev/null || echo "$1 does not run"
import importlib
names = "torch numba.cuda nvidia.dali deflate pandas PIL tifffile scipy tqdm matplotlib pytest hypothesis"
for name in names.split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name} ({error})")
import numba.cuda
if getattr(numba.cuda, "implementation", "") != "NVIDIA":
    print("numba-cuda (numba's own CUDA target is found instead)")
import torch
if not torch.cuda.is_available():
    print(f"torch {torch.__version__} sees no GPU")
EOF
}

python=$PYTHON
lacking=$(missing "$python")
if [ -n "$lacking" ]; then
    echo "$python lacks: $(echo "$lacking" | paste -sd ';'); trying $VENV"
    [ -x "$VENV/bin/python" ] && [ -z "$(missing "$VENV/bin/python")" ] || make -s gpu-install VENV="$VENV"
    if [ -x "$VENV/bin/python" ] && [ -z "$(missing "$VENV/bin/python")" ]; then
        python=$PWD/$VENV/bin/python lacking=""
    fi
fi
needed=$(echo "$lacking" | grep -E '^(torch|numba|deflate|pytest|hypothesis|.* does not run)' || true)
if [ -n "$needed" ]; then
    echo "gpu-$what: there is a GPU, but no Python that can use it: $(echo "$needed" | paste -sd ';'). Unpack the packages" \
        "into a folder and name it: make gpu-$what SITE=/tmp/site"
    exit 1
fi
tests=tests benches="gpu_kernels gpu_loader gpu_training"
if [ -n "$lacking" ]; then
    echo "skipped: everything but the kernels' own tests, because of: $(echo "$lacking" | paste -sd ';')"
    tests=tests/kernels benches=""
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)'

case $what in
test)
    # -ra, from pyproject.toml, lists what was skipped and why.
    # Tests that would begin later are skipped, and said, rather than the whole of it killed without a summary.
    RXRX_FAST_TEST_SECONDS=$((LIMIT - 60)) timeout "$LIMIT" \
        "$python" -m pytest -m gpu -p no:cacheprovider --durations=15 "$tests"
    ;;
bench)
    status=0 left=$LIMIT
    [ -z "$benches" ] && echo "gpu-bench: nothing was run"
    for bench in $benches; do
        start=$SECONDS
        # A share of what is left: a script leaves out, and says, what does not fit in it.
        [ "$bench" = gpu_training ] && share=$((left - 30)) || share=$((left * 3 / 10))
        echo "== $bench"
        timeout "$left" "$python" "benchmarks/$bench.py" --out "$OUT" --limit "$share" || status=1
        left=$((left - (SECONDS - start)))
    done
    exit $status
    ;;
sanitize)
    if ! command -v compute-sanitizer >/dev/null; then
        echo "gpu-sanitize: compute-sanitizer is not installed (it comes with CUDA): nothing was run"
        exit 0
    fi
    status=0
    # torch's allocator would hide what lies beyond an array behind what it has put there.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    # Small cases: a checked kernel is a hundred times as slow. The first tool finds most of what there is to find.
    for tool in memcheck racecheck initcheck synccheck; do
        for case in png:damage png:filters_8 png:filters_16 png:adler \
            batch:fused batch:histograms batch:augmented_8 batch:augmented_16; do
            left=$((LIMIT - SECONDS))
            if [ "$left" -lt 20 ]; then
                echo "skipped: $tool $case: the time limit was reached; raise LIMIT"
                continue
            fi
            echo "== $tool $case"
            (cd tests/support && timeout "$left" compute-sanitizer --tool $tool --error-exitcode 9 \
                "$python" "cuda_${case%%:*}_cases.py" "${case##*:}") || status=1
        done
    done
    exit $status
    ;;
*)
    echo "gpu.sh: test, bench or sanitize, not $what"
    exit 2
    ;;
esac
