"""Broken and hostile checkpoints are borne, and the judge would see it if they were not."""

import random
from functools import partial

import pytest
import torch

from benchmarks import mutated_checkpoints
from benchmarks.checkpoint_mutations import CHANGES, CONTAINERS, Mutant, mutate
from benchmarks.checkpoint_zoo import SPECIMENS, own, write
from benchmarks.mutated_checkpoints import judge, run
from engine import weights_file


def mutant_of(specimen, folder, values=None, bits=0):
    path = folder / "x.pt"
    write(specimen.values, specimen.kind, path)
    return Mutant("as it is", specimen, path, values or specimen.values, bits)


@pytest.mark.parametrize("specimen", SPECIMENS)
def test_every_specimen_loads_whole(tmp_path, specimen):
    assert judge(mutant_of(specimen(), tmp_path)) == "loaded"


def test_forty_mutants_are_borne(tmp_path):
    found = run(40, 0, tmp_path)
    assert found.failures == []
    assert found.tried == found.figures["loaded"] + found.figures["refused"] == 40
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_mutation_comes_up(tmp_path):
    said = {str(mutate(random.Random(seed), tmp_path, tmp_path / "no")) for seed in range(150)}
    kinds = [*(each.__name__ for each in CHANGES), *CONTAINERS, "flip", "cut", "code"]
    assert [kind for kind in kinds if not any(f", {kind}" in each for each in said)] == []


def test_a_loader_that_passes_over_names_is_seen(tmp_path, monkeypatch):
    def lax(model, checkpoint, path):
        for name, network in model.named_children():
            network.load_state_dict(checkpoint["state_dict_best"][name], strict=False)

    monkeypatch.setattr(mutated_checkpoints, "load_networks", lax)
    specimen = own()
    values, missing = specimen.values, "hash_layer.weight"
    head = {**values["state_dict_best"]["hash_head"], "extra": torch.zeros(1)}
    longer = {**values["state_dict_best"], "hash_head": head}
    torch.save({**values, "state_dict_best": longer}, tmp_path / "x.pt")
    mutant = Mutant("", specimen, tmp_path / "x.pt", {**values, "state_dict_best": longer})
    assert judge(mutant) == "extra of the file was passed over"
    shorter = {**values["state_dict_best"], "hash_head": {**head}}
    del shorter["hash_head"][missing], shorter["hash_head"]["extra"]
    torch.save({**values, "state_dict_best": shorter}, tmp_path / "x.pt")
    mutant = Mutant("", specimen, tmp_path / "x.pt", {**values, "state_dict_best": shorter})
    assert judge(mutant) == f"hash_head.{missing} is not in the file and was not missed"


def test_a_changed_number_a_crash_and_code_that_ran_are_seen(tmp_path, monkeypatch):
    specimen = own()
    state = specimen.values["state_dict_best"]["hash_head"]
    changed = {**state, "hash_layer.bias": -state["hash_layer.bias"]}
    values = {**specimen.values, "state_dict_best": {**specimen.values["state_dict_best"]}}
    values["state_dict_best"]["hash_head"] = changed
    assert judge(mutant_of(specimen, tmp_path, values)) == "8 bits differ from the file's"
    assert judge(mutant_of(specimen, tmp_path, values, bits=8)) == "loaded"

    def crash(path):
        raise KeyError("model")

    with monkeypatch.context() as patch:
        patch.setattr(mutated_checkpoints, "load_checkpoint", crash)
        assert judge(mutant_of(specimen, tmp_path)).startswith("KeyError: 'model'")
    unsafe = partial(torch.load, weights_only=False)
    monkeypatch.setattr(weights_file, "_load_pickled", unsafe)
    found = [each for each in run(25, 0, tmp_path / "run").failures if each.endswith("code ran")]
    assert found
