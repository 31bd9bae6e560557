"""`atelier`: one command, its groups imported when they are used - serving needs no torch, exporting needs no Ray."""

import importlib
from typing import Any, Final

import typer
from typer.core import TyperGroup

# name -> (module, function or sub-application, one-line help)
COMMANDS: Final = {
    "serve": ("service.commands.serve", "serve", "Serve packages over HTTP on this machine."),
    "models": ("service.commands.models", "app", "List, show, verify, pull and push packages."),
    "export": ("service.commands.export", "app", "Turn a trained model into a package."),
    "fit": ("service.commands.fit", "app", "Fit a classical anomaly detector to arrays and publish it."),
    "train": ("service.commands.train", "train", "Train a reference model and publish its package."),
    "evaluate": ("service.commands.evaluate", "evaluate", "Measure a package on held-out data."),
    "compare": ("service.commands.evaluate", "compare", "Show two evaluations side by side."),
    "loadtest": (
        "service.commands.loadtest",
        "loadtest",
        "Load a running service and report latency and throughput.",
    ),
}


class _Lazy(TyperGroup):
    """Imports a command's module when it is called, or its help is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, text = COMMANDS[cmd_name]
        target: Any = getattr(importlib.import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(name=cmd_name)(target)
            target = single
        command = typer.main.get_command(target)
        command.name, command.help = cmd_name, command.help or text
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


main = typer.Typer(
    cls=_Lazy,
    name="atelier",
    help="Serve generative models that you trained yourself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@main.callback()
def _root() -> None:
    """Serve generative models that you trained yourself."""
