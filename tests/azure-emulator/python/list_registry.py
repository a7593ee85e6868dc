"""Lists a registry's repositories and their tags with Microsoft's own clients.

Reads one JSON object from standard input: registry, audience, and either tenant and client with secret or assertion,
or managedIdentity, the arguments of that credential; where its endpoint is, the environment says.
Prints one: {"repositories": {"name": ["tag", ...]}}, or {"error": "...", "type": "..."} with exit status 1.
"""

import json
import sys

from azure.containerregistry import ContainerRegistryClient
from azure.core.exceptions import AzureError
from azure.identity import ClientAssertionCredential, ClientSecretCredential, ManagedIdentityCredential


def credential(wish):
    if "managedIdentity" in wish:
        return ManagedIdentityCredential(**wish["managedIdentity"])
    if "secret" in wish:
        return ClientSecretCredential(wish["tenant"], wish["client"], wish["secret"])
    return ClientAssertionCredential(wish["tenant"], wish["client"], lambda: wish["assertion"])


def listing(wish):
    client = ContainerRegistryClient(
        "https://" + wish["registry"], credential(wish), audience=wish["audience"], retry_total=0
    )
    with client:
        return {
            name: [tag.name for tag in client.list_tag_properties(name)]
            for name in client.list_repository_names(results_per_page=wish.get("page", 100))
        }


def main():
    try:
        print(json.dumps({"repositories": listing(json.load(sys.stdin))}))
    except AzureError as error:
        print(json.dumps({"error": str(error), "type": type(error).__name__}))
        sys.exit(1)


main()
