"""The `az` of the quick start's test: azure-cli's own parser, and azure-emulator in place of Azure.

Each command changes the state in QUICK_START/state.json by what its parsed arguments say, and the state is sent to the
emulator. An unknown command fails.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(os.environ["QUICK_START"])
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
STATE = FOLDER / "state.json"
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPOSITORY / "tools" / "azure-cli"))

# The role that lets an identity pull, by the role assignment mode of the registry.
PULL_ROLES = {
    "LegacyRegistryPermissions": "AcrPull",
    "AbacRepositoryPermissions": "Container Registry Repository Reader",
}


class Arguments:
    """The parsed arguments of one command."""

    def __init__(self, parsed):
        self.parsed = parsed

    def __getattr__(self, name):
        value = getattr(self.parsed, name)
        # Generated commands of azure-cli keep an argument as a list of operations.
        operations = getattr(value, "_ops", None)
        return operations[-1][-1] if operations else value


def pull_right(client_id):
    return {"clientId": client_id, "repositories": ["team/app"], "actions": ["pull"]}


def registry_id(name):
    return f"/subscriptions/0/resourceGroups/registries/providers/Microsoft.ContainerRegistry/registries/{name}"


def run(command, arguments, state):
    """Changes the state, and returns the document that azure-cli would print."""
    world = state["world"]
    applications = world["tenants"][0]["applications"]
    match command:
        case "aks update":
            assert arguments.enable_oidc_issuer
            state["cluster"] = [arguments.resource_group_name, arguments.name]
        case "aks get-credentials":
            assert [arguments.resource_group_name, arguments.name] == state["cluster"]
        case "aks show":
            assert [arguments.resource_group_name, arguments.name] == state["cluster"]
            return {"oidcIssuerProfile": {"issuerUrl": world["issuers"][0]["issuer"]}}
        case "identity create":
            state["identity"] = [arguments.resource_group, arguments.resource_name]
            applications.append({"clientId": state["clientId"], "federatedCredentials": []})
        case "identity show":
            assert [arguments.resource_group, arguments.resource_name] == state["identity"]
            return {"clientId": state["clientId"], "principalId": state["principalId"]}
        case "identity federated-credential create":
            assert [arguments.resource_group, arguments.identity_name] == state["identity"]
            assert arguments.name
            [audience] = arguments.audiences
            credential = {"issuer": arguments.issuer, "subject": arguments.subject, "audience": audience}
            applications[-1]["federatedCredentials"].append(credential)
        case "acr show":
            name = arguments.registry_name
            assert name in state["registries"]
            return {"id": registry_id(name), "roleAssignmentMode": state["mode"]}
        case "role assignment create":
            assert arguments.assignee_object_id == state["principalId"]
            assert arguments.assignee_principal_type == "ServicePrincipal"
            assert arguments.scope == registry_id("contoso")
            # Another role is assigned, and does not permit pulls in this mode.
            if arguments.role == PULL_ROLES[state["mode"]]:
                world["registries"][0]["rights"].append(pull_right(state["clientId"]))
        case "acr login":
            assert arguments.registry_name in state["registries"] and arguments.expose_token
            return {"accessToken": state["registryToken"]}
        case "acr import":
            assert arguments.registry_name == "contoso" and arguments.source_image.startswith("mcr.microsoft.com/")
            [image] = arguments.target_tags
            subprocess.run([REPOSITORY / "tests/e2e/push-image.sh", image], check=True, stdout=sys.stderr)
        case "account show":
            return {"tenantId": world["tenants"][0]["id"]}
        case _:
            sys.exit(f"tests/e2e/quick-start/az.py does not know: az {command}")
    return None


def main():
    import parse

    state = json.loads(STATE.read_text())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AZURE_CONFIG_DIR"] = folder
        os.environ["AZURE_CORE_COLLECT_TELEMETRY"] = "false"
        parsed = parse.parser_for(sys.argv[1:]).parse_args(sys.argv[1:])
    document = run(parsed.command, Arguments(parsed), state)
    STATE.write_text(json.dumps(state))
    (FOLDER / "world.json").write_text(json.dumps(state["world"]))
    create = [os.environ["KUBECTL"], "create", "--raw", state["control"] + "/world", "-f", FOLDER / "world.json"]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    if document is None:
        return
    if query := getattr(parsed, "_jmespath_query", None):
        document = query.search(document)
    print(document if parsed._output_format == "tsv" else json.dumps(document))


main()
