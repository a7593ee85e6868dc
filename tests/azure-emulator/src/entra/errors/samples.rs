//! The texts of errors that a fault asks for by number: Entra's wording, with example values.

pub(super) fn text(code: u32) -> Option<&'static str> {
    let text = match code {
        28000 => {
            "Provided value for the input parameter scope is not valid because it contains more than one resource."
        }
        50027 => "JWT token is invalid or malformed.",
        50049 => "Unknown or invalid instance.",
        53003 => {
            "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."
        }
        70021 => {
            "No matching federated identity record found for presented assertion. Assertion Issuer: 'https://issuer.example'. Assertion Subject: 'subject'. Assertion Audience: 'api://AzureADTokenExchange'. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        }
        70025 => {
            "The client '00000000-0000-0000-0000-000000000000' has no configured federated identity credentials."
        }
        90002 => {
            "Tenant 'contoso.example' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
        }
        90014 => {
            "The required field 'scope' is missing from the credential. Ensure that you have all the necessary parameters for the login request."
        }
        90033 => "A transient error has occurred. Please try again.",
        90055 => "The request is throttled because the tenant has exceeded the maximum number of requests.",
        90061 => "Request to External OIDC endpoint failed.",
        500011 => {
            "The resource principal named https://resource.example was not found in the tenant named contoso.example. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."
        }
        500014 => {
            "The service principal for resource 'https://containerregistry.azure.net' is disabled. This indicate that a subscription within the tenant has lapsed, or that the administrator for this tenant has disabled the application, preventing tokens from being issued for it."
        }
        700016 => {
            "Application with identifier '00000000-0000-0000-0000-000000000000' was not found in the directory 'contoso.example'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
        }
        700024 => {
            "Client assertion is not within its valid time range. Current time: 2026-01-01T00:00:00.0000000Z, assertion valid from 2025-12-31T22:00:00.0000000Z, expiry time of assertion 2025-12-31T23:00:00.0000000Z. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
        }
        700027 => {
            "Client assertion contains an invalid signature. [Reason - The provided signature value did not match the expected signature value., Thumbprint of key used by client: 'key']"
        }
        700211 => {
            "No matching federated identity record found for presented assertion issuer 'https://issuer.example'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        }
        700212 => {
            "No matching federated identity record found for presented assertion audience 'audience'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        }
        700213 => {
            "No matching federated identity record found for presented assertion subject 'subject'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        }
        900144 => "The request body must contain the following parameter: 'scope'.",
        7000112 => "Application '00000000-0000-0000-0000-000000000000'(example) is disabled.",
        7000215 => {
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '00000000-0000-0000-0000-000000000000'."
        }
        7000218 => {
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
        }
        7000222 => {
            "The provided client secret keys for app '00000000-0000-0000-0000-000000000000' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."
        }
        7000272 => {
            "The certificate with identifier key used to sign the federated credential could not be found in the metadata of identity provider https://issuer.example. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token."
        }
        7002138 => {
            "No matching federated identity record found for presented assertion subject 'subject'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
        }
        _ => return None,
    };
    Some(text)
}
