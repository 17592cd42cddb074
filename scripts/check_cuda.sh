#!/usr/bin/env bash
# Proves the program on an NVIDIA GPU and measures it beside PyTorch, in under six minutes:
#
#   scripts/check_cuda.sh [BINARY] [--cpu] [--only WORD] [--keep DIR]
#
# It needs the binary (target/release/ssl-cluster), data/, and a python3 whose torch 2.11.0 is for CUDA: its
# libraries serve as libtorch. No cargo, no network. With --cpu every check runs on the CPU, small, and
# Python needs no torch. One line for each check as it ends, a table at the end; exit code 1 where a check
# failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "check_cuda: no $python: install Python 3.9 or newer" >&2; exit 2; }
case " $* " in
  *" --cpu "* | *" --help "* | *" -h "*) ;;
  *)
    lib=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0] + "/lib")' 2>/dev/null) ||
      { echo "check_cuda: $python has no torch: name one that has with PYTHON=..., or use --cpu" >&2; exit 2; }
    # Where the binary's own run path leads to libtorch, that comes first.
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    ;;
esac
exec "$python" scripts/check_cuda.py "$@"
