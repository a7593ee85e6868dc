"""Reads a manifest from a registry with Microsoft's own clients.

Reads one JSON object from standard input: registry, repository and tag, and either tenant and client with secret or
assertion, or managedIdentity: the arguments of that credential, whose endpoint is in the environment.
Prints one JSON object: {"digest": "sha256:...", "layers": 1}, or {"error": "...", "type": "..."} with exit status 1.
"""

import json
import sys

from azure.containerregistry import ContainerRegistryClient
from azure.core.exceptions import AzureError
from azure.identity import ClientAssertionCredential, ClientSecretCredential, ManagedIdentityCredential


def credential(task):
    if "managedIdentity" in task:
        return ManagedIdentityCredential(**task["managedIdentity"])
    if "secret" in task:
        return ClientSecretCredential(task["tenant"], task["client"], task["secret"])
    return ClientAssertionCredential(task["tenant"], task["client"], lambda: task["assertion"])


def manifest(task):
    audience = "https://containerregistry.azure.net"
    client = ContainerRegistryClient(
        "https://" + task["registry"], credential(task), audience=audience, retry_total=0
    )
    with client:
        result = client.get_manifest(task["repository"], task["tag"])
        return {"digest": result.digest, "layers": len(result.manifest["layers"])}


def main():
    try:
        print(json.dumps(manifest(json.load(sys.stdin))))
    except AzureError as error:
        print(json.dumps({"error": str(error), "type": type(error).__name__}))
        sys.exit(1)


main()
