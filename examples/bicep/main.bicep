// The identity with which one service account pulls from one registry of the same resource group: a user-assigned managed
// identity, a federated credential, and the role that the registry's mode requires.

@description('Name of the identity, such as team-a-app.')
param name string

@description('Location of the identity.')
param location string = resourceGroup().location

@description('The issuer of the cluster: oidcIssuerProfile.issuerURL of the managed cluster.')
param oidcIssuerUrl string

@description('Namespace of the service account.')
param namespace string

@description('Name of the service account.')
param serviceAccount string

@description('Name of the registry.')
param registryName string

@description('roleAssignmentMode of the registry.')
@allowed(['LegacyRegistryPermissions', 'AbacRepositoryPermissions'])
param roleAssignmentMode string

// AcrPull has no effect in a registry with ABAC, where the role is Container Registry Repository Reader.
var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'
var repositoryReader = 'b93aa761-3e63-49ed-ac28-beffa264f7ac'
var role = roleAssignmentMode == 'AbacRepositoryPermissions' ? repositoryReader : acrPull

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource credential 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: identity
  name: '${namespace}-${serviceAccount}'
  properties: {
    issuer: oidcIssuerUrl
    subject: 'system:serviceaccount:${namespace}:${serviceAccount}'
    // The first of azure.tokenAudiences of the chart.
    audiences: ['api://AzureADTokenExchange']
  }
}

resource pull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, identity.id, role)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

@description('For the annotation azure.workload.identity/client-id of the service account.')
output clientId string = identity.properties.clientId

@description('For azure.tenantId of the chart, or azure.workload.identity/tenant-id of the service account.')
output tenantId string = identity.properties.tenantId
