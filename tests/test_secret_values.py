"""Secrets by their names: which names are ones, and that no text, override or file shows what stands behind them.

Not exercised: a secret under a name that does not say so, and in no variable of the environment.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.preflight.composition import composed_preset
from verl_ispo.secret_values import (
    FILE_VARIABLE,
    HIDDEN,
    RUNTIME_VARIABLES,
    is_secret,
    load_secrets,
    redacted,
    redacted_overrides,
    refuse_secrets,
    taken_out,
    write_secrets,
)
from verl_ispo.user_error import UserError

SECRET_VARIABLES = ["WANDB_API_KEY", "HF_TOKEN", "SWANLAB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]
SECRET_VARIABLES += ["VLLM_API_KEY", "RAY_AUTH_TOKEN", "MY_SECRET", "DB_PASSWORD", "GH_TOKEN", "OPENAI_API_KEY"]
OTHER_VARIABLES = ["TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH", "VLLM_MAX_TOKENS", "OMP_NUM_THREADS", "WANDB_DIR"]

values = st.text(st.sampled_from("abcXYZ0189-_.+/"), min_size=8, max_size=40)


@pytest.mark.parametrize("name", [*SECRET_VARIABLES, "api_key", "wandb_api_key", "hf_token", "password", "auth_token"])
def test_what_is_a_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", [*OTHER_VARIABLES, "prompt_key", "max_token_len", "reward_fn_key", "pad_token_id"])
def test_what_is_none(name: str) -> None:
    assert not is_secret(name)


def test_no_key_of_the_config_is_taken_for_a_secret() -> None:
    def keys(node: object, prefix: str = "") -> list[str]:
        if not hasattr(node, "items_ex"):
            return [prefix]
        return [key for name in node for key in keys(node._get_node(name), f"{prefix}.{name}")]

    found = keys(composed_preset("ispo_trainer"))
    assert len(found) > 300
    assert not [key for key in found if is_secret(key.rpartition(".")[2])]


@given(
    values, st.sampled_from(SECRET_VARIABLES), st.sampled_from(["{0}={1}", "{0}: '{1}'", '"{0}": "{1}"', "+a.{0}={1}"])
)
@settings(max_examples=examples(50))
def test_no_text_shows_a_secret_behind_its_name(value: str, name: str, form: str) -> None:
    assert value not in redacted(f"see {form.format(name, value)}, and more", {})


@given(values, st.sampled_from(SECRET_VARIABLES), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=examples(50))
def test_no_text_shows_the_value_of_a_secret_variable(value: str, name: str, before: str, behind: str) -> None:
    assert value not in redacted(before + value + behind, {name: value})


def test_other_text_stays_and_an_address_loses_its_password() -> None:
    text = "data.prompt_key=prompt actor.ppo_max_token_len_per_gpu=512 WANDB_API_KEY is not set; set it"
    assert redacted(text, {"WANDB_API_KEY": "", "HF_TOKEN": "x"}) == text
    assert redacted("proxy=http://me:pass@host:80/a@b", {}) == f"proxy=http://{HIDDEN}@host:80/a@b"
    assert redacted_overrides(["+a.api_key='two words'", "b=2", "python"]) == [f"+a.api_key={HIDDEN}", "b=2", "python"]


@given(values, st.sampled_from(SECRET_VARIABLES), st.sampled_from(["", "+", "++"]), st.sampled_from(["{}", "'{}'"]))
@settings(max_examples=examples(30))
def test_a_secret_for_rays_processes_is_taken_out_of_the_overrides(
    value: str, name: str, sign: str, quotes: str
) -> None:
    override = f"{sign}{RUNTIME_VARIABLES}.{name}={quotes.format(value)}"
    kept, secrets = taken_out(["a=1", override, f"+{RUNTIME_VARIABLES}.NCCL_DEBUG=INFO"])
    assert kept == ["a=1", f"+{RUNTIME_VARIABLES}.NCCL_DEBUG=INFO"]
    assert secrets == {name: value}
    refuse_secrets(kept)


@pytest.mark.parametrize(
    "override",
    [
        "+reward.custom_reward_function.reward_kwargs.api_key=abcdefgh",
        "+ray_kwargs.ray_init.runtime_env={env_vars:{WANDB_API_KEY:abcdefgh}}",
        "+ray_kwargs.ray_init.runtime_env.env_vars={A:b,HF_TOKEN:abcdefgh}",
        "+trainer.wandb_proxy=http://me:abcdefgh@host:80",
        "++x.SOME_SECRET='abcdefgh'",
    ],
)
def test_another_secret_is_refused_without_showing_it(override: str) -> None:
    with pytest.raises(UserError, match="export it as an environment variable") as refusal:
        refuse_secrets([override])
    assert "abcdefgh" not in str(refusal.value)
    assert override.lstrip("+").partition("=")[0] in str(refusal.value)


@pytest.mark.parametrize(
    "override", ["data.prompt_key=prompt", "~x.api_key", "+x.api_key=null", "+x.api_key=''", "a=b"]
)
def test_what_holds_no_secret_is_not_refused(override: str) -> None:
    refuse_secrets([override])


def test_the_file_is_read_by_its_user_alone_and_gives_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secrets"
    write_secrets(file, {"WANDB_API_KEY": "abc'\"=é", "HF_TOKEN": "of the launcher"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    environment = {FILE_VARIABLE: str(file), "HF_TOKEN": "own"}
    load_secrets(environment)
    assert environment == {FILE_VARIABLE: str(file), "WANDB_API_KEY": "abc'\"=é", "HF_TOKEN": "own"}
    load_secrets({})
    file.write_text("{")
    load_secrets({FILE_VARIABLE: str(file)})
    load_secrets({FILE_VARIABLE: str(tmp_path / "none")})
    assert capsys.readouterr().err.count("do all nodes see this folder?") == 2
