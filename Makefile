# make demo   train AlexNet on real photographs and draw what it learned     make test   every check that needs no GPU
# make bench  ours beside PyTorch, into benchmarks/results/     make bench ONLY=bench_conv   one of them
# Each target makes .venv and installs what it needs. PYTHON chooses the interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test slow lint bench gradcheck clean

demo: $(VENV)/demo
	$(RUN)/python examples/alexnet_imagenet.py

test: $(VENV)/dev
	$(RUN)/python -m pytest -n $(JOBS)

slow: $(VENV)/dev
	$(RUN)/python -m pytest -m slow

gradcheck: $(VENV)/dev
	$(RUN)/minicnn gradcheck

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

$(VENV)/judge: pyproject.toml setup.py | $(VENV)/bin/python
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[judge]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
