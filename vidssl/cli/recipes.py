"""`vidssl recipes`: lists the shipped recipes, and prints one as a file to change."""

from __future__ import annotations

from json import dumps
from typing import Annotated, Any

import typer

from vidssl.cli import completion
from vidssl.cli.app import WORKSPACE, app
from vidssl.cli.command_group import Command, Group
from vidssl.cli.options import JsonOption

recipes_app = typer.Typer(cls=Group)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, json: JsonOption = False) -> None:
    """List the shipped recipes, and what the papers report of theirs.

    Example:  vidssl recipes
    """
    if context.invoked_subcommand is not None:
        return
    from vidssl.recipes.recipe_file import read_recipe, recipe_names

    contents = {name: read_recipe(name) for name in recipe_names()}
    if json:
        typer.echo(dumps({name: _card(content) for name, content in contents.items()}, indent=1))
        return
    width = max(map(len, contents))
    for name, content in contents.items():
        typer.echo(f"{name:<{width}}  {content['title']}")
        if "reports" in content:
            typer.echo(f"{'':<{width}}  reports {content['reports']}")


@recipes_app.command(cls=Command)
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="One that vidssl recipes lists.",
            autocompletion=completion.complete_shipped_recipes,
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Print a shipped recipe whole, as a file to change.

    What a recipe takes from another one is written out. --recipe ./my.toml trains with the file.

    Example:  vidssl recipes show coclr-ucf101 > my.toml
    """
    from vidssl.recipes.recipe_file import recipe_text, whole_recipe

    assert context.parent is not None
    if json or context.parent.params["json"]:
        typer.echo(dumps(whole_recipe(name), indent=1))
    else:
        typer.echo(recipe_text(name), nl=False)


def _card(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe's title, its method, and the results that its paper reports."""
    return {
        "title": content["title"],
        "method": content.get("of"),
        "reports": content.get("reports", ""),
    }


app.add_typer(recipes_app, name="recipes", rich_help_panel=WORKSPACE)
