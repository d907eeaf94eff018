"""Whether the tests of the confinement run on this machine, so that a CI without Landlock does not pass unseen."""

import os
import warnings

import pytest

from core import confinement


def test_this_kernel_runs_the_tests_of_the_confinement() -> None:
    if lack := confinement.find_lack():
        told = f"The tests of the confinement are skipped: {lack}."
        if os.environ.get("PREFTUNE_TESTS_NEED_LANDLOCK"):
            pytest.fail(told)
        warnings.warn(told, stacklevel=1)
        pytest.skip(told)
