//! Logins: from a token or a SCRAM user to a [`Principal`], and whether that one still holds.
//!
//! Wrong secret, unknown id, revoked and expired key end the same way after the same work: HMAC, cache, one
//! row (or the decoy), the row's values opened, one constant-time comparison.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use sepal_crypto::{constant_time_eq, scram::Verifier};

use crate::{
    Control, ControlError, Principal, Scopes, Token,
    api_keys::{KeyBody, KeyRow},
    control_error::Result,
    key_cache::{Check, Remembered},
    principal::Lease,
};

impl Control {
    /// Checks a whole token: the password of a cleartext login over TLS, or an HTTP bearer token. Fails with
    /// [`ControlError::NotAuthenticated`], whatever is wrong with it. The caller compares the login's user
    /// with the principal's tenant name and key id.
    pub fn authenticate_token(&self, token: &str) -> Result<Principal> {
        let token = Token::parse(token).ok_or(ControlError::NotAuthenticated)?;
        let mac = self.vault.token_mac(&token);
        // The generation is read before the row: a revocation in between makes the answer stale, not wrong
        // for ever.
        let check = Check {
            slot: self.cache.slot(token.expose()),
            mac: &mac,
            generation: self.current_generation(),
            now: self.clock.unix_seconds(),
        };
        match self.cache.look_up(check) {
            Remembered::Accepted(principal) => return Ok(principal),
            Remembered::Refused => return Err(ControlError::NotAuthenticated),
            Remembered::Nothing => {}
        }
        let found = KeyRow::find(&self.database.lock(), token.key_id())?;
        let row = found.as_ref().unwrap_or(&self.decoy);
        let body = row.open_body(&self.vault)?;
        let principal = self.principal(row, &body, check.generation)?;
        let same = constant_time_eq(&row.mac, &mac);
        if found.is_some() & same & body.is_live(check.now) {
            self.cache.accept(check, principal.clone());
            self.note_use(&principal);
            Ok(principal)
        } else {
            self.cache.refuse(check);
            Err(ControlError::NotAuthenticated)
        }
    }

    /// What to run a SCRAM exchange with for the user `key_id`. Without a live key it is a verifier that
    /// looks real, stays the same, and matches no password; the exchange then fails at its proof, as with a
    /// wrong password.
    ///
    /// The principal holds only if the exchange succeeds; then call [`Control::note_use`].
    pub fn scram_verifier(&self, key_id: &str) -> Result<(Verifier, Option<Principal>)> {
        let generation = self.current_generation();
        let mock = self.vault.mock_verifier(key_id);
        let found = KeyRow::find(&self.database.lock(), key_id)?;
        let row = found.as_ref().unwrap_or(&self.decoy);
        let body = row.open_body(&self.vault)?;
        let verifier = row.open_verifier(&self.vault)?;
        let principal = self.principal(row, &body, generation)?;
        if found.is_some() & body.is_live(self.clock.unix_seconds()) {
            Ok((verifier, Some(principal)))
        } else {
            Ok((mock, None))
        }
    }

    /// Whether the key is neither revoked nor expired nor its tenant dropped. Costs an atomic load and a look
    /// at the clock; after any revocation, one database read. A database that cannot be read counts as "no".
    pub fn still_valid(&self, principal: &Principal) -> bool {
        let now = self.clock.unix_seconds();
        let lease = &principal.lease;
        if lease.expires_at.is_some_and(|expires_at| now >= expires_at) {
            return false;
        }
        let generation = self.current_generation();
        if lease.checked_at.load(Ordering::Acquire) == generation {
            return true;
        }
        let live = self.is_live(principal, now).unwrap_or_else(|error| {
            tracing::error!(%error, key = &*principal.key_id, "an API key could not be checked and is refused");
            false
        });
        if live {
            lease.checked_at.store(generation, Ordering::Release);
        }
        live
    }

    fn is_live(&self, principal: &Principal, now: i64) -> Result<bool> {
        let Some(row) = KeyRow::find(&self.database.lock(), &principal.key_id)? else {
            return Ok(false);
        };
        Ok(row.tenant == principal.tenant && row.open_body(&self.vault)?.is_live(now))
    }

    fn principal(&self, row: &KeyRow, body: &KeyBody, generation: u64) -> Result<Principal> {
        Ok(Principal {
            tenant: row.tenant,
            tenant_name: row.open_tenant_name(&self.vault)?,
            environment: body.environment.as_deref().map(Into::into),
            key_id: Arc::clone(&row.id),
            scopes: Scopes { read: body.read, write: body.write },
            lease: Arc::new(Lease { checked_at: AtomicU64::new(generation), expires_at: body.expires_at }),
        })
    }
}

#[cfg(test)]
mod tests;
