# The identity with which one service account pulls from one registry: a user-assigned managed identity, a federated
# credential, and the role that the registry's mode requires. For the provider azurerm 5.

terraform {
  required_version = ">= 1.5"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.0"
    }
  }
}

variable "name" {
  description = "Name of the identity, such as team-a-app."
  type        = string
}

variable "resource_group_name" {
  description = "Resource group of the identity."
  type        = string
}

variable "location" {
  description = "Location of the identity."
  type        = string
}

variable "oidc_issuer_url" {
  description = "The cluster's issuer: oidc_issuer_url of azurerm_kubernetes_cluster."
  type        = string
}

variable "namespace" {
  description = "Namespace of the service account."
  type        = string
}

variable "service_account" {
  description = "Name of the service account."
  type        = string
}

variable "registry_id" {
  description = "Resource ID of the registry."
  type        = string
}

variable "role_assignment_mode" {
  description = "roleAssignmentMode of the registry: LegacyRegistryPermissions or AbacRepositoryPermissions."
  type        = string

  validation {
    condition     = contains(["LegacyRegistryPermissions", "AbacRepositoryPermissions"], var.role_assignment_mode)
    error_message = "Use LegacyRegistryPermissions or AbacRepositoryPermissions, as in: az acr show --query roleAssignmentMode."
  }
}

locals {
  # AcrPull has no effect in a registry with ABAC.
  role = var.role_assignment_mode == "AbacRepositoryPermissions" ? "Container Registry Repository Reader" : "AcrPull"
}

resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
}

resource "azurerm_federated_identity_credential" "this" {
  name                      = "${var.namespace}-${var.service_account}"
  user_assigned_identity_id = azurerm_user_assigned_identity.this.id
  issuer                    = var.oidc_issuer_url
  subject                   = "system:serviceaccount:${var.namespace}:${var.service_account}"
  # The first of azure.tokenAudiences of the chart.
  audience = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "pull" {
  scope                = var.registry_id
  role_definition_name = local.role
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

output "client_id" {
  description = "For the annotation azure.workload.identity/client-id of the service account."
  value       = azurerm_user_assigned_identity.this.client_id
}

output "tenant_id" {
  description = "For azure.tenantId of the chart, or azure.workload.identity/tenant-id of the service account."
  value       = azurerm_user_assigned_identity.this.tenant_id
}
