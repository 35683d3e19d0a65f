# make demo   train AlexNet on real photographs and draw what it learned     make test   every check that needs no GPU
# make bench  ours beside PyTorch, into benchmarks/results/     make bench ONLY=bench_conv   one of them
# Each target makes .venv and installs what it needs. PYTHON chooses the interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test slow lint bench gradcheck gpu-check gpu-test gpu-sanitize gpu-bench clean

demo: $(VENV)/demo
	$(RUN)/python examples/alexnet_imagenet.py

test: $(VENV)/dev
	$(RUN)/python -m pytest -n $(JOBS)

slow: $(VENV)/dev $(VENV)/demo
	$(RUN)/python -m pytest -m slow

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

$(VENV)/judge: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[judge]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
