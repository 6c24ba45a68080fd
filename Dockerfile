# A CPU image by default:   docker build -t cl_complora .
# One with CUDA:            docker build -t cl_complora:cuda --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 \
#                             --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
# Run: docker run --rm -v "$PWD/runs:/work/runs" -v "$HOME/data:/data:ro" cl_complora run embedded
ARG BASE=python:3.12-slim
FROM ${BASE}

# Ubuntu's images (those of CUDA) bring no Python.
RUN command -v python3 && python3 -m venv --help >/dev/null 2>&1 || \
    (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /opt/cl_complora
ENV PATH=/opt/cl_complora/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install torch torchvision --index-url ${TORCH_INDEX}

COPY . /src
RUN pip install "/src[transformers]"

# Data is looked for in /data; runs and decoded pictures are written below /work.
ENV CL_COMPLORA_DATA=/data CL_COMPLORA_CACHE=/work/cache MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
RUN useradd --create-home --uid 1001 researcher && chown researcher /work
USER researcher
ENTRYPOINT ["cl-complora"]
CMD ["--help"]
