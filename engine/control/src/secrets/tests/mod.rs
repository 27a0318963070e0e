//! Secrets, certificates, grants and uses as callers of [`Control`] see them, and what a thief of control.db sees.

mod certificates;
mod grants;
mod secrets;
mod thief;
mod usage;

use crate::{
    Control, ControlError, EnvironmentName, NewSecret, OPERATOR, Scope, Secret, SecretName, SecretOrigin,
    Tenant, control_error::Result, tests::Fixture,
};

/// A tenant with the environments `default` and `prod`.
fn acme(fixture: &Fixture) -> Tenant {
    let tenant = fixture.tenant("acme");
    fixture.control.create_environment(tenant.id, &EnvironmentName::parse("prod").unwrap()).unwrap();
    tenant
}

fn scope(tenant: &Tenant) -> Scope<'static> {
    Scope { tenant: tenant.id, environment: "default" }
}

fn prod(tenant: &Tenant) -> Scope<'static> {
    Scope { tenant: tenant.id, environment: "prod" }
}

fn new<'a>(name: &'a SecretName, origin: SecretOrigin, value: Option<&'a [u8]>) -> NewSecret<'a> {
    NewSecret {
        name,
        owner: OPERATOR,
        origin,
        value,
        allowed_hosts: None,
        refresh_seconds: None,
        max_stale_seconds: None,
    }
}

/// Makes a stored secret.
fn store(control: &Control, scope: &Scope<'_>, name: &str, value: &[u8]) -> Result<Secret> {
    control.create_secret(scope, new(&SecretName::parse(name)?, SecretOrigin::Stored, Some(value)))
}

/// The newest value.
fn value(control: &Control, scope: &Scope<'_>, name: &str) -> Option<Vec<u8>> {
    control.secret_value(scope, name, None).unwrap().map(|(_, value)| value.to_vec())
}

fn code(error: ControlError) -> &'static str {
    sepal_types::Error::from(error).state().code()
}
