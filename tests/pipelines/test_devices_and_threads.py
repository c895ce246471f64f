"""Where pipelines compute."""

import pytest
import torch

from pipelines import runtime


def test_auto_is_the_first_gpu_or_the_cpu() -> None:
    assert runtime.device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert runtime.device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "cuda:-1", "cuda:x", "", "mps"])
def test_a_device_that_is_not_there_is_named_with_the_remedy(name: str) -> None:
    with pytest.raises(runtime.NoSuchDevice, match="nvidia-smi"):
        runtime.device(name)


def test_settled_computes_deterministically_and_leaves_no_trace() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with runtime.settled(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_inference_mode_enabled()
    with pytest.raises(ZeroDivisionError), runtime.settled():
        raise ZeroDivisionError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_no_more_threads_than_cores() -> None:
    with runtime.at_most(10_000):
        assert torch.get_num_threads() == runtime.cores()
