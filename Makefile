# make demo   train AlexNet on real photographs and draw what it learned     make test   every check that needs no GPU
# make bench  ours beside PyTorch, into benchmarks/results/     make bench ONLY=bench_conv   one of them
# Each target makes .venv and installs what it needs. PYTHON chooses the interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test slow lint bench gradcheck gpu-check clean

demo: $(VENV)/demo
	$(RUN)/python examples/alexnet_imagenet.py

test: $(VENV)/dev
	$(RUN)/python -m pytest -n $(JOBS)

slow: $(VENV)/dev $(VENV)/demo
	$(RUN)/python -m pytest -m slow

gradcheck: $(VENV)/dev
	$(RUN)/minicnn gradcheck

# On a machine with an NVIDIA GPU: what runs here, the tests on the GPU, some of them under compute-sanitizer if it is there
# (it comes with the CUDA toolkit), and the benchmarks if PyTorch is. CUDA=12 for a driver of CUDA 12. Without a network,
# install the extras first.
CUDA ?= 13
gpu-check: $(VENV)/cuda$(CUDA)
	$(RUN)/minicnn doctor
	$(RUN)/python -m pytest -m cuda
	@if command -v compute-sanitizer > /dev/null; then for tool in memcheck racecheck synccheck; do \
		echo "compute-sanitizer $$tool"; compute-sanitizer --tool $$tool --error-exitcode 1 $(RUN)/python -m pytest \
		-m cuda tests/kernels tests/backend -k "plain or two_groups or across or overlapping or softmax or integers" || exit 1; done; \
	else echo "compute-sanitizer is not installed: races and stray accesses were looked for by the emulator only"; fi
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
