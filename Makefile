# make demo   train AlexNet on real photographs and draw what it learned     make test   every check that needs no GPU
# make bench  ours beside PyTorch, into benchmarks/results/     make bench ONLY=bench_conv   one of them
# make judge  all comparisons with PyTorch     make versions   the tests with the oldest and newest of everything
# make mutate mistakes planted in a copy, of which the tests should notice each     make mutate COUNT=60 SEED=1   a sample
# Each target makes .venv and installs what it needs. PYTHON chooses the interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
JOBS   ?= 2

SHELL  := bash

.PHONY: demo test slow fuzz judge versions mutate lint bench gradcheck \
        gpu-check gpu-core gpu-products gpu-rest gpu-profile clean

demo: $(VENV)/demo
	$(RUN)/python examples/alexnet_imagenet.py

test: $(VENV)/dev
	$(RUN)/python -m pytest -n $(JOBS)

slow: $(VENV)/dev $(VENV)/demo
	$(RUN)/python -m pytest -m slow

fuzz: $(VENV)/dev            # a hundred thousand damaged files of every kind, in some minutes; make test reads a few
	$(RUN)/python -m tests.fuzz.run $(if $(COUNT),--count $(COUNT))

judge: $(VENV)/dev $(VENV)/judge
	$(RUN)/python -m pytest -n $(JOBS) -m "torch and not cuda"

# The oldest versions that pyproject.toml allows and the newest there are, under each Python from 3.10 to 3.14 that is here.
versions:
	$(PYTHON) .ci/versions.py --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))

mutate: $(VENV)/dev          # goes on where it was stopped; all mutants take days
	$(RUN)/python -m tests.mutate.run $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(UNTIL),--until $(UNTIL))

gradcheck: $(VENV)/dev
	$(RUN)/minicnn gradcheck

# On a machine with an NVIDIA GPU: its tests, compute-sanitizer, PyTorch beside it, hardware counters. CUDA=12 for a driver
# of CUDA 12. Without a network, by a Python that has CuPy, Numba and pytest, in place and without installing anything:
#   make gpu-check GPU_PY=python3 RESULTS=results
# Four parts, each of which ends within nine minutes, goes on where a command fails, and says what is not here. Together
# they leave at most eight files in RESULTS. Compiled kernels are kept in .gpu from part to part.
CUDA      ?= 13
RESULTS   ?= results
GPU_PARTS := gpu-core gpu-products gpu-rest gpu-profile
ifndef GPU_PY
GPU_PY    := $(RUN)/python
GPU_NEEDS := $(VENV)/cuda$(CUDA)
endif

# try SECONDS COMMAND: a failure is noted, and does not stop the part. has MODULE, on_path PROGRAM: or a line that says so.
GPU_PART = mkdir -p .gpu $(RESULTS); \
	export PYTHONPATH=$$PWD$${PYTHONPATH:+:$$PYTHONPATH} PYTHONUNBUFFERED=1 CUPY_CACHE_DIR=$$PWD/.gpu/cupy \
	NUMBA_CACHE_DIR=$$PWD/.gpu/numba TORCHINDUCTOR_CACHE_DIR=$$PWD/.gpu/inductor TRITON_CACHE_DIR=$$PWD/.gpu/triton; \
	failed=0; \
	try() { echo "== $$*"; timeout "$$@" || { echo "== FAILED (exit code $$?): $$*"; failed=1; }; }; \
	has() { $(GPU_PY) -c "import $$1" 2> /dev/null || { echo "== $$1 is not installed: $$2"; return 1; }; }; \
	on_path() { command -v $$1 > /dev/null || { echo "== $$1 is not here: $$2"; return 1; }; }; \
	options="-m cuda -W default -p no:benchmark -p no:cacheprovider -q -rs"; tests="$(GPU_PY) -m pytest $$options"; \
	many="$$($(GPU_PY) -c 'import xdist' 2> /dev/null && printf -- '-n 8')"; set -o pipefail;
SANITIZE = compute-sanitizer --error-exitcode 9 --tool
# CuPy's pool puts small arrays side by side in one piece of memory, where memcheck does not see that one is left.
UNPOOLED = import cupy, pytest, sys; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))

gpu-check: $(GPU_NEEDS)
	@failed=; for part in $(GPU_PARTS); do $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; done; \
	[ -z "$$failed" ] || { echo "error: failed:$$failed; see the lines == FAILED above, and in $(RESULTS)" >&2; exit 1; }

