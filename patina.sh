#!/bin/sh
# Start Patina on Linux or macOS; install it first where that is needed.
#
#   ./patina.sh                   the studio, in the browser
#   ./patina.sh train IMAGES ...  the command line; ./patina.sh --help lists it
#   ./patina.sh test [...]        lint, types and the whole test suite; arguments go to pytest
#   ./patina.sh test quick        lint and what answers within a minute: no browser, no training
#
# Needs Python 3.11, 3.12 or 3.13 (PATINA_PYTHON names one). Everything goes into .venv beside this
# script. PATINA_TORCH_INDEX names another package index for torch, e.g. PyTorch's for ROCm.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv=$root/.venv
python=$venv/bin/python
installing=$venv/patina-installing
log=$venv/patina-install.log
pytorch_index=https://download.pytorch.org/whl/cpu

say() { printf 'patina: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# What an installation depends on. The folder belongs to it, because a .venv cannot be moved.
fingerprint() {
    echo "$root"
    cat "$root/pyproject.toml" "$root/constraints.txt" | cksum
}

is_installed() { # runtime|dev
    [ -x "$python" ] && [ ! -e "$installing" ] && [ -f "$venv/patina-$1" ] &&
        [ "$(cat "$venv/patina-$1")" = "$(fingerprint)" ]
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
    without_venv=
    for candidate in ${PATINA_PYTHON:+"$PATINA_PYTHON"} python3.13 python3.12 python3.11 python3 python; do
        # Version managers put names on PATH that do not run, so each candidate is tried.
        if fits "$candidate"; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$candidate"
                return
            fi
            without_venv=${without_venv:-$candidate}
        fi
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$without_venv lacks the venv module; install it (Debian and Ubuntu: sudo apt install python$version-venv) and run this again."
    fi
    die "no Python 3.11, 3.12 or 3.13 was found; install one from python.org or your package manager and run this again, or name it in PATINA_PYTHON."
}

# What pip says is of use only when something went wrong.
pip() { "$python" -m pip --disable-pip-version-check "$@" >>"$log" 2>&1; }

# Without an NVIDIA card, Linux takes PyTorch's CPU build where its index can be reached, and so
# saves gigabytes of CUDA. In all other cases the default index has the right build.
install_torch() {
    pin=$(grep '^torch==' "$root/constraints.txt")
    if "$python" -c 'import sys, importlib.metadata as m; sys.exit(m.version("torch").split("+")[0] != sys.argv[1])' \
        "${pin#torch==}" 2>/dev/null; then
        return
    fi
    index=${PATINA_TORCH_INDEX:-}
    if [ -z "$index" ] && [ "$(uname -s)" = Linux ] && [ "$has_nvidia" = no ] &&
        "$python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=4)' \
            "$pytorch_index" 2>/dev/null; then
        index=$pytorch_index
    fi
    if [ -n "$index" ]; then
        pip install --no-deps --index-url "$index" "$pin" && return
        [ -z "${PATINA_TORCH_INDEX:-}" ] || return 1
        say "PyTorch's CPU build could not be installed; taking the default build."
    fi
    pip install --constraint "$root/constraints.txt" "$pin"
}

install() { # runtime|dev
    if [ -e "$installing" ] || ! fits "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
        # Missing, of another Python, or left half-made by an interrupted install: begin anew.
        base=$(find_python) || exit 1
        say "making $venv with $base"
        # Python goes first and pip comes after the mark, so that being killed here leaves nothing
        # that looks whole: half-cleared packages, or half a pip that answers to --version.
        rm -f "$venv/patina-runtime" "$venv/patina-dev" "$python"
        "$base" -m venv --clear --without-pip "$venv" && : >"$installing" && "$python" -m ensurepip >/dev/null ||
            die "could not make $venv; see the message above."
    fi
    has_nvidia=no
    if nvidia-smi >/dev/null 2>&1; then has_nvidia=yes; fi
    extras=
    if [ "$1" = dev ]; then extras=dev; fi
    if [ $has_nvidia = yes ]; then extras=${extras:+$extras,}gpu; fi

    # Without a card as measured on Linux; the CUDA libraries of a card are most of the rest.
    size="about 0.4 GB to download, 1.5 GB on the disk"
    if [ $has_nvidia = yes ]; then size="about 3 GB to download, 7 GB on the disk"; fi
    say "installing PyTorch and what else Patina needs into $venv:"
    say "$size; 2 to 10 minutes with a usual connection. What pip says is in $log"
    began=$(date +%s)
    : >"$installing"
    : >"$log"
    rm -f "$venv/patina-runtime" "$venv/patina-dev"
    # The mark stays when this fails or is killed, because pip may leave half a package behind;
    # what was downloaded is in pip's cache, so beginning anew is cheap.
    say "1 of 2: PyTorch, the largest part"
    { install_torch && say "2 of 2: the other packages" && pip install --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}"; } ||
        { tail -n 15 "$log" >&2; die "the installation failed; see the message above, mend it, and run this again."; }
    fingerprint >"$venv/patina-runtime"
    if [ "$1" = dev ]; then fingerprint >"$venv/patina-dev"; fi
    rm -f "$installing"
    say "installed in $(($(date +%s) - began)) s; Patina starts"
}

want=runtime
if [ "${1-}" = test ]; then want=dev; fi
is_installed $want || install $want

case ${1-} in
'')
    exec "$python" -P -m app # -P: a folder named app where the user stands must not be taken for ours
    ;;
test)
    shift
    cd "$root"
    "$python" -m ruff check
    "$python" -m ruff format --check
    if [ "${1-}" = quick ]; then # an answer within a minute
        shift
        set -- -m quick "$@"
    else
        "$python" -m mypy
    fi
    # Files of tests run side by side, each with one thread: the models in them gain nothing from a second one.
    export OMP_NUM_THREADS=1
    exec "$python" -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
    ;;
*)
    exec "$venv/bin/patina" "$@"
    ;;
esac
