import pytest
import torch

from epigen_utils.gpt2 import classifier, fine_tuning_variants


def test_memory_of_the_papers_model_on_meta_tensors():
    taken = fine_tuning_variants.memory_dry_run("gpt2-xl", n_genes=20_000)
    assert taken["parameters"] == 1_557_611_200
    assert taken["optimiser"] == pytest.approx(8 * taken["ours"] / fine_tuning_variants.GIB)
    assert 40 < sum(taken[part] for part in ("weights", "gradients", "optimiser", "activations")) < 74, "fits in 80 GB"
    less = fine_tuning_variants.memory_dry_run("gpt2-xl", n_genes=20_000, checkpointing=True)
    assert less["activations"] < taken["activations"] / 20
    assert fine_tuning_variants.recurrent_layers("gpt2-xl") == 0


def test_meta_tensors_count_what_real_ones_keep():
    config = fine_tuning_variants._config_without_data("gpt2-tiny", 200, 256)
    model = fine_tuning_variants.GeneSentenceModel(config).train()
    ids = torch.ones((4, 256), dtype=torch.long)
    real = fine_tuning_variants.activation_bytes(model, {"input_ids": ids, "bins": ids}) / fine_tuning_variants.GIB
    assert fine_tuning_variants.memory_dry_run("gpt2-tiny", n_genes=200, length=256, batch_size=4)[
        "activations"
    ] == pytest.approx(real, rel=0.2)


def test_a_real_step_of_a_narrow_copy_lowers_the_loss():
    step = fine_tuning_variants.narrow_training_step("gpt2-xl")
    assert step["layers"] == 48
    assert step["after"] < step["before"]


def test_a_size_is_that_of_the_published_model_with_and_without_its_embeddings():
    """124,439,808 is GPT-2's; its embeddings are 50,257 words and 1,024 positions of width 768."""
    assert fine_tuning_variants.published_sizes("gpt2") == (124_439_808, 124_439_808 - (50_257 + 1024) * 768)


def test_what_the_paper_states_stands_beside_what_is_done():
    grid = {"learning_rate": [0.001, 0.003], "epochs": [4.0]}
    table = fine_tuning_variants.stated_settings(
        classifier.FINE_TUNING_SETTINGS, grid, precision="fp32", n_validated=41
    ).set_index("what")
    assert table.loc["learning rate"].tolist() == ["searched; values not stated", "0.001, 0.003"]
    assert table.loc["batch size", "this run"] == "8", "what is not searched is as set"
    assert table.loc["validation", "this run"] == "41 samples"
