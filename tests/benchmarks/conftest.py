import pytest

from benchmarks import results_runs, results_training
from tests.benchmarks.pretended_runs import VALUES


@pytest.fixture
def tiny_config(monkeypatch):
    """A config called tiny, of `VALUES`."""
    real = results_runs.plain_config
    for module in (results_runs, results_training):
        monkeypatch.setattr(module, "plain_config", lambda config: VALUES if config == "tiny" else real(config))
    monkeypatch.setattr(results_training, "SECONDS_BETWEEN_LOOKS", 0.01)
