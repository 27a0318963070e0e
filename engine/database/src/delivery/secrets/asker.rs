//! Which resolver gave an answer, and whether it may still ask for it.
//!
//! Beside each answer in `cache`: one that is kept outlives the right that it was asked for with. So `resolve` asks
//! here before each use, as the module does of a sink, unless that was asked just now, on the way to the answer. A
//! resolver's definition does not change while secrets come from it.

use std::{sync::Arc, time::Instant};

use sepal_control::{Control, Grantable, Scope};

use super::{SecretService, User, denied, moment::Moment, permitted, unreadable};
use crate::{
    connector::Fault,
    delivery::{objects::ResolverDef, settings},
};

/// See the module.
pub struct Asker {
    pub resolver: String,
    user: Arc<User>,
    /// What its options name, with the version where one is pinned.
    secrets: Vec<(String, Option<u64>)>,
    certificates: Vec<String>,
    /// What it was given on the way to the answer.
    given: Arc<Moment>,
}

impl Asker {
    /// `service`: what the resolver asks with.
    pub fn new(resolver: &ResolverDef, service: &SecretService) -> Self {
        let secrets = settings::secrets(&resolver.options);
        Self {
            resolver: resolver.name.clone(),
            user: Arc::clone(&service.user),
            secrets: secrets.map(|(name, version)| (name.to_owned(), version)).collect(),
            certificates: settings::certificates(&resolver.options).map(str::to_owned).collect(),
            given: Arc::clone(&service.moment),
        }
    }

    /// Whether it was given all that its options name just now, and no right has changed since.
    ///
    /// `changes`: how often rights have changed up to now (`SecretService::changes`).
    pub fn has_just_asked(&self, changes: u64, now: Instant) -> bool {
        let mut secrets = self.secrets.iter();
        self.certificates.is_empty()
            && secrets.all(|(name, version)| self.given.get(name, *version, changes, now).is_some())
    }

    /// Errors: something that its options name is gone, or the key that defined it may not use it any more.
    pub fn check(&self, control: &Control, scope: &Scope<'_>) -> Result<(), Fault> {
        for (name, _) in &self.secrets {
            permitted(control, scope, &self.user, name)?;
        }
        for name in &self.certificates {
            let key = &self.user.on_behalf_of;
            if !control.may_use(scope, Grantable::Certificate, name, key).map_err(unreadable)? {
                return Err(denied((control, scope), ("certificate", name), &self.user));
            }
        }
        Ok(())
    }
}
