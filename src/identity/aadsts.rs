//! The AADSTS codes that the webhook treats specially. Every other code is a refusal that stays until somebody changes the
//! configuration.
//! Source: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>, and what other clients report
//! where that page has no entry.

/// What a code means for the request that Entra answered with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Entra limits the rate of requests.
    Throttled,
    /// Entra has a temporary failure.
    Unavailable,
    /// Entra could not fetch the issuer's discovery document or keys. The cause is often temporary, as with a new
    /// cluster, and a private issuer looks the same.
    IssuerUnreachable,
    /// No federated credential matches the assertion. Entra does not know a new one for some minutes.
    NoFederatedCredential,
    /// The assertion is not yet valid, or no longer, by Entra's clock.
    OutsideValidity,
}

/// The meaning of a code. `None` for a refusal.
pub fn meaning(code: u32) -> Option<Meaning> {
    Some(match code {
        // TenantThrottlingError; and a client that sends the same request in a loop.
        90_055 | 50_196 => Meaning::Throttled,
        // RequestBudgetExceededError, MsodsServiceUnavailable, GraphRetryableError and GraphServiceUnreachable: all are
        // documented as temporary.
        90_024 | 90_033 | 90_090 | 90_091 => Meaning::Unavailable,
        // "Request to External OIDC endpoint failed": Azure/azure-workload-identity#605 and #642, Azure/AKS#4029.
        90_061 | 50_166 | 501_661 => Meaning::IssuerUnreachable,
        // No credential at all; and none with this issuer, subject or audience, or only one in another case.
        70_021 | 70_025 | 700_211 | 700_212 | 700_213 | 7_002_138 => Meaning::NoFederatedCredential,
        // "Client assertion is not within its valid time range".
        700_024 => Meaning::OutsideValidity,
        _ => return None,
    })
}