gpu-core: $(GPU_NEEDS)        # what is here; correctness of kernels, steps and nets; a step as a time line
	@$(GPU_PART) { on_path nvidia-smi "no GPU, or its driver is not installed" && try 20 nvidia-smi; \
	try 60 $(GPU_PY) -m minicnn.cli.doctor; \
	try 300 $$tests $$many tests/backend tests/kernels tests/train/test_step.py tests/models/test_cuda.py; \
	has PIL "no prediction" && try 40 $(GPU_PY) benchmarks/gpu_prediction.py; \
	has matplotlib "a step is not drawn" && has safetensors "a step is not drawn" && \
		try 120 $(GPU_PY) benchmarks/timeline.py --device cuda --batch 128 --out $(RESULTS)/timeline.png; \
	exit $$failed; } 2>&1 | tee $(RESULTS)/core.txt

gpu-products: $(GPU_NEEDS)    # training and matrix products beside PyTorch, and the five versions of the products
	@$(GPU_PART) { has torch "nothing is compared with PyTorch" && { \
	try 330 $(GPU_PY) benchmarks/bench_cuda.py --precision tf32 --json $(RESULTS)/tf32.json; \
	try 200 $(GPU_PY) benchmarks/bench_ladder.py --pairs 5 --json $(RESULTS)/ladder.json; }; exit $$failed; }

gpu-rest: $(GPU_NEEDS)        # the remaining tests; races and stray accesses, by compute-sanitizer
	@$(GPU_PART) { try 200 $$tests $$many tests/layers tests/gradcheck tests/test_mutations.py tests/parallel/test_gpus.py \
		tests/train/test_sgd.py tests/train/test_optimisers.py tests/data/test_augment.py tests/test_plan.py tests/test_trace.py \
		tests/models/test_own_net_and_layer.py; \
	on_path compute-sanitizer "races and stray accesses are looked for by the emulator only" && { \
	try 120 $(SANITIZE) memcheck $(GPU_PY) -c "$(UNPOOLED)" $$options -x tests/backend/cuda/test_gemm_tiling.py \
		tests/test_mutations.py -k "integers or correct_operations"; \
	try 120 $(SANITIZE) racecheck $$tests -x tests/kernels -k "float32 and (lrn or epilogue or pool or batchnorm)"; \
	try 80 $(SANITIZE) synccheck $$tests -x tests/backend/cuda/test_gemm_tiling.py -k "integers and v5"; }; \
	exit $$failed; } 2>&1 | tee $(RESULTS)/rest.txt

gpu-profile: $(GPU_NEEDS)     # hardware counters of a step, an epoch of the main example, and training in bf16 beside PyTorch
	@$(GPU_PART) { on_path ncu "no hardware counters" && try 180 ncu --clock-control none --section SpeedOfLight \
		--section WarpStateStats --section MemoryWorkloadAnalysis -s 200 -c 90 --csv --log-file $(RESULTS)/ncu.csv \
		$(GPU_PY) benchmarks/timeline.py --device cuda --batch 128 --out .gpu/timeline-profiled.png; \
	has safetensors "nothing is trained" && has PIL "nothing is trained" && try 100 $(GPU_PY) examples/alexnet_imagenet.py \
		--data synthetic --device cuda --batch 128 --epochs 1 --out .gpu/runs; \
	has torch "nothing is compared with PyTorch" && \
		try 200 $(GPU_PY) benchmarks/bench_cuda.py --precision bf16 --only training --json $(RESULTS)/bf16.json; \
	exit $$failed; }

lint: $(VENV)/dev
	$(RUN)/ruff check .

bench: $(VENV)/judge
	$(RUN)/python benchmarks/run_all.py $(if $(ONLY),--only $(ONLY))

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras, remade when the list of dependencies changes.
$(VENV)/demo: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[example]'
	@touch $@

$(VENV)/dev: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/cuda$(CUDA): pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[dev,cuda$(CUDA)]'
	@touch $@

# PyTorch for the CPU: the default of PyPI brings gigabytes of libraries for GPUs.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Beside it, without what they depend on: torch's newer exporter of ONNX, and torchvision's networks, torch 2.N with 0.N+15.
VISION := 'import torch; print(f"torchvision==0.{int(torch.__version__.split(chr(46))[1]) + 15}.*")'
$(VENV)/judge: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check --extra-index-url $(TORCH_INDEX) -e '.[judge]'
	$(RUN)/pip install --quiet --disable-pip-version-check --no-deps onnxscript onnx-ir "$$($(RUN)/python -c $(VISION))"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
