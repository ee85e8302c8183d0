import optuna
import pytest

from epigen_utils.models import search


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_a_search_is_that_of_optuna_itself(direction, sign):
    def score(trial):
        return {
            "loss": sign * (trial.suggest_float("rate", 0.1, 10, log=True) - trial.suggest_int("layers", 0, 3)) ** 2
        }

    table = search.search(score, by="loss", direction=direction, n_trials=15, seed=3)
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=3))
    study.optimize(lambda trial: score(trial)["loss"], n_trials=15)
    assert list(table) == ["rate", "layers", "loss"]
    assert table.iloc[0].to_dict() == study.best_params | {"loss": study.best_value}
    assert sorted(table["loss"]) == sorted(trial.value for trial in study.trials)
