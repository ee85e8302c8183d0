# The book without a Python of one's own, by a user who is not root:
#   docker build -t epigen . && docker run --name book epigen && docker cp book:/home/epigen/project/_build/html .
# python:3.11-slim-bookworm; its digest is kept by .github/dependabot.yml.
FROM python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84 AS base
RUN apt-get update \
  && apt-get install -y --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home epigen \
  && install -d -o epigen -g epigen /home/epigen/project
USER epigen
WORKDIR /home/epigen/project

FROM base
# What set-up reads, so that a change elsewhere does not install everything again.
COPY --chown=epigen Makefile pyproject.toml requirements.lock README.md ./
COPY --chown=epigen .ci/cuda.lock .ci/
COPY --chown=epigen epigen_utils epigen_utils
# The address of PyTorch's CPU wheels, for an image without CUDA.
ARG PIP_EXTRA_INDEX_URL
RUN make venv CI=1 && rm -rf ~/.cache/pip
COPY --chown=epigen . .
# Copied files keep their dates, which may be later than the environment's.
RUN touch .venv/.ready
CMD ["make", "book"]
