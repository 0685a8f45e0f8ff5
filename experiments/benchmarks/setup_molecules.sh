#!/bin/sh
# The environment of molecules.py: this program's own packages, and the two peers beside them.
#
#     sh experiments/benchmarks/setup_molecules.sh FOLDER
#     FOLDER/bin/python experiments/benchmarks/molecules.py
#
# PYTHON (default: python) is an interpreter that has this program. FOLDER sees its packages, so both run on the same
# torch. pytorch-fast-transformers is compiled, one job at a time and at the lowest priority: some ten minutes. It builds CUDA
# code wherever it finds nvcc, with an -arch that CUDA 13 no longer knows, so nvcc is hidden from it: CPU code alone.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: sh experiments/benchmarks/setup_molecules.sh FOLDER" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
base=${PYTHON:-python}
"$base" -m venv "$1"
folder=$(cd "$1" && pwd)
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/program.pth"
(cd "$here/../.." && pwd) >> "$site/program.pth"

without_nvcc=
old_separator=$IFS
IFS=:
for part in $PATH; do
    [ -x "$part/nvcc" ] || without_nvcc=$without_nvcc:$part
done
IFS=$old_separator
PATH=$folder/bin$without_nvcc
export PATH MAX_JOBS=1

pip="nice -n 19 $folder/bin/python -m pip install --disable-pip-version-check"
$pip --quiet "setuptools>=77,<82" wheel
$pip --no-build-isolation --requirement "$here/molecules_requirements.txt"
"$folder/bin/python" -c 'import fast_transformers.builders, transformers, torch
print(f"torch {torch.__version__}, transformers {transformers.__version__}, pytorch-fast-transformers: ready")'
