#!/usr/bin/env bash
# Fetches libtorch and links it as .libtorch in the project root, where cargo looks for it.
#
#   scripts/libtorch.sh           what is linked already; else CUDA where there is a usable
#                                 NVIDIA GPU; else CPU
#   scripts/libtorch.sh --cpu     for the CPU alone
#   scripts/libtorch.sh --cuda    with NVIDIA's libraries
#
# libtorch comes out of PyPI's torch wheel, through pip and its own configuration (mirrors,
# proxies, certificates). It is kept in the user's cache directory, so that a second clone
# fetches nothing. Your own LIBTORCH or LIBTORCH_USE_PYTORCH is respected.
set -euo pipefail

# tch 0.24 is made for exactly this version of torch. The other two are the only NVIDIA
# libraries that libtorch_cpu.so itself links, at the versions that this wheel asks for.
torch=2.11.0
cpu_wheels=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
# The wheel's CUDA 13 needs at least this NVIDIA driver.
driver_needed=580
# At the peak of an installation (the wheels and what is unpacked from them), with a margin:
# measured: CPU 1.7 GB, of which 0.7 GB stay; CUDA 7.1 GB, of which 4.6 GB stay.
cpu_need_mb=2000
cuda_need_mb=8500

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
link=$root/.libtorch

say() { printf '%s\n' "libtorch: $*" >&2; }
die() {
  say "$*"
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

variant=auto
for arg in "$@"; do
  case $arg in
    --cpu) variant=cpu ;;
    --cuda) variant=cuda ;;
    --auto) variant=auto ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown option '$arg' (--cpu, --cuda, --auto, --help)" ;;
  esac
done

# torch-sys takes LIBTORCH_USE_PYTORCH, whatever its value, before LIBTORCH.
if [ -n "${LIBTORCH_USE_PYTORCH+set}" ]; then
  say "LIBTORCH_USE_PYTORCH is set: the build uses Python's own torch; nothing to fetch"
  exit 0
fi
case ${LIBTORCH-} in
  "" | .libtorch | ./.libtorch | "$link") ;;
  *)
    say "LIBTORCH is set: the build uses $LIBTORCH; nothing to fetch"
    exit 0
    ;;
esac

case $(uname -s) in
  Linux) so=so ;;
  Darwin) so=dylib ;;
  *) die "no recipe for $(uname -s): get libtorch $torch yourself and set LIBTORCH to its directory" ;;
esac

[ -n "${XDG_CACHE_HOME-}${HOME-}" ] || die "no place for the cache: set HOME or XDG_CACHE_HOME"
cache=${XDG_CACHE_HOME:-${HOME-}/.cache}/ssl-cluster
home_of() { printf '%s' "$cache/torch-$torch-$1"; }

