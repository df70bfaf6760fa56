"""The commands' entry points: plain functions, and a process that a debugger does not lose."""

import os
import sys

import pytest

from odfs_jax import cli

COMMANDS = ("train", "extract", "convert", "sort", "faceset", "studio")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_entry_point_says_what_it_does(name):
    entry = getattr(cli, name)
    assert entry.__name__ == name and entry.__doc__.endswith(".")


@pytest.fixture
def started(monkeypatch):
    """The programs started in place of this one, with GLIBC_TUNABLES not set before."""
    programs = []
    monkeypatch.setattr(os, "execv", lambda *program: programs.append(program))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.delenv("GLIBC_TUNABLES")
    return programs


def test_the_same_command_starts_again_on_huge_pages(started):
    cli.use_huge_pages()
    assert started == [(sys.executable, sys.orig_argv)]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    cli.use_huge_pages()  # as the started one does
    assert len(started) == 1


def test_no_new_process_under_a_debugger_or_where_the_user_forbids_it(started, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "gettrace", lambda: object())
        cli.use_huge_pages()
    with monkeypatch.context() as patch:
        patch.setenv("GLIBC_TUNABLES", "")
        cli.use_huge_pages()
    assert started == []
