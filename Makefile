# Everything runs in .venv/, which make itself sets up and renews when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORK := build/wheel-test
# onnxruntime-gpu has wheels for x86-64 Linux; elsewhere the plain package does the same on the CPU.
EXTRA := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),gpu,cpu)
# uv from the machine where there is one, else from the venv, into which pip puts it.
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)

# uv installs no compiled modules. Without this, where the variable is set, each process compiles torch again, in seconds.
unexport PYTHONDONTWRITEBYTECODE

# What could run code that a file brings, or fetch it unencrypted; the check fails on it. A module's .eval() is harmless.
export UNSAFE := \b(c?pickle|cloudpickle|joblib|dill)\b|\btorch\.(load|save)\b(?!\(.*weights_only=True)|np\.load\((?!.*allow_pickle=False)|allow_pickle=True
UNSAFE := $(UNSAFE)|yaml\.load|(?<!\.)\beval\(|\bexec\(|builtins\.(eval|exec)|extractall|shell=True|os\.system|["']http://

.PHONY: install demo docs explorers browser web wheel test test-all test-javascript faults check wheel-test bench bench-train clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vaezoo needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[$(EXTRA)]' --group dev
	touch $@

demo: $(STAMP)
	rm -rf runs/demo runs/demo-prior exports/demo
	$(BIN)/vaezoo train conv-vae --data digits --out runs/demo
	$(BIN)/vaezoo sample runs/demo
	$(BIN)/vaezoo reconstruct runs/demo
	$(BIN)/vaezoo export runs/demo --onnx
	$(BIN)/vaezoo fit-prior runs/demo --out runs/demo-prior
	$(BIN)/vaezoo sample runs/demo-prior
	@echo 'Move the latents in a browser:  $(BIN)/vaezoo explore exports/demo --serve'

# The fast tests. Each process uses one thread.
FAST := -m "not slow and not matrix and not gpu"
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST) -n auto --maxprocesses 4

# All tests but the matrix.
test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not matrix" -n auto --maxprocesses 4 --durations=30

# The whole matrix: of tests, of faults, a minute of fuzzing for each reader of files, then wrong formulas that tests
# must notice. The last step takes a quarter of an hour.
faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m matrix --ignore tests/fault_injection \
		--ignore tests/training/test_resume.py -n auto --maxprocesses 4
	VAEZOO_FAULTS=all $(BIN)/python -m pytest tests/fault_injection tests/training/test_resume.py
	$(BIN)/python tests/fault_injection/fuzz.py --seconds 60
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutations.py

# The site, in build/site. A warning is an error. It shows the explorers that `make explorers` wrote before.
docs: $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --constraints constraints.txt --group docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees -c docs . build/site

# The packages come from npm. onnxruntime-node holds the CPU libraries, and would also fetch those of CUDA.
test-javascript: $(STAMP)
	ONNXRUNTIME_NODE_INSTALL=skip npm install --prefix examples/javascript --no-package-lock --no-audit --no-fund
	$(BIN)/python -m pytest tests/test_examples.py -k "node or web"

ORT := web/node_modules/onnxruntime-web/dist

# A page of `vaezoo explore` for each model, in build/explorers/. It goes on where it was stopped.
explorers: $(STAMP)
	$(BIN)/python scripts/explorers.py $(if $(wildcard $(ORT)),--runtime web)

# What the tests of the explorer's page need from npm. They also need Chromium with chromedriver, and are skipped without.
browser:
	npm install --prefix web --no-package-lock --no-audit --no-fund

# The page of `vaezoo explore`, which is committed, and the copy of onnxruntime-web that wheels carry, which is not.
RUNTIME := vaezoo/explore/runtime
web: browser
	npm run --prefix web check
	npm run --prefix web build
	mkdir -p $(RUNTIME)
	cp $(ORT)/ort.wasm.min.mjs $(ORT)/ort-wasm-simd-threaded.mjs $(ORT)/ort-wasm-simd-threaded.wasm $(RUNTIME)

wheel: $(STAMP) web
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	$(BIN)/python -m build --wheel --no-isolation --outdir dist runtime

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@grep -rnP --include='*.py' --include='*.txt' "$$UNSAFE" vaezoo cli; test $$? -eq 1

wheel-test: $(STAMP)
	rm -rf $(WORK)
	$(BIN)/python -m build --wheel --no-isolation --outdir $(WORK) . >/dev/null
	$(BIN)/python -m build --wheel --no-isolation --outdir $(WORK) runtime >/dev/null
	$(BIN)/python tests/smoke_wheel.py $(WORK)/vaezoo-*.whl $(WORK)/vaezoo_runtime-*.whl $(UV)

bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/onnx_latency.py

# DATA_DIR is the folder of torchvision's MNIST. Without it, all backends train on the packaged digits.
bench-train: $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --constraints constraints.txt --group bench
	$(BIN)/python benchmarks/train_throughput.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))
	$(BIN)/python benchmarks/train_zoo.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))
	$(BIN)/python benchmarks/train_distributed.py

clean:
	rm -rf $(VENV) build dist docs/models docs/reference
