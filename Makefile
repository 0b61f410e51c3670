PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO_RUNS = logs/Digits_LT/if50_32bits_seed0

.PHONY: demo test lint clean

demo: $(VENV)/.runtime
	$(BIN)/python main.py --config config/Digits_LT/pca_sign.py
	$(BIN)/python main.py --config config/Digits_LT/stage_1.py
	$(BIN)/python main.py --config config/Digits_LT/stage_2_meta_embedding.py
	$(BIN)/python -m benchmarks.compare $(DEMO_RUNS)/pca_sign $(DEMO_RUNS)/stage_1 \
		$(DEMO_RUNS)/stage_2_meta_embedding

test: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov=. --cov-report=term:skip-covered

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

clean:
	rm -rf $(VENV) logs/Digits_LT

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.development: requirements-dev.txt requirements-search.txt requirements-cluster.txt $(VENV)/.runtime
	$(BIN)/python -m pip install -q -r requirements-dev.txt -r requirements-search.txt -r requirements-cluster.txt
	touch $@
