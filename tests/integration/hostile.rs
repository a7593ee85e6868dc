//! Who tries to take the webhook from the others: tenants, hosts and broken objects. Each attempt costs only whoever makes it.

mod fairness;
