"""The command line: parse, call one stage, print. Delete this folder and the library is whole.

Stages are imported inside the commands, so that `vidssl --help` is instant and training never
loads a video decoder.
"""

from vidssl.cli.app import app

# In the order in which help lists the commands.
# isort: off
from vidssl.cli import (
    data,
    training,
    evaluation,
    reporting,
    embedding,
    workspace,
    recipes,
)

__all__ = [
    "app",
    "data",
    "embedding",
    "evaluation",
    "recipes",
    "reporting",
    "training",
    "workspace",
]
