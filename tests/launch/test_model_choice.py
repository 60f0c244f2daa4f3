"""Which preset and which weights a model's name means, and that an older run is not taken for a newer one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from verl_ispo.launch.model_choice import choose_model, hub_names
from verl_ispo.launch.run_folder import check_identity
from verl_ispo.user_error import UserError

PRESET = "qwen2_5_math_7b"
HUB_NAME = "Qwen/Qwen2.5-Math-7B"


def folder_called(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_a_presets_own_name_has_its_weights_on_the_hub_or_where_one_says(tmp_path: Path) -> None:
    assert choose_model(PRESET).overrides() == [f"base_model={PRESET}"]
    weights = folder_called(tmp_path / "weights")
    assert choose_model(PRESET, "weights" if Path.cwd() == tmp_path else str(weights)).path == str(weights)
    assert choose_model(PRESET, "some/fork").path == "some/fork"


@pytest.mark.parametrize("preset", sorted(hub_names()))
def test_the_name_on_the_hub_gets_the_presets_settings(preset: str) -> None:
    for spelled in (hub_names()[preset], hub_names()[preset].lower()):
        choice = choose_model(spelled)
        assert (choice.preset, choice.name, choice.identity, choice.path) == (preset, preset, preset, None)
        assert f"gets its settings (verl_ispo/config/base_model/{preset}.yaml)" in choice.note
    assert choose_model(preset).note == ""
    assert choose_model(preset).paper_name == hub_names()[preset].split("/")[1]


@pytest.mark.parametrize("name", ["Qwen2.5-Math-7B", "qwen2.5-math-7b"])
def test_a_folder_of_that_name_gets_them_too_with_its_weights(name: str, tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "disk" / name)
    for spelled in (f"disk/{name}", f"{folder}/"):
        choice = choose_model(spelled)
        assert choice.overrides() == [f"base_model={PRESET}", f"actor_rollout_ref.model.path='{folder}'"]
        assert (choice.name, choice.identity) == (PRESET, PRESET)
    assert choose_model(str(folder), str(folder)).path == str(folder)
    with pytest.raises(UserError, match="set one of them, or MODEL=qwen2_5_math_7b"):
        choose_model(str(folder), "/other")


def test_a_stranger_has_no_preset(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "Qwen2.5-Math-7B-6144")
    choice = choose_model("Qwen2.5-Math-7B-6144")
    assert (choice.preset, choice.name, choice.identity) == (None, "Qwen2.5-Math-7B-6144", str(folder))
    assert choose_model("org/name").overrides() == ["actor_rollout_ref.model.path='org/name'"]
    assert (choose_model("org/name").paper_name, choose_model("org/name").identity) == ("name", "org/name")
    with pytest.raises(UserError, match=r"MODEL_PATH=c \(--model-path\) needs a preset .*; here set only MODEL"):
        choose_model("org/name", "c")
    with pytest.raises(UserError, match=r"MODEL=qwen \(--model\) is not known\. Known: .*qwen2_5_math_7b"):
        choose_model("qwen")


def test_a_run_from_before_that_name_had_a_preset_is_refused_with_the_reason(tmp_path: Path) -> None:
    now = {"MODEL": PRESET, "METHOD": "ispo", "SEED": "1"}
    for older in (HUB_NAME, str(folder_called(tmp_path / "disk/Qwen2.5-Math-7B"))):
        (tmp_path / "run.txt").write_text(f"MODEL={older}\nMETHOD=ispo\nSEED=1\nRESPONSE_LENGTH=4096\nSTEPS=5\n")
        with pytest.raises(UserError, match="without the settings of preset qwen2_5_math_7b, which that name gets now"):
            check_identity(tmp_path, now)
        with pytest.raises(UserError, match=r"contains another run .* would resume; set another OUT"):
            check_identity(tmp_path, {**now, "SEED": "2"})
    (tmp_path / "run.txt").write_text(f"MODEL={PRESET}\nMETHOD=ispo\nSEED=1\nRESPONSE_LENGTH=4096\nSTEPS=5\n")
    check_identity(tmp_path, now)
