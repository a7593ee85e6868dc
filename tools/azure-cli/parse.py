"""Parses command lines with azure-cli's own parser, without network and without running them.

Standard input is a JSON list of {"place": "README.md:80", "arguments": ["acr", "show", ...]}. Prints the number of commands,
or fails with the parser's message for each refused one.
"""

import contextlib
import io
import json
import os
import sys
import tempfile


def parser_for(arguments):
    """azure-cli's parser, loaded for the command that these arguments begin with."""
    from azure.cli.core import get_default_cli

    cli = get_default_cli()
    invocation = cli.invocation_cls(
        cli_ctx=cli,
        parser_cls=cli.parser_cls,
        commands_loader_cls=cli.commands_loader_cls,
        help_cls=cli.help_cls,
    )
    cli.invocation = invocation
    invocation.data["command_string"] = " ".join(arguments)
    loader = invocation.commands_loader
    loader.load_command_table(arguments)
    command = invocation._rudimentary_get_command(arguments)
    if command not in loader.command_table:
        raise ValueError(f"'{command or ' '.join(arguments)}' is not a command")
    loader.command_name = command
    invocation.data["command"] = command
    loader.load_arguments(command)
    invocation.parser.load_command_table(loader)
    return invocation.parser


def refusal(arguments):
    """The parser's message if it refuses these arguments."""
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parser_for(arguments).parse_args(arguments)
    except SystemExit:
        return messages.getvalue().strip()
    except ValueError as error:
        return str(error)
    return None


def main():
    calls = json.load(sys.stdin)
    # azure-cli keeps its configuration and its caches here.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AZURE_CONFIG_DIR"] = folder
        os.environ["AZURE_CORE_COLLECT_TELEMETRY"] = "false"
        refusals = [(call, refusal(call["arguments"])) for call in calls]
    refused = [(call, message) for call, message in refusals if message is not None]
    for call, message in refused:
        print(f"{call['place']}: az {' '.join(call['arguments'])}\n  {message}", file=sys.stderr)
    if refused:
        sys.exit(1)
    print(f"{len(calls)} commands")


if __name__ == "__main__":
    main()