# A directory appears in the cache only whole, but cleaners of ~/.cache remove single files.
complete() {
  local t=$1/torch
  [ -s "$t/lib/libtorch_cpu.$so" ] && [ -s "$t/lib/libc10.$so" ] &&
    [ -s "$t/include/torch/csrc/api/include/torch/torch.h" ] &&
    [ -s "$t/include/ATen/ATen.h" ] && [ -s "$t/include/c10/macros/Macros.h" ] || return 1
  [ "$so" = dylib ] || { set -- "$1"/nvidia/*/lib/libcudart.so.* && [ -s "$1" ]; } || return 1
  case $t in *-cuda/torch) [ -s "$t/lib/libtorch_cuda.so" ] ;; esac
}

linked() { # linked VARIANT: does .libtorch lead to that variant, whole?
  local t
  t=$(home_of "$1")/torch
  [ "$(readlink "$link/include" 2>/dev/null)" = "$t/include" ] &&
    [ "$(readlink "$link/lib/libtorch_cpu.$so" 2>/dev/null)" = "$t/lib/libtorch_cpu.$so" ] &&
    [ "$(readlink "$link/lib/libc10.$so" 2>/dev/null)" = "$t/lib/libc10.$so" ] &&
    [ -e "$link/lib/libtorch.$so" ] && [ "$(cat "$link/build-version" 2>/dev/null)" = "$torch+$1" ] &&
    complete "$(home_of "$1")"
}

if [ "$variant" = auto ]; then
  if linked cuda; then
    variant=cuda
  elif linked cpu; then
    variant=cpu
  else
    variant=cpu
    if [ "$so" = so ] && have nvidia-smi && nvidia-smi -L >/dev/null 2>&1; then
      driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 || true)
      if [ "${driver%%.*}" -ge "$driver_needed" ] 2>/dev/null; then
        variant=cuda
      else
        say "the NVIDIA driver (${driver:-unknown version}) is older than $driver_needed: taking the CPU build; update it and use --cuda"
      fi
    fi
  fi
fi
[ "$variant" != cuda ] || [ "$so" = so ] || die "there is no CUDA on macOS: leave --cuda out"

if linked "$variant"; then
  say "$torch ($variant) is ready: .libtorch leads to $(home_of "$variant")"
  exit 0
fi

# From here on something has to be made; find out first whether it can be.
compiler=${CXX:-c++}
if [ "$so" = dylib ]; then
  have "${compiler%% *}" || die "no C++ compiler ('$compiler'): install one with 'xcode-select --install'"
else
  have "${compiler%% *}" || die "no C++ compiler ('$compiler'): install one, on Debian or Ubuntu with 'apt install g++'"
fi
python=${PYTHON:-python3}
have "$python" || die "no python3: install it, on Debian or Ubuntu with 'apt install python3-pip'"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1 ||
  die "'$python' does not run, or is older than Python 3.8: install a newer one, or name one with PYTHON=..."

dir=$(home_of "$variant")
partial=
cleanup() { [ -z "$partial" ] || rm -rf "$partial"; }
trap cleanup EXIT
trap 'say "interrupted; nothing half made is left"; exit 130' INT
trap 'exit 143' TERM HUP

last_error() { # the line of pip's log that says most
  local line
  line=$(grep -E '^(ERROR|error)' "$1" | tail -n 1 || true)
  printf '%s' "${line:-$(tail -n 1 "$1")}"
}

explain() { # explain LOG: pip's failure in one line, with the cure
  local log=$1 network
  # An interrupted pip fails too, and its own complaint would hide why.
  if grep -q 'Operation cancelled by user' "$log"; then die "interrupted; nothing half made is left"; fi
  if grep -q -i -E 'no space left|disk quota' "$log"; then
    die "the disk of $cache is full: free some space, or set XDG_CACHE_HOME to a directory with more"
  fi
  network='ConnectionError|NewConnection|ProxyError|Max retries|Connection (refused|reset|broken|aborted)|ConnectTimeout|[Tt]imed out|name resolution|Name or service|SSLError|IncompleteRead|ProtocolError|HTTP error'
  if grep -q -E "$network" "$log"; then
    die "pip cannot reach PyPI: connect to the network (or set HTTPS_PROXY, or pip's index-url to a mirror) and run this again"
  fi
  if grep -q -E 'No matching distribution|not a supported wheel' "$log"; then
    die "pip finds no torch $torch for $(uname -s) on $(uname -m): update pip ('$python -m pip install --upgrade pip'), or get libtorch $torch and set LIBTORCH"
  fi
  die "pip failed: $(last_error "$log")"
}

fetch() {
  local need=$cpu_need_mb free wheels what log pip
  [ "$variant" = cpu ] || need=$cuda_need_mb
  mkdir -p "$cache" 2>/dev/null || die "cannot write $cache: set XDG_CACHE_HOME to a directory that you can write"
  [ -w "$cache" ] || die "cannot write $cache: set XDG_CACHE_HOME to a directory that you can write"

  # Two at once: the second waits and then finds the work done. Without flock (macOS) both
  # fetch, and the rename below lets one of them win.
  exec 9>"$cache/.lock"
  if have flock; then
    if ! flock -n 9; then
      say "another run is fetching; waiting for it"
      flock 9
    fi
    if complete "$dir"; then return 0; fi
    # With the lock held, what an earlier run that was killed left behind is nobody's.
    rm -rf "$dir".partial.*
  fi

  free=$(($(df -Pk "$cache" | awk 'NR == 2 { print $4 }') / 1024))
  [ "$free" -ge "$need" ] ||
    die "$cache has $free MB free and needs $need MB: free some space, or set XDG_CACHE_HOME to a directory with more"

  partial=$dir.partial.$$
  mkdir "$partial"
  mkdir "$partial/tmp"
  log=$partial/pip.log

  pip=("$python" -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    # A Python without pip can often make itself an environment with one.
    if "$python" -m venv "$partial/tmp/venv" >/dev/null 2>&1; then
      pip=("$partial/tmp/venv/bin/python" -m pip)
    else
      die "$python has no pip: install it, on Debian or Ubuntu with 'apt install python3-pip'"
    fi
  fi

  # --target also takes Debian's 'externally managed' marker out of the way. Nothing here
  # is Python to be run, so byte code is not wanted, and pip's cache would only hold the
  # wheels a second time.
  pip+=(install --target "$partial/site" --only-binary :all: --no-compile --no-cache-dir
    --no-input --disable-pip-version-check)
  # Only the C++ parts are used, so a Python too old or too new for the wheels still serves.
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'; then
    pip+=(--python-version 3.12)
  fi
  wheels=("torch==$torch")
  what="with CUDA, about 2.6 GB"
  if [ "$variant" = cpu ]; then
    pip+=(--no-deps)
    what="for the CPU"
    if [ "$so" = so ]; then
      wheels+=("${cpu_wheels[@]}")
      what="for the CPU, about 550 MB"
    fi
  fi
  say "fetching torch $torch from PyPI ($what) into $dir"
  # On a terminal pip's progress bar shows that something happens; elsewhere it is noise.
  if [ -t 2 ]; then pip+=(--progress-bar on); else pip+=(--quiet); fi
  # TMPDIR: pip unpacks there before it moves, and /tmp may be small or in memory.
  # PIP_USER, PIP_REQUIRE_VIRTUALENV: settings that make sense for other installations.
  if ! PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 TMPDIR=$partial/tmp "${pip[@]}" "${wheels[@]}" \
    3>&2 2>"$log" >&3 3>&-; then
    explain "$log"
  fi
  rm -rf "$partial/tmp"

  # The wheel carries CUDA's half of libtorch; without its NVIDIA libraries it cannot load
  # and would only take a third of the space.
  if [ "$variant" = cpu ]; then
    rm -f "$partial"/site/torch/lib/libtorch_cuda*.so "$partial"/site/torch/lib/libtorch_nvshmem.so
  fi

  # The directory's name tells complete() what to expect in it.
  mv "$partial/site" "$partial/$(basename "$dir")"
  complete "$partial/$(basename "$dir")" ||
    die "the torch $torch wheel lacks files that it should have: run this again, or get libtorch $torch and set LIBTORCH"
  check_loads "$partial/$(basename "$dir")"

  # Python's rename, because mv would put the new directory into one that is there already.
  if [ -e "$dir" ] && ! complete "$dir"; then mv "$dir" "$partial/damaged"; fi
  "$python" -c 'import os, sys; os.rename(*sys.argv[1:])' "$partial/$(basename "$dir")" "$dir" 2>/dev/null ||
    complete "$dir" || die "cannot move what was fetched to $dir: remove that directory and run this again"
  rm -rf "$partial"
  partial=
}

check_loads() { # can the libraries be loaded, with everything that they need?
  local reason
  reason=$("$python" - "$1/torch/lib" "$so" 2>&1 <<'PY'
import ctypes, os, sys
lib, so = sys.argv[1:]
for name in ("libtorch_cpu", "libtorch_cuda"):
    path = f"{lib}/{name}.{so}"
    if os.path.exists(path):
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as e:
            sys.exit(str(e).splitlines()[0])
# Thousands of static objects would be torn down one by one; nothing here needs it.
os._exit(0)
PY
  ) || die "libtorch cannot be loaded: ${reason##*$'\n'} (this system may be too old for the wheel: get libtorch $torch and set LIBTORCH)"
}

make_links() {
  # Each link is replaced by a rename, so that a build that runs meanwhile always finds one.
  # build-version comes last: torch-sys checks the version in it, and its time tells
  # build.rs that the run path has to be set anew.
  "$python" - "$link" "$dir/torch" "$so" "$torch+$variant" <<'PY' ||
import os, sys

link, torch, so, version = sys.argv[1:]

def put(path, make):
    tmp = f"{path}.new{os.getpid()}"
    make(tmp)
    os.replace(tmp, path)

def point(path, target):
    put(path, lambda tmp: os.symlink(target, tmp))

def write(path):
    with open(path, "w") as f:
        f.write(version + "\n")

try:
    if os.path.islink(link):
        os.remove(link)
    os.makedirs(f"{link}/lib", exist_ok=True)
    point(f"{link}/include", f"{torch}/include")
    # Only these: were libtorch_cuda.so among them, torch-sys would link it, and the binary
    # would not start on a machine without it.
    for name in (f"libc10.{so}", f"libtorch_cpu.{so}", "libgomp.so.1", "libomp.dylib"):
        if os.path.exists(f"{torch}/lib/{name}"):
            point(f"{link}/lib/{name}", f"{torch}/lib/{name}")
    # libtorch itself is an empty library that only names the others.
    point(f"{link}/lib/libtorch.{so}", f"libtorch_cpu.{so}")
    put(f"{link}/build-version", write)
except OSError as e:
    sys.exit(f"libtorch: cannot make {e.filename}: {e.strerror}")
PY
    die "cannot link libtorch as $link: remove that directory and run this again"
}

fetched=no
if ! complete "$dir"; then
  fetch
  fetched=yes
fi
make_links
[ "$fetched" = yes ] || check_loads "$dir"
linked "$variant" || die "$link is not as it should be: remove that directory and run this again"
say "$torch ($variant) is ready: .libtorch leads to $dir"
