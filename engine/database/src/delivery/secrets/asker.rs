//! Which resolver gave an answer, and whether it may still ask for it.
//!
//! Beside each answer in `cache`: one that is kept outlives the right that it was asked for with. So `resolve` asks
//! here before each use, as the module does of a sink. A resolver's definition does not change while secrets come from
//! it.

use std::sync::Arc;

use sepal_control::{Control, Grantable, Scope};

use super::{User, denied, permitted, unreadable};
use crate::{
    connector::Fault,
    delivery::{objects::ResolverDef, settings},
};

/// See the module.
pub struct Asker {
    pub resolver: String,
    user: Arc<User>,
    /// What its options name.
    secrets: Vec<String>,
    certificates: Vec<String>,
}

impl Asker {
    /// `user`: the resolver's.
    pub fn new(resolver: &ResolverDef, user: Arc<User>) -> Self {
        Self {
            resolver: resolver.name.clone(),
            user,
            secrets: settings::secrets(&resolver.options).map(|(name, _)| name.to_owned()).collect(),
            certificates: settings::certificates(&resolver.options).map(str::to_owned).collect(),
        }
    }

    /// Errors: something that its options name is gone, or the key that defined it may not use it any more.
    pub fn check(&self, control: &Control, scope: &Scope<'_>) -> Result<(), Fault> {
        for name in &self.secrets {
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
