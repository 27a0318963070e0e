//! A tenant's secrets and certificates, who may use them, and who did.
//!
//! Statements (`CREATE SECRET`, …) and the operator's `sepal secret` write them; the database's secret service reads
//! values when a sink or resolver asks. A value leaves this module through [`Control::secret_value`] and
//! [`Control::certificate_pem`] alone, in memory that is wiped; no list, error or log line has one.
//!
//! ```text
//! tenant's key
//!   ├ secrets 1         values, and what is known of a secret
//!   ├ certificates 1    PEM, and what is known of a certificate
//!   └ secret records 1  grants and uses
//! ```
//! Values are sealed with XAES-256-GCM: AES-256-GCM under a key derived for this one message, with a nonce of 192
//! bits that may be random for ever. Associated data is tenant, environment, name and version, so that a value copied
//! to another row does not open. Rows are found by the HMAC of their name. Dropping the tenant destroys its key, and
//! with it all of this. docs/format/control.md draws the rows.
//!
//! [`Control::secret_value`]: crate::Control::secret_value
//! [`Control::certificate_pem`]: crate::Control::certificate_pem

mod certificates;
mod env_names;
mod grants;
mod names;
pub(crate) mod reseal;
mod safe;
mod secret;
mod sensitive;
mod store;
mod usage;
mod versions;

use sepal_types::TenantId;

pub use certificates::{Certificate, CertificatePem, NewCertificate};
pub use env_names::EnvNames;
pub use grants::{Grantable, PUBLIC};
pub use names::SecretName;
pub use secret::{NewSecret, Secret, SecretChange, SecretOrigin};
pub use sensitive::is_sensitive_name;
pub use usage::SecretUse;

pub(crate) use usage::UseBuffer;

/// The owner of what the operator made, and no API key's id: those have a capital.
pub const OPERATOR: &str = "operator";

/// One environment of one tenant: where a name means one secret.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub tenant: TenantId,
    pub environment: &'a str,
}

/// Longest value of a secret, and longest certificate with its key, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 << 10;
/// How many versions of a value are kept.
pub const KEPT_VERSIONS: u64 = 10;
/// Most secrets of one environment, and most certificates.
const MAX_PER_ENVIRONMENT: u64 = 1_000;
/// Longest options of a resolver, names and values together, in bytes.
const MAX_OPTION_BYTES: usize = 8 << 10;
/// Most hosts that a secret is bound to.
const MAX_HOSTS: usize = 64;
/// Most API keys that one secret or certificate is granted to.
const MAX_GRANTS: u64 = 1_000;
/// How many uses are kept per tenant.
const KEPT_USES: i64 = 10_000;

#[cfg(test)]
mod tests;
