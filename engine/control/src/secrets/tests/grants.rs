//! Who may use a secret or a certificate: owners, keys that were granted, everybody.

use crate::{Grantable, NewSecret, PUBLIC, SecretName, SecretOrigin, tests::Fixture};

use super::{acme, code, new, prod, scope, store};

#[test]
fn owners_and_grantees_may_use_and_nobody_else() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let ((owner, _), (analyst, _), (other, _)) =
        (fixture.key(&tenant), fixture.key(&tenant), fixture.key(&tenant));
    let name = SecretName::parse("hook_token").unwrap();
    let mine = NewSecret { owner: &owner.id, ..new(&name, SecretOrigin::Stored, Some(b"x")) };
    control.create_secret(&scope(&tenant), mine).unwrap();
    store(control, &prod(&tenant), "hook_token", b"y").unwrap();
    let may = |key: &str| control.may_use(&scope(&tenant), Grantable::Secret, "hook_token", key).unwrap();
    assert!(may(&owner.id) && !may(&analyst.id) && !may(&other.id));

    control.grant_usage(&scope(&tenant), Grantable::Secret, "hook_token", &analyst.id).unwrap();
    control.grant_usage(&scope(&tenant), Grantable::Secret, "hook_token", &analyst.id).unwrap();
    assert!(may(&analyst.id) && !may(&other.id));
    assert!(!control.may_use(&prod(&tenant), Grantable::Secret, "hook_token", &analyst.id).unwrap());
    assert!(!control.may_use(&scope(&tenant), Grantable::Certificate, "hook_token", &analyst.id).unwrap());
    assert_eq!(
        control.grantees(&scope(&tenant), Grantable::Secret, "hook_token").unwrap(),
        [analyst.id.to_string()]
    );

    control.revoke_usage(&scope(&tenant), Grantable::Secret, "hook_token", &analyst.id).unwrap();
    control.revoke_usage(&scope(&tenant), Grantable::Secret, "hook_token", &analyst.id).unwrap();
    assert!(!may(&analyst.id) && may(&owner.id));

    control.grant_usage(&scope(&tenant), Grantable::Secret, "hook_token", PUBLIC).unwrap();
    assert!(may(&analyst.id) && may(&other.id));
}

#[test]
fn grants_are_on_something_to_someone_and_end_with_it() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let foreign = fixture.tenant("other");
    let ((key, _), (stranger, _)) = (fixture.key(&tenant), fixture.key(&foreign));
    let scope = scope(&tenant);
    let grant = |name: &str, to: &str| control.grant_usage(&scope, Grantable::Secret, name, to);
    assert_eq!(code(grant("none", &key.id).unwrap_err()), "42704");
    assert_eq!(code(control.revoke_usage(&scope, Grantable::Secret, "none", &key.id).unwrap_err()), "42704");
    store(control, &scope, "token", b"x").unwrap();
    assert_eq!(code(grant("token", "nobody").unwrap_err()), "42704");
    assert_eq!(code(grant("token", &stranger.id).unwrap_err()), "42704");
    grant("token", &key.id).unwrap();

    control.drop_secret(&scope, "token").unwrap();
    assert!(!control.may_use(&scope, Grantable::Secret, "token", &key.id).unwrap());
    store(control, &scope, "token", b"another").unwrap();
    assert!(!control.may_use(&scope, Grantable::Secret, "token", &key.id).unwrap());
}
