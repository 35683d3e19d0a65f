# make demo   train AlexNet on real photographs and draw what it learned     make test   every check that needs no GPU
# make bench  ours beside PyTorch, into benchmarks/results/     make bench ONLY=bench_conv   one of them
# make judge  all comparisons with PyTorch     make versions   the tests with the oldest and newest of everything
# make mutate mistakes planted in a copy, of which the tests should notice each     make mutate COUNT=60 SEED=1   a sample
# Each target makes .venv and installs what it needs. PYTHON chooses the interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test slow fuzz judge versions mutate lint bench gradcheck gpu-check gpu-test gpu-sanitize gpu-bench \
        gpu-core gpu-products gpu-rest gpu-profile clean

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

# On a machine with an NVIDIA GPU: what runs here; the tests on the GPU; every operation under compute-sanitizer, if it is
# there (it comes with the CUDA toolkit); the benchmarks, if PyTorch is. CUDA=12 for a driver of CUDA 12. Without a network,
# install the extras first. The three parts can be had one at a time.
CUDA ?= 13
gpu-check: gpu-test gpu-sanitize gpu-bench

gpu-test: $(VENV)/cuda$(CUDA)
	$(RUN)/minicnn doctor
	$(RUN)/python -m pytest -m cuda

TOOLS ?= memcheck racecheck synccheck
gpu-sanitize: $(VENV)/cuda$(CUDA)
	@if command -v compute-sanitizer > /dev/null; then for tool in $(TOOLS); do \
		echo "compute-sanitizer $$tool"; compute-sanitizer --tool $$tool --error-exitcode 1 $(RUN)/python -m pytest \
		-m cuda tests/backend tests/test_mutations.py -k "right_operations or tensor_cores" || exit 1; done; \
	else echo "compute-sanitizer is not installed: races and stray accesses were looked for by the emulator only"; fi

gpu-bench: $(VENV)/cuda$(CUDA)
	@if $(RUN)/python -c "import torch" 2> /dev/null; then $(RUN)/python benchmarks/run_all.py --gpu; \
	else echo "PyTorch is not installed here: nothing was compared with it"; fi

# The same in place, by a Python that has CuPy, Numba, pytest and PyTorch, without installing anything: four parts, each of
# which ends within ten minutes and leaves its results in RESULTS. Compiled kernels are kept in .gpu between the parts.
#   make gpu-core GPU_PY=python3 RESULTS=results
GPU_PY  ?= python3
RESULTS ?= results
IN_PLACE = mkdir -p .gpu $(RESULTS); export PYTHONPATH=$$PWD PYTHONUNBUFFERED=1 \
	CUPY_CACHE_DIR=$$PWD/.gpu/cupy NUMBA_CACHE_DIR=$$PWD/.gpu/numba TORCHINDUCTOR_CACHE_DIR=$$PWD/.gpu/ind \
	TRITON_CACHE_DIR=$$PWD/.gpu/tri
ON_GPU   = $(GPU_PY) -m pytest -m cuda -W default -p no:benchmark -p no:cacheprovider -q
MANY     = -n 8 --timeout 120

gpu-core:        # what is here; correctness of kernels, steps and nets; a step as a time line
	@$(IN_PLACE); nvidia-smi; for tool in nvcc gcc compute-sanitizer ncu mpiexec; do command -v $$tool || echo no $$tool; done; \
	$(GPU_PY) -m minicnn.cli doctor; \
	timeout 220 $(ON_GPU) $(MANY) tests/backend tests/kernels tests/train/test_step.py tests/models/test_cuda.py \
		--junitxml=$(RESULTS)/core.xml; \
	timeout 90 $(GPU_PY) benchmarks/timeline.py --device cuda --batch 128 --out $(RESULTS)/timeline.png

gpu-products:    # training and matrix products beside PyTorch, and the five versions of the products
	@$(IN_PLACE); timeout 330 $(GPU_PY) benchmarks/run_all.py --gpu --only bench_cuda-tf32 --results $(RESULTS)/r; \
	timeout 200 $(GPU_PY) benchmarks/bench_ladder.py --pairs 5 --json $(RESULTS)/ladder.json

gpu-rest:        # the remaining tests, and compute-sanitizer on some of them
	@$(IN_PLACE); timeout 150 $(ON_GPU) $(MANY) tests/layers tests/gradcheck tests/test_mutations.py \
		tests/parallel/test_gpus.py tests/train/test_sgd.py tests/data 2>&1 | tee $(RESULTS)/rest.txt; \
	timeout 120 compute-sanitizer --tool memcheck --error-exitcode 9 $(ON_GPU) -x tests/backend/cuda/test_gemm_tiling.py \
		-k integers 2>&1 | tee $(RESULTS)/memcheck.txt; \
	timeout 90 compute-sanitizer --tool racecheck $(ON_GPU) -x tests/kernels/test_lrn.py tests/kernels/test_epilogue.py \
		-k float32 2>&1 | tee $(RESULTS)/racecheck.txt; \
	timeout 60 compute-sanitizer --tool synccheck $(ON_GPU) -x tests/backend/cuda/test_gemm_tiling.py \
		-k "integers and v5" 2>&1 | tee $(RESULTS)/synccheck.txt

gpu-profile:     # hardware counters of a step, an epoch of the main example, and training in bf16 beside PyTorch
	@$(IN_PLACE); timeout 150 ncu --clock-control none --section SpeedOfLight --section WarpStateStats \
		--section MemoryWorkloadAnalysis -s 200 -c 90 --csv --log-file $(RESULTS)/ncu.csv \
		$(GPU_PY) benchmarks/timeline.py --device cuda --batch 128 --out $(RESULTS)/timeline-profiled.png; \
	timeout 90 $(GPU_PY) examples/alexnet_imagenet.py --data synthetic --device cuda --batch 128 --epochs 1 \
		--out .gpu/runs; \
	timeout 170 $(GPU_PY) benchmarks/bench_cuda.py --precision bf16 --only training --json $(RESULTS)/bf16.json

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
$(VENV)/judge: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check --extra-index-url $(TORCH_INDEX) -e '.[judge]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
