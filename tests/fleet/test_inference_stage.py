import pytest

from extproc.fleet.inference_stage import ALL_STAGES, InferenceStage, stages_of_role


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("prefill", {"prefill"}),
        ("decode", {"decode"}),
        ("prefill-decode", {"prefill", "decode"}),
        ("encode-prefill-decode", {"encode", "prefill", "decode"}),
    ],
)
def test_a_role_names_its_stages(role: str, names: set[str]) -> None:
    assert stages_of_role(role) == {InferenceStage(name) for name in names}


@pytest.mark.parametrize("role", [None, "", "both", "leader", "prefill-", "Decode"])
def test_a_server_without_a_known_role_computes_all(role: str | None) -> None:
    assert stages_of_role(role) == ALL_STAGES
